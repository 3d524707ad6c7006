"""`unleak ui`: the same in a browser."""

from threading import Event
from typing import Annotated, Literal

import typer

from unleak.cli.placement import DeviceOption
from unleak.cli.terminal import Terminal

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Offer this model, of those that `unleak models` lists; repeatable. By default those here."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name of the page, of a proxy; repeatable.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    device: DeviceOption = None,
    offload: Annotated[
        Literal["none", "model", "sequential", "group"],
        typer.Option(help="Keep weights off the accelerator until needed; `unleak doctor --model` says which fits."),
    ] = "none",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say the address and failures only.")] = False,
) -> None:
    """Animate photos in the browser, plain and fixed side by side; sweep, find a start, diagnose a model.

    Serves this machine alone unless --host says otherwise. Whoever reaches it can use the models it offers, and read
    or write no files but their own. Ctrl-C ends it.
    """
    terminal = Terminal(quiet)
    from unleak.ui.serve import serving

    if host not in _LOOPBACK:
        terminal.note(f"--host {host}: whoever reaches this machine can use it; there are no accounts")
    with serving(
        model or (),
        host=host,
        port=port,
        device=device,
        offload=offload,
        open_browser=open_browser,
        hosts=allow_host or (),
    ) as url:
        terminal.line(url)
        terminal.note("Ctrl-C ends it")
        Event().wait()
