"""Serve the page on a port, with a temporary folder of its own that is gone afterwards."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["MAX_UPLOAD", "serving"]

MAX_UPLOAD = 20_000_000  # bytes
_MAX_WAITING = 20


@contextmanager
def serving(
    models: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    device: str | None = None,
    offload: str = "none",
    open_browser: bool = False,
    hosts: Sequence[str] = (),
) -> Iterator[str]:
    """Serve the page while the body runs; gives its address.

    models: names that `unleak models` lists; none: those on this machine. port: None takes a free one from 7860 on.
    hosts: names by which browsers ask for the page, such as that of a proxy, beside `localhost`, `host` and addresses
    in numbers; a request for another name is refused, and so is one that another page has caused.

    Visitors can read and write nothing but a temporary folder, removed at the end, and of that only what is their own:
    a cookie tells them apart. Uploads are limited to `MAX_UPLOAD` bytes each. Raises ValueError for a model that cannot
    be offered, a port that is taken, and if gradio is not installed.
    """
    with TemporaryDirectory(prefix="unleak-ui-") as name:
        folder = Path(name).resolve()
        # Read by Gradio when a component is made, and before it would report its use to its makers.
        os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            from unleak.ui import page
        except ModuleNotFoundError as error:
            raise ValueError(f"the web page needs {error.name}: pip install 'unleak[ui]'") from error
        from starlette.middleware import Middleware

        from unleak.ui.gate import Gate, allowed_hosts
        from unleak.ui.studio import Studio
        from unleak.ui.visitors import Visitors

        try:
            studio = Studio(models, device=device, offload=offload)
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
        visitors = Visitors(folder)
        gate = Middleware(Gate, visitors=visitors, hosts=allowed_hosts(host, hosts))
        blocks = page.build(studio, folder, visitors)
        blocks.queue(max_size=_MAX_WAITING, api_open=False)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                max_file_size=MAX_UPLOAD,
                enable_monitoring=False,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                app_kwargs={"middleware": [gate]},
                theme=page.theme(),
                css_paths=page.STYLE,
                head_paths=page.HEAD,
            )
        except OSError as error:
            raise ValueError(f"--host {host} --port {port or '7860 to 7959'}: {error}; give another --port") from error
        try:
            yield address
        finally:
            blocks.close(verbose=False)
