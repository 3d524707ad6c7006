"""ComfyUI as the tests use it: a process of its own, spoken to over HTTP."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from safetensors.torch import load_file

HERE = Path(__file__).parent


class NodeError(Exception):
    """What a node raised; `node` is its class."""

    def __init__(self, message, node="", trace=()):
        super().__init__(message)
        self.node = node
        self.add_note("".join(trace))


class Graph:
    """A workflow in the form that the server runs: `graph("Node", input=...)` adds a node and returns its outputs."""

    def __init__(self):
        self.nodes = {}

    def __call__(self, node, **inputs):
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {
            "class_type": node,
            "inputs": {name: self._given(value) for name, value in inputs.items()},
        }
        return Outputs(number)

    @staticmethod
    def _given(value):
        return value[0] if isinstance(value, Outputs) else value


class Outputs:
    def __init__(self, number):
        self.number = number

    def __getitem__(self, index):
        return [self.number, index]


class Engine:
    """A running ComfyUI with unleak's pack and the tiny models."""

    def __init__(self, home, base):
        """home: what `make comfyui-test` made, an environment and the engine; base: a folder for this run."""
        self.python, self.source, self.base = home / "bin" / "python", home / "engine", Path(base)
        self.process = None
        self.url = ""

    def start(self, timeout=300):
        for name in ("custom_nodes", "input", "output", "models"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(HERE / "nodes", self.base / "custom_nodes" / "unleak_tests", dirs_exist_ok=True)
        (self.base / "front").mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = ["--cpu", "--listen", "127.0.0.1", "--port", port, "--base-directory", self.base]
        options += ["--disable-api-nodes", "--disable-auto-launch", "--front-end-root", self.base / "front"]
        options += ["--database-url", "sqlite:///:memory:"]
        command = [self.python, HERE / "start.py", self.source, *options]
        self.log = (self.base / "log.txt").open("wb")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self.log, stderr=subprocess.STDOUT, env=self._environment(), cwd=self.base
        )
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
            except OSError:
                time.sleep(0.2)
            else:
                return
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.said()[-4000:]}")

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.log.close()

    def said(self):
        """What it has printed."""
        return (self.base / "log.txt").read_text(encoding="utf-8", errors="replace")

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def run(self, graph, timeout=120):
        """Run a workflow to its end and return what its nodes show; NodeError if one fails."""
        nodes = graph.nodes if isinstance(graph, Graph) else graph
        body = json.dumps({"prompt": nodes}).encode()
        request = urllib.request.Request(f"{self.url}/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                number = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise NodeError(error.read().decode()) from None
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if entry := self.get(f"/history/{number}").get(number):
                for kind, about in entry["status"]["messages"]:
                    if kind == "execution_error":
                        raise NodeError(about["exception_message"].strip(), about["node_type"], about["traceback"])
                return entry["outputs"]
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended:\n{self.said()[-4000:]}")
            time.sleep(0.02)
        raise TimeoutError(f"the workflow did not end:\n{self.said()[-2000:]}")

    def saved(self, name):
        """The tensors that a test node saved under `name`."""
        return load_file(self.base / "output" / f"{name}.safetensors")

    def calls(self, name):
        """What TestRecord saved under `name`, evaluation by evaluation."""
        files = sorted((self.base / "output" / name).glob("*.safetensors"), key=lambda file: int(file.stem))
        return [load_file(file) for file in files]

    @staticmethod
    def _environment():
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
