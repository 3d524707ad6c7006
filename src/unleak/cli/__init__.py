"""The command line, one file per command. `python -m unleak` and the console script `unleak` both call `main`."""

from unleak.cli.app import main

__all__ = ["main"]
