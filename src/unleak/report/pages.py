"""Pages that need nothing else: one layout, filled by Jinja2, which escapes every value."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["data_url", "render", "without_paths"]

_TEMPLATES = Path(__file__).with_name("templates")
# An absolute path of this machine where a word begins, and the name at its end.
_PATH = re.compile(r"(?<![^\s'\"=(,])(?:file://)?(?:/|[A-Za-z]:[\\/]|~/)(?:[^\s'\"/\\:,;]+[/\\])*([^\s'\"/\\:,;]+)")


def render(template: str, **values: Any) -> str:
    """Fill `template` (a file of templates/) with `values`, every one of them escaped and without local paths."""
    page = _environment().get_template(template)
    return str(page.render({name: without_paths(value) for name, value in values.items()}))


def without_paths(value: Any) -> Any:
    """Return plain values with the absolute paths in their texts cut down to the last name.

    A page is sent to others, whom the folders of this machine do not concern.
    """
    if _is_markup(value):
        return value
    if isinstance(value, str):
        return _PATH.sub(r"\1", value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, Mapping):
        return {without_paths(name): without_paths(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    return value


def data_url(kind: str, content: bytes) -> Any:
    """Return the content of a file as an address that stands in the page itself; `kind` such as `video/mp4`."""
    from base64 import b64encode

    return _markup(f"data:{kind};base64,{b64encode(content).decode()}")


def trusted(html: str) -> Any:
    """Mark HTML of our own making, such as a plot, as no text to escape."""
    return _markup(html)


def _markup(text: str) -> Any:
    return _import("markupsafe").Markup(text)


def _is_markup(value: Any) -> bool:
    return hasattr(value, "__html__")


@cache
def _environment() -> Any:
    jinja2 = _import("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = {name: (_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "player.js")}
    environment.globals |= {
        "style": _markup(files["style.css"]),
        "player_script": _markup(files["player.js"]),
        "flat": _flat,
        "worded": _worded,
        "reproduce": "",
        "versions": {},
    }
    return environment


def _worded(sentence: str) -> Any:
    """Return a sentence with its `commands` shown as such."""
    escaped = str(_import("markupsafe").escape(sentence))
    return _markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return names and values as text, what is nested under its full name; what is not set is left out."""
    flat: list[tuple[str, str]] = []
    for name, value in values.items():
        full = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            flat += _flat(value, full)
        elif value not in (None, "", []):
            flat.append((full, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return flat


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a page needs {error.name}, which is not installed: pip install 'unleak[evaluate]'", name=error.name
        ) from error
