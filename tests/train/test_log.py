"""The log of a run on disk, when the run goes on."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from unleak.train.log import Counter, forget_after


def test_steps_after_the_checkpoint_and_half_a_line_are_forgotten(tmp_path):
    path = tmp_path / "log.jsonl"
    forget_after(path, 4)
    assert not path.exists()
    lines = [json.dumps({"step": step, "loss": 0.1}) + "\n" for step in (2, 4, 6)]
    path.write_text("".join(lines) + '{"step": 3')
    forget_after(path, 4)
    assert path.read_text() == "".join(lines[:2])


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[1]",
        "{}",
        '{"step": "4"}',
        '{"step": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"step": 1, "x": "' + "x" * 2**21 + '"}',
        "\xff",
    ],
    ids=range(8),
)
def test_what_is_no_log_is_one_line_and_stays(tmp_path, line):
    path = tmp_path / "log.jsonl"
    content = b'{"step": 2}\n' + line.encode("latin-1") + b"\n"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.jsonl.*not the log of a run: move it away") as caught:
        forget_after(path, 4)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["log.jsonl"]


def test_off_a_terminal_long_work_says_how_long_it_takes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("unleak.train.log.time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = io.StringIO()
    with Counter("latent cache", Console(file=stream, width=100)) as counter:
        for done in range(0, 101, 5):
            now[0] = 100.0 + 12 * done
            counter(done, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[1] == "latent cache: 10 of 100 clips, about 18 min left"
    assert lines[-1] == "latent cache: 100 of 100 clips"
