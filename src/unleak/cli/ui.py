"""`unleak ui`: the same in a browser."""

from threading import Event
from typing import Annotated, Literal

from unleak.cli.options import BASIC, MEMORY, MODEL, OUTPUT, command, option, whole
from unleak.cli.terminal import Terminal

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@command
def ui(
    host: Annotated[
        str, option("ADDRESS", "Address to listen on; 0.0.0.0 lets other machines in.", panel=BASIC)
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, option("NAME", "Another name of the page, of a proxy; repeatable.", panel=BASIC)
    ] = None,
    port: Annotated[
        int | None, option("N", "By default the first free one from 7860.", parse=whole(1, 65535), panel=BASIC)
    ] = None,
    open_browser: Annotated[bool, option("", "Open it in the browser.", "--open", panel=BASIC)] = False,
    quiet: Annotated[bool, option("", "Print the address and failures only.", "--quiet", "-q", panel=OUTPUT)] = False,
    device: Annotated[
        str | None, option("NAME", "cpu, cuda, cuda:1 or mps; by default the accelerator, if any.", panel=MEMORY)
    ] = None,
    offload: Annotated[
        Literal["none", "model", "sequential", "group"],
        option("WAY", "Keep weights off the accelerator until needed; see `unleak doctor --model`.", panel=MEMORY),
    ] = "none",
    model: Annotated[
        list[str] | None,
        option("NAME", "Offer this model of `unleak models`; repeatable; by default those here.", panel=MODEL),
    ] = None,
) -> None:
    """Animate photos in the browser, plain and fixed side by side; sweep, find a start, diagnose a model.

    Serves this machine alone unless --host says otherwise. Whoever reaches it can use the models it offers, and read
    or write no files but their own. Ctrl-C ends it.
    """
    terminal = Terminal(quiet)
    terminal.note("opening the page ...")
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
