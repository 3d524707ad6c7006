"""Dimensions of VBench by the package `vbench` itself, run by an interpreter that has it.

vbench wants another transformers and another numpy than this package, so it is usually installed in an environment of
its own; its interpreter is asked, with plain files between the two.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from unleak.data.reading import parse_json, read_json
from unleak.measure.adapters.vbench_layout import CAMERA, INFO, MOST, VIDEOS, vbench_layout
from unleak.measure.intervals import mean_of

__all__ = ["DIMENSIONS", "VBench"]

_OF_IMAGES = ("i2v_subject", "i2v_background", "camera_motion")
DIMENSIONS = (*_OF_IMAGES, "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
              "dynamic_degree", "aesthetic_quality", "imaging_quality", "overall_consistency")  # fmt: skip
"""Those that any videos can be measured by; the others of VBench need its own prompts."""

_PROGRAM = """
import json, sys
task = json.load(sys.stdin)
sys.stdout, out = sys.stderr, sys.stdout
try:
    import torch
    from importlib.metadata import version
    from vbench import VBench
    if task["of_images"]:
        from vbench2_beta_i2v import VBenchI2V
except ImportError as error:
    json.dump({"missing": str(error)}, out)
    sys.exit()
if task["ask"]:
    json.dump({"version": version("vbench")}, out)
    sys.exit()
device = torch.device(task["device"])
for kind, dimensions in (("plain", task["plain"]), ("of_images", task["of_images"])):
    if dimensions:
        maker = VBench if kind == "plain" else VBenchI2V
        bench = maker(device, task["info"], task["results"])
        options = {"mode": "custom_input"} if kind == "plain" else {"resolution": "1-1"}
        bench.evaluate(videos_path=task["videos"], name=kind, dimension_list=dimensions, **options)
json.dump({"version": version("vbench")}, out)
"""


class VBench:
    """Runs `dimensions` of VBench. `python`: the interpreter of the environment that has it; None: this one.

    Raises ValueError for a dimension it cannot measure, and where that interpreter has no vbench.
    """

    def __init__(self, dimensions: Sequence[str], *, python: str | Path | None = None, device: str = "cpu"):
        if unknown := next((one for one in dimensions if one not in DIMENSIONS), None):
            raise ValueError(f"--vbench {unknown}: give some of {', '.join(DIMENSIONS)}")
        self.dimensions, self.python, self.device = tuple(dimensions), str(python or sys.executable), device
        self.name = f"vbench {self._run({'ask': True}, None)['version']}"

    def __call__(
        self, videos: Sequence[Path], prompts: Sequence[str], images: Sequence[Path | None]
    ) -> dict[str, dict[str, Any]]:
        """Return each dimension's number, as VBench gives it, by `vbench DIMENSION`, with an interval over videos.

        `prompts` name the videos. The dimensions of images need `images`. Raises ValueError if VBench fails.
        """
        self.check(prompts, images)
        with TemporaryDirectory(prefix="unleak-vbench-") as temporary:
            folder = vbench_layout(videos, prompts, Path(temporary) / "bench", images=images)
            results = Path(temporary) / "results"
            task = {
                "device": self.device,
                "info": str(folder / INFO),
                "videos": str(folder / VIDEOS),
                "results": str(results),
            }
            self._run({"ask": False, **task}, folder)  # images are sought from the current folder
            found: dict[str, Any] = {}
            for file in results.glob("*_eval_results.json"):
                found |= read_json(file, dict)
        return {f"vbench {name}": _record(name, found[name]) for name in self.dimensions if name in found}

    def check(self, prompts: Sequence[str], images: Sequence[Path | None]) -> None:
        """Raise ValueError for what the dimensions of images cannot be measured of."""
        wanted = [name for name in self.dimensions if name in _OF_IMAGES]
        if not wanted:
            return
        if "camera_motion" in wanted and not any(move in prompt for prompt in prompts for move in CAMERA):
            raise ValueError(f"--vbench camera_motion: no prompt says how the camera moves, such as {CAMERA[0]!r}")
        if any(name != "camera_motion" for name in wanted) and None in images:
            raise ValueError(f"--vbench {wanted[0]}: it compares with the photo of each video; give --images")
        twice = [prompt for prompt in prompts if prompts.count(prompt) > MOST]
        if twice:
            raise ValueError(
                f"--vbench {wanted[0]}: VBench reads {MOST} videos of a prompt, and {twice[0]!r} has"
                f" {prompts.count(twice[0])}"
            )

    def _run(self, task: dict[str, Any], folder: Path | None) -> dict[str, Any]:
        parts = {"plain": [name for name in self.dimensions if name not in _OF_IMAGES]}
        parts["of_images"] = [name for name in self.dimensions if name in _OF_IMAGES]
        command = [self.python, "-c", _PROGRAM]
        try:
            done = subprocess.run(
                command, input=json.dumps(task | parts), capture_output=True, text=True, cwd=folder, check=False
            )
        except OSError as error:
            raise ValueError(f"--vbench-python {self.python}: cannot be run ({error.strerror})") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"vbench failed: {last}")
        answer: dict[str, Any] = parse_json(done.stdout, dict, f"vbench failed: what {self.python} answers")
        if "missing" in answer:
            raise ValueError(
                f"vbench cannot be used by {self.python} ({answer['missing']}); install it, best in an environment of"
                " its own, and give --vbench-python PATH of its interpreter"
            )
        return answer


def _record(name: str, result: Any) -> dict[str, Any]:
    """Return a dimension's mean with the interval over its videos, where the mean is the videos' own.

    Raises ValueError for a result of another form.
    """
    try:
        value, each = float(result[0]), [float(one["video_results"]) for one in result[-1]]
    except (TypeError, LookupError, ValueError) as error:
        raise ValueError(f"vbench failed: what it says of {name} is no number with one for each video") from error
    found: dict[str, Any] = {"value": value, "low": None, "high": None, "groups": len(each)}
    if each and np.isclose(np.mean(each), value):
        mean = mean_of(each).record
        found |= {"low": mean["low"], "high": mean["high"]}
    return found
