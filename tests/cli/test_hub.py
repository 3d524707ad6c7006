"""Models by Hub id, from a Hub on this machine: what is downloaded and recorded, what is said when it cannot be."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file

COMMIT = "c0ffee" * 6 + "c0de"
GATED, PRESENT = "someone/gated", "someone/tiny-wan"


def hub(folder):
    """A server of one model, `PRESENT`, from `folder`; it keeps what it was asked for in `asked`."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            server.asked.append((self.command, self.path, self.headers.get("Range")))
            repository = next((name for name in (GATED, PRESENT) if name in self.path), None)
            if repository is None:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if repository == GATED:
                return self.answer(403, X_Error_Code="GatedRepo")
            if "/tree/" in self.path:
                tree = [
                    {"type": "file", "path": name, "size": len(body), "oid": COMMIT} for name, body in files.items()
                ]
                return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
            if self.path.startswith("/api/"):
                about = {"id": PRESENT, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
                about["siblings"] = [{"rfilename": name} for name in files]
                return self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
            body = files.get(self.path.split("/resolve/")[1].partition("/")[2])
            if body is None:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            status, wanted = 200, self.headers.get("Range")
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                status, body = 206, body[int(first) : int(last or len(body)) + 1]
            return self.answer(status, body, ETag=f'"{hash(self.path):x}"', X_Repo_Commit=COMMIT)

        def do_HEAD(self):
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


RUN = """
import contextlib, io, json, sys
from unleak.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    told.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_hub_id_is_estimated_downloaded_pinned_and_animated(pipeline_folder, photo, tmp_path):
    server = hub(pipeline_folder("wan22"))
    small = ["--size", "32x16", "--num-frames", "5"]
    steps = ["--steps", "1", "--set", "max_sequence_length=8"]
    commands = [
        ["doctor", "--model", PRESENT, *small, "--json"],
        ["generate", "photo.png", "--model", PRESENT, *small, *steps, "--json", "--quiet"],
        ["generate", "photo.png", "--model", GATED, "--out", "gated"],
        ["generate", "photo.png", "--model", "someone/none", "--out", "none"],
    ]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr
    (doctor, generate, gated, missing) = json.loads(done.stdout.splitlines()[-1])
    assert doctor[0] == 0, doctor
    estimated = json.loads(doctor[1])
    weights = load_file(pipeline_folder("wan22") / "vae/diffusion_pytorch_model.safetensors")
    assert estimated["weights_gb"]["vae"] == pytest.approx(4e-9 * sum(map(torch.numel, weights.values())))
    assert any(kind == "GET" and wanted for kind, path, wanted in server.asked if "safetensors" in path)
    assert generate[0] == 0, generate
    (video,) = json.loads(generate[1])["videos"]
    assert (video["model"]["source"], video["model"]["revision"]) == (PRESENT, COMMIT)
    assert (tmp_path / "out/photo.mp4").is_file()
    assert gated[0] == missing[0] == 2
    assert (
        gated[2]
        == f"error: model {GATED}: gated: accept its licence on the Hub, then log in here with `hf auth login`\n"
    )
    assert missing[2].startswith("error: model someone/none: the Hub has no such repository, or it is private; check")
    assert not (tmp_path / "gated").exists()
