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


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_what_a_library_wrote_for_its_owner_alone_others_may_read(tmp_path):
    (tmp_path / "plain").touch()
    usual = (tmp_path / "plain").stat().st_mode

    def private(path):
        path.touch(mode=0o600)

    with written_whole(tmp_path / "file") as made:
        private(made)
    with folder_written_whole(tmp_path / "folder") as made:
        (made / "inner").mkdir()
        private(made / "inner/file")
    assert (tmp_path / "file").stat().st_mode == usual
    assert (tmp_path / "folder/inner/file").stat().st_mode == usual
