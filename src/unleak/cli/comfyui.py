"""`unleak comfyui`: put unleak's nodes into a ComfyUI, and take them out."""

from pathlib import Path
from typing import Annotated

import typer

from unleak.cli.terminal import Terminal

comfyui = typer.Typer(
    help="Put unleak's nodes into a ComfyUI, or take them out.",
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
)
_Folder = Annotated[
    Path, typer.Argument(metavar="COMFYUI", help="Folder of ComfyUI, or the base directory it is started with.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and failures only.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@comfyui.command()
def install(folder: _Folder, quiet: _Quiet = False, as_json: _Json = False) -> None:
    """Write the nodes into custom_nodes/unleak of a ComfyUI; installing again upgrades them.

    The pack holds all that it needs: ComfyUI's environment gets neither unleak nor diffusers.
    """
    from unleak.comfyui.pack import install as install_pack

    terminal = Terminal(quiet, as_json)
    out, count = install_pack(folder)
    terminal.line(f"{out}: {count} files")
    terminal.note(f"in ComfyUI's environment: pip install -r {out / 'requirements.txt'}")
    terminal.note("then restart ComfyUI; example workflows are under Templates, unleak")
    terminal.json({"out": str(out), "files": count})


@comfyui.command()
def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that holds an earlier pack.")],
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Write the nodes as a folder to hand on, as `install` would put it into custom_nodes."""
    from unleak.comfyui.pack import build as build_pack

    terminal = Terminal(quiet, as_json)
    count = build_pack(out)
    terminal.line(f"{out}: {count} files")
    terminal.json({"out": str(out), "files": count})


@comfyui.command()
def uninstall(folder: _Folder, quiet: _Quiet = False, as_json: _Json = False) -> None:
    """Remove what `install` wrote into a ComfyUI, and nothing else."""
    from unleak.comfyui.pack import uninstall as uninstall_pack

    terminal = Terminal(quiet, as_json)
    out, kept = uninstall_pack(folder)
    terminal.line(f"{out}: removed")
    if kept:
        terminal.note(f"{len(kept)} files that unleak did not write stay there: {', '.join(kept[:5])}")
    terminal.json({"out": str(out), "kept": kept})
