"""What every tab of the page needs: the studio, the visitor who asks, what is theirs, and how errors are shown."""

import logging
import shutil
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from unleak.ui.studio import Report, Studio
from unleak.ui.visitors import LeftError, Visitors, visitor_of

__all__ = ["HEAVY", "LIGHT", "Site", "guard"]

# One visitor's video at a time, whichever tab it is asked from; the others queue.
HEAVY: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
LIGHT: dict[str, Any] = {"concurrency_limit": 4, "api_visibility": "private", "show_progress": "hidden"}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """The studio, and the folder in which visitors have their files."""

    studio: Studio
    folder: Path
    visitors: Visitors

    def room(self, request: gr.Request) -> Path:
        """Make a new folder for results of the visitor who asks."""
        return self.visitors.room(_visitor(request))

    def theirs(self, request: gr.Request, file: str | None, kind: str = "photo") -> Path:
        """Return an upload of the visitor who asks; ValueError for no file, and for one of somebody else."""
        if file is None:
            raise ValueError(f"give a {kind} first")
        if not self.visitors.owns(_visitor(request), file):
            raise ValueError(f"this {kind} is not yours: give one of your own")
        return Path(file)

    def copied(self, request: gr.Request, file: Path) -> str:
        """Copy a file of ours for the visitor who asks; return its path."""
        return str(shutil.copyfile(file, self.room(request) / file.name))

    def report(self, progress: Callable[..., Any], request: gr.Request) -> Report:
        """Show progress to the visitor who asked, and stop what is made for one who has closed the page."""

        def report(share: float, text: str) -> None:
            self.visitors.check_here(request.session_hash)
            progress(share, desc=text)

        return report

    @contextmanager
    def errors_shown(self) -> Iterator[None]:
        """Turn what fails into a message to the visitor who asked, without the places of files; the server goes on."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ValueError):
                text = str(error)
            elif isinstance(error, LeftError):
                text = "The page was closed."
            else:
                _LOG.exception("a request failed")
                text = f"The model failed ({type(error).__name__}): {str(error).strip().partition(chr(10))[0]}"
            text = " ".join(word.rpartition("/")[2] if str(self.folder) in word else word for word in text.split())
            # The page's script closes it as soon as the visitor changes something.
            raise gr.Error(escape(text), title="This did not work", duration=60, print_exception=False) from error


def _visitor(request: gr.Request) -> str:
    visitor = visitor_of(dict(request.cookies))
    assert visitor is not None  # the gate gives everyone one
    return visitor


def guard(component: gr.Image | gr.File, suffixes: Set[str], kind: str) -> None:
    """Leave the reading of uploaded files to the limited decoders.

    Gradio would open a photo itself, with any of the formats that Pillow knows, and download what a request gives the
    address of.
    """
    move = component.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error(f"Only {kind} that was uploaded is read.", print_exception=False)
        return await move(path)

    def checked(payload: Any) -> Any:
        if payload is None:
            return None
        if hasattr(payload, "root"):
            return [checked(one) for one in payload.root]
        if Path(payload.path or "").suffix.lower() not in suffixes:
            raise gr.Error(f"This is not {kind}: give one of {', '.join(sorted(suffixes))}.", print_exception=False)
        return str(payload.path)

    setattr(component, "async_move_resource_to_block_cache", move_file)  # noqa: B010  # of this one alone
    setattr(component, "preprocess", checked)  # noqa: B010
