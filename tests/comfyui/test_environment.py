"""Where ComfyUI cannot be had, `make comfyui-test` says so and fails nothing."""

import subprocess
from pathlib import Path

import pytest

from tests.comfyui.engine import environment

ROOT = Path(__file__).parents[2]


def test_a_package_that_cannot_be_had_is_a_sentence_and_status_3(tmp_path, monkeypatch, capsys):
    asked = []

    def pip(*command):
        asked.append(command)
        if "download" in command:
            raise subprocess.CalledProcessError(1, list(command))

    monkeypatch.setattr(environment, "_run", pip)
    monkeypatch.setattr(environment.venv, "create", lambda folder, with_pip: folder.mkdir())
    assert environment.main(tmp_path / "env") == environment.CANNOT_BE_HAD
    said = capsys.readouterr().out
    assert "are skipped, since its environment cannot be had: pip failed at" in said
    assert environment.ENGINE in said
    assert len(asked) == 3
    assert not (tmp_path / "env" / "made.sha256").exists()


@pytest.mark.parametrize(("made", "status"), [(3, 0), (1, 2), (0, 0)])
def test_make_skips_where_there_is_no_environment_and_fails_where_it_is_broken(tmp_path, made, status):
    """The recipe itself, with a script in place of python."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncase $1 in *environment.py) exit {made};; esac\n')
    python.chmod(0o755)
    command = ["make", "--old-file=.venv/.dev", f"BIN={tmp_path}", "comfyui-test"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == status
    asked = (tmp_path / "asked").read_text().splitlines()
    assert any("pytest tests/comfyui" in line for line in asked) == (made == 0)
