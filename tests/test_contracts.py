"""The import contracts of pyproject.toml can fail: a copy of the sources with one wrong import is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder):
    command = [Path(sys.executable).with_name("lint-imports"), "--config", folder / "pyproject.toml", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/start.py", "import unleak.attach.apply", "Imports point down"),
        ("core/start.py", "import diffusers", "core is torch, numpy and safetensors only"),
        ("core/start.py", "def late():\n    from transformers import AutoModel", "core is torch"),
        ("attach/apply.py", "import unleak.families.svd", "Imports point down"),
        ("attach/apply.py", "import unleak.data.video", "Imports point down"),
        ("families/svd/view.py", "import unleak.train.trainer", "Imports point down"),
        ("measure/motion.py", "import unleak.report.plots", "Imports point down"),
        ("report/plots.py", "import unleak.study.listener", "Imports point down"),
        ("study/listener.py", "import unleak.cli.terminal", "Imports point down"),
        ("shortcuts.py", "", "Imports point down"),
    ],
)
def test_a_wrong_import_is_refused(tmp_path, module, line, contract):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / "src",
        tmp_path / "src",
        ignore=lambda folder, names: {n for n in names if n in ("weights", "__pycache__")},
    )
    with (tmp_path / "src/unleak" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert contract in result.stdout.partition("Broken contracts")[2]
