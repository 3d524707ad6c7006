import os
import subprocess
import sys
from pathlib import Path

import pytest

from unleak.core import temporary
from unleak.data.atomic import folder_written_whole, written_whole


@pytest.mark.skipif(os.name != "posix", reason="whether a process has ended")
def test_what_ended_processes_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = temporary.temporary_beside(tmp_path / "video.mp4")  # as left by a thread of this process
    name = mine.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    mine.write_text("being written")
    (tmp_path / name).write_text("left")
    (tmp_path / f"{name}.part").mkdir()
    other = [tmp_path / f".0{name[2:]}", tmp_path / "video.part", tmp_path / ".hidden"]  # another machine's, users'
    for file in other:
        file.write_text("not ours")
    temporary._clear.cache_clear()
    with written_whole(tmp_path / "video.mp4") as made:
        made.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"video.mp4", mine.name, *(file.name for file in other)}


def test_a_folder_comes_back_that_was_put_aside(tmp_path, monkeypatch):
    out, rename, targets = tmp_path / "out", Path.rename, []
    monkeypatch.setattr(Path, "rename", lambda self, target: targets.append(target) or rename(self, target))
    for text in ("old", "new"):
        with folder_written_whole(out) as folder:
            (folder / "file").write_text(text)
    _, aside, last = targets
    assert last == out
    out.rename(aside)  # as if killed before the last
    with pytest.raises(KeyboardInterrupt), folder_written_whole(out):
        raise KeyboardInterrupt
    assert (out / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]
