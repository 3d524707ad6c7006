"""Full disks and killed processes: what stood there stands there still, and nothing half-written is beside it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, limits and /dev/full")

# One interpreter imports all there is, then a fork of it runs each command: what a limit or a signal does to a process
# can be seen in a process only, and a process of its own for each would import for seconds.
PROGRAM = """
import json, os, resource, signal, sys, traceback
from pathlib import Path
from types import SimpleNamespace

from unleak.cli import main
import diffusers, transformers
from unleak.cli import generate, stats, train
from unleak.core.moments import LatentMoments
from unleak.data import atomic, video
from unleak.stats import estimate
from unleak.train import checkpoint, trainer
from unleak.animate import job, sample

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(name, call):
    # The call of `os` number `call` that is about a path of the world ends the process.
    real, left = getattr(os, name), [call]
    def deadly(*arguments, **options):
        left[0] -= 1
        return real(*arguments, **options) if left[0] else killed()
    setattr(os, name, deadly)


for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(case["folder"])
        for number, name in ((1, case.get("stdout", "stdout.txt")), (2, "stderr.txt")):
            place = name if name.startswith("/") else os.path.join("..", name)
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if "largest" in case:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case["largest"],) * 2)
        exec(case.get("before", ""))
        try:
            status = main(case["command"])
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            status = 99
        os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def program():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    quiet = {f"{library}_VERBOSITY": "error" for library in ("TRANSFORMERS", "DIFFUSERS")}  # as the command sets them
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=os.environ | quiet, **pipes)
    yield process
    process.stdin.close()
    process.wait()


def runner(program, folder):
    """A function that runs a command in `folder` and returns its status and what it said on stderr."""

    def run(*command, **case):
        case |= {"folder": str(folder), "command": [str(part) for part in command]}
        print(json.dumps(case), file=program.stdin, flush=True)
        return int(program.stdout.readline()), (folder.parent / "stderr.txt").read_text()

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def made(program, tiny_folder, clips, tmp_path_factory):
    """A folder with a photo, videos and a recipe, and what the commands made of them."""
    folder = tmp_path_factory.mktemp("made") / "here"
    folder.mkdir()
    (folder / "tiny").symlink_to(tiny_folder)
    (folder / "clips").symlink_to(clips)
    Image.effect_noise((48, 32), 90).convert("RGB").save(folder / "photo.png")
    (folder / "recipe.yaml").write_text(RECIPE)
    for command in (GENERATE, STATS, TRAIN):
        assert runner(program, folder)(*command) == (0, ""), command
    for suffix in ("gif", "webp", "png"):
        (folder / f"out/photo.{suffix}").write_bytes(b"mine")
    return folder


@pytest.fixture
def run(program, made, tmp_path):
    """`runner` in a copy of the folder `made`."""
    return runner(program, Path(shutil.copytree(made, tmp_path / "here", symlinks=True)))


RECIPE = """
model: tiny
output: trained
steps: 2
batch_size: 1
checkpoint_every: 1
keep: 9
condition: {noise: timenoise}
data: {kind: folder, path: clips, num_frames: 2, fps: 7, size: [16, 16]}
"""
GENERATE = ("generate", "photo.png", "--model", "tiny", "--size", "16x16", "--steps", 1, "--quiet", "--overwrite")
STATS = ("stats", "--model", "tiny", "--size", "32x16", "--workers", 0, "--quiet", "--overwrite")
STATS = (*STATS, "--videos", "clips", "--out", "made/m.safetensors")
TRAIN = ("train", "recipe.yaml", "--quiet")


def left(folder):
    """Name -> content of all files, the hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


FULL = r"; free some space, or write to another disk"
NO_RECORD = "job.json = SimpleNamespace(**vars(json) | {'dumps': lambda *values, **how: 'null'})"
ENOSPC = """
def full(*arguments, **options):
    raise OSError(28, "No space left on device")
