"""Words on their way out: names that would command the terminal, readers that are gone, streams that are closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unleak.cli import main
from unleak.cli.streams import printable

UNLEAK = f"{sys.executable} -m unleak"


def shell(command, folder, **environment):
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, capture_output=True, env=os.environ | environment
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café \u3000 日本 👩‍👩‍👧", "café \u3000 日本 👩‍👩‍👧"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\nb\rc\x9b2J", "a\\nb\\rc\\x9b2J"),
        ("\udcff", "\\udcff"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert printable(text) == shown


def test_a_name_cannot_command_the_terminal(tmp_path, monkeypatch, capfd, tiny_folder):
    monkeypatch.chdir(tmp_path)
    name = "\x1b[2J\nerror: owned.png"
    Image.effect_noise((16, 16), 90).save(name)
    common = ["--model", str(tiny_folder), "--size", "16x16", "--steps", "1", "--num-frames", "2"]
    assert main(["generate", name, *common]) == 0
    assert main(["generate", name, *common, "--skip-existing"]) == 0
    Path("text\x1b[2J\nerror: owned.png").write_bytes(b"no photo")
    assert main(["generate", "text\x1b[2J\nerror: owned.png", *common]) == 2
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err
    assert [line for line in err.splitlines() if line.startswith("error:")] == [
        "error: text\\x1b[2J error: owned.png: not an image that can be read; "
        "give a JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or JPEG 2000 file"
    ]
    assert out == "out/\\x1b[2J\\nerror: owned.mp4\n"
    assert "owned.mp4" in err


@pytest.mark.parametrize(
    "command", ["models | head -1", "models --json | head -1", "--version | true", "--help | true", "models >&-"]
)
def test_a_reader_that_is_gone_is_no_failure(tmp_path, command):
    program, *rest = command.split(" | ")
    status, _, err = shell(" | ".join([f"{UNLEAK} {program}", *rest]), tmp_path)
    assert status in (0, 1)  # 1 is typer's own for its help
    assert not [line for line in err.splitlines() if line and not line.startswith("`unleak models")]


@pytest.mark.slow
def test_closed_streams_spoil_no_file(tmp_path, tiny_folder):
    """The next file that is opened would take the number of a closed stream, and what is printed."""
    Image.effect_noise((16, 16), 90).save(tmp_path / "photo.png")
    command = f"generate photo.png --model {tiny_folder} --size 16x16 --steps 1 --num-frames 2"
    assert shell(f"{UNLEAK} {command} <&- >&- 2>&-", tmp_path)[0] == 0
    assert (tmp_path / "out/photo.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_refusal_with_a_closed_stream_has_its_status(tmp_path, closed):
    status, _, err = shell(f"{UNLEAK} generate no.png {closed}", tmp_path)
    assert status == 2
    assert len(err.splitlines()) <= 1


def test_results_that_find_a_full_disk_are_a_failure(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    status, _, err = shell(f"{UNLEAK} models > /dev/full", tmp_path)
    assert status == 2
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1
