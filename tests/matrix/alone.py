"""One command in a process that has imported the libraries below unleak and nothing of unleak itself."""

import os
import sys
from pathlib import Path

PRELOADED = ("torch", "diffusers", "transformers", "accelerate", "safetensors.torch", "av", "typer", "rich.progress")
"""What the process that others are forked from imports once: no module of unleak."""


def run(arguments: list[str], work: Path, installed: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """Run `unleak ARGUMENTS` from the folder it is installed in, in the process forked for it, and exit as it does."""
    assert not any(name.partition(".")[0] == "unleak" for name in sys.modules)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(work)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [
        str(installed),
        *(entry for entry in sys.path if not (Path(entry) / "unleak" / "__init__.py").is_file()),
    ]
    sys.argv = ["unleak", *arguments]
    from unleak.cli import main

    assert Path(sys.modules["unleak"].__file__ or "").is_relative_to(installed)
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