"""


@pytest.mark.parametrize(
    ("command", "case", "named"),
    [
        (GENERATE, {"largest": 500}, "out/photo.json: File too large"),
        (GENERATE, {"largest": 500, "before": NO_RECORD}, "out/photo.mp4: File too large"),
        ((*GENERATE, "--format", "gif"), {"largest": 100, "before": NO_RECORD}, "out/photo-2.gif: File too large"),
        ((*GENERATE, "--format", "webp"), {"largest": 100, "before": NO_RECORD}, "out/photo-2.webp: File too large"),
        ((*GENERATE, "--format", "png"), {"largest": 100, "before": NO_RECORD}, "out/photo-2.png: File too large"),
        (GENERATE, {"before": ENOSPC + "os.replace = full"}, "out/photo.mp4: No space left on device"),
        (STATS, {"largest": 100}, "made/m.json: File too large"),
        (STATS, {"largest": 2200}, "made/m.safetensors: File too large"),
        (STATS, {"before": ENOSPC + "Path.write_bytes = full"}, "made/m.safetensors: No space left on device"),
        ((*TRAIN, "--set", "steps=9"), {"largest": 20_000}, "trained/checkpoints/step-00000003: File too large"),
        (
            (*TRAIN, "--set", "steps=9"),
            {"before": ENOSPC + "os.fsync = full"},
            "trained/checkpoints/step-00000003: No space left on device",
        ),
        ((*TRAIN, "--set", "steps=9"), {"largest": 150}, "trained/recipe.yaml: File too large"),
        ((*TRAIN, "--export", "made/new"), {"largest": 20_000}, "made/new: File too large"),
    ],
)
def test_a_full_disk(run, command, case, named):
    before = left(run.folder)
    assert run(*command, **case) == (2, f"error: {named}{FULL}\n")
    now = left(run.folder)
    if "checkpoints" in named:  # the run has begun: what it was asked is told
        assert b"steps: 9" in now.pop("trained/recipe.yaml")
        del before["trained/recipe.yaml"]
    assert now == before


def test_a_full_disk_behind_stdout(run):
    for command in (("doctor",), ("generate", "photo.png", "--dry-run", "--quiet", "--json", "--out", "new")):
        status, said = run(*command, stdout="/dev/full")
        assert (status, said.count("\n")) == (2, 1)
        assert said == f"error: No space left on device{FULL}\n"


@pytest.mark.parametrize(
    ("command", "before"),
    [
        (GENERATE, "video._write_mp4 = lambda frames, path, fps: (path.write_bytes(b'half'), killed())"),
        (GENERATE, "killed_at('replace', 1)"),
        (STATS, "Path.write_bytes = lambda path, content: (path.open('wb').write(content[:9]), killed())"),
        (TRAIN, "checkpoint.save_file = killed"),
        (TRAIN, "killed_at('fsync', 3)"),
    ],
)
def test_a_killed_run(run, command, before):
    """SIGKILL in the middle of writing: earlier files are intact, no name shows half a file, the command can follow."""
    if command is TRAIN:
        shutil.rmtree(run.folder / "trained")
    earlier = left(run.folder)
    status, _ = run(*command, before=before)
    assert status == -signal.SIGKILL
    now = left(run.folder)
    assert {name: now[name] for name in earlier} == earlier
    new = now.keys() - earlier.keys()
    allowed = {"trained/recipe.yaml", "trained/log.jsonl", "made/m.progress"}
    assert all(any(part.startswith(".") for part in Path(name).parts) for name in new - allowed), new
    assert run(*command) == (0, "")
    assert {path.name for path in run.folder.rglob(".*")} <= {".lock"}  # the next run clears up


def test_the_real_program(tmp_path):
    program = [sys.executable, "-m", "unleak"]
    done = subprocess.run([*program, "generate", "none.jpg"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.jpg: no such file or folder\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_terminated_runs_remove_their_temporary_file(tmp_path):
    """SIGTERM in the middle of writing."""
    code = (
        "import os, signal, sys\n"
        "sys.argv = ['unleak', 'doctor']\n"
        "from unleak.cli import app\n"
        "from unleak.data.atomic import written_whole\n"
        "def doctor(*args, **kwargs):\n"
        "    with written_whole('video.mp4') as temporary:\n"
        "        temporary.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "app.app = doctor\n"
        "sys.exit(app.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 128 + 15
    assert list(tmp_path.iterdir()) == []
