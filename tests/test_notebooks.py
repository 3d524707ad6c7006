"""The notebooks run from top to bottom, as a reader runs them, with nano in place of a full-size model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name):
    """All code cells of a notebook as one script."""
    cells = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.slow
def test_the_quick_start_runs(folder):
    done = subprocess.run(
        [sys.executable, "-c", script("quickstart.ipynb")], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    scores = [float(line.split()[-1]) for line in done.stdout.splitlines()[-3:]]
    assert scores[0] < max(scores)


@pytest.mark.slow
def test_the_notebook_for_a_model_of_your_own_runs_with_nano(folder):
    code = script("your_model.ipynb")
    assert '"svd"' in code
    code = code.replace('MODEL = "svd"', 'MODEL = "nano"').replace(
        'inputs = {"image": photo}', 'inputs = {"image": photo, "height": 64, "width": 64, "num_inference_steps": 4}'
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.glob("*.mp4")} == {
        f"{n}.mp4" for n in ("plain", "fixed", "low", "medium", "high")
    }
