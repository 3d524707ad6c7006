"""Writes unleak's nodes as a self-contained pack for ComfyUI, installs it, and takes it away again.

The pack holds the nodes and the modules that they import, with imports made relative: it needs neither unleak nor
diffusers in ComfyUI's environment, and it does not touch `sys.path`.
"""

import ast
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath

from unleak import __version__
from unleak.data.files import open_regular

__all__ = ["FOLDER", "build", "install", "pack_files", "uninstall"]

FOLDER = "unleak"
"""Name of the pack's folder in `custom_nodes`."""
_MANIFEST = ".unleak-pack.json"
_MOST_BYTES = 2**24
_PACKAGE = Path(__file__).parents[1]
_ENTRY = "unleak.comfyui.nodes"
_REQUIREMENTS = "jaxtyping>=0.3\nsafetensors>=0.6\n"


def pack_files() -> dict[str, bytes]:
    """Return every file of the pack by its path, `/` between folders."""
    contents: dict[str, bytes] = {}
    for module in sorted(_modules(_ENTRY)):
        path = _file(module)
        name = path.relative_to(_PACKAGE).as_posix()
        contents[f"unleak/{name}"] = _relative(path.read_text(encoding="utf-8"), module, path).encode()
    contents["unleak/__init__.py"] = (
        f'"""unleak {__version__}: the part of it that the nodes need."""\n\n__version__ = "{__version__}"\n'.encode()
    )
    for parts in {PurePosixPath(name).parent for name in contents}:
        contents.setdefault(f"{parts}/__init__.py", b"")
    weights = _PACKAGE / "families" / "nano" / "weights"
    for path in sorted(weights.rglob("*")):
        if path.is_file():
            contents[f"unleak/nano/{path.relative_to(weights).as_posix()}"] = path.read_bytes()
    held = files("unleak.comfyui") / "files"
    for path in sorted(Path(str(held)).rglob("*")):
        if path.is_file():
            contents[path.relative_to(str(held)).as_posix()] = path.read_bytes()
    contents["__init__.py"] = _INIT.encode()
    contents["requirements.txt"] = _REQUIREMENTS.encode()
    contents["pyproject.toml"] = _pyproject().encode()
    license_text = _license()
    if license_text:
        contents["LICENSE"] = license_text
    return contents


def build(out: Path) -> int:
    """Write the pack into the new or empty folder `out`, or over an earlier pack there; return the number of files.

    Files of an earlier pack that were changed since it was written are kept, and so is everything else in the folder.
    ValueError for a folder that holds something else.
    """
    earlier = _manifest(out)
    if earlier is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no pack of unleak: give a new folder, or remove it first.")
    contents = pack_files()
    if earlier:
        _remove(out, {name: digest for name, digest in earlier.items() if name not in contents})
    for name, content in contents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (out / _MANIFEST).write_text(
        json.dumps({"unleak": __version__, "files": digests}, indent=1) + "\n", encoding="utf-8"
    )
    return len(contents)


def install(comfyui: Path) -> tuple[Path, int]:
    """Write the pack into `custom_nodes` of the ComfyUI in folder `comfyui`; return its folder and number of files.

    An earlier pack there is upgraded. ValueError if the folder holds no ComfyUI.
    """
    out = _custom_nodes(comfyui) / FOLDER
    return out, build(out)


def uninstall(comfyui: Path) -> tuple[Path, list[str]]:
    """Remove the pack from a ComfyUI; return its folder and the files in it that unleak did not write, which stay.

    ValueError if there is no pack.
    """
    out = _custom_nodes(comfyui) / FOLDER
    written = _manifest(out)
    if written is None:
        raise ValueError(f"there is no pack of unleak in {out.parent}: nothing was removed.")
    _remove(out, written)
    (out / _MANIFEST).unlink()
    for cache in [*out.rglob("__pycache__")]:
        shutil.rmtree(cache)
    _prune(out)
    kept = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) if out.exists() else []
    return out, kept


def _custom_nodes(comfyui: Path) -> Path:
    """Return the folder of a ComfyUI that holds packs; a `--base-directory` has one too."""
    folder = comfyui / "custom_nodes"
    if not folder.is_dir():
        raise ValueError(
            f"{comfyui} is no ComfyUI: it has no folder custom_nodes. Give the folder that holds ComfyUI's main.py, or"
            " the base directory that ComfyUI is started with."
        )
    return folder


def _manifest(out: Path) -> Mapping[str, str] | None:
    """Return the files that a pack wrote and their digests, None without a pack; ValueError if it is damaged."""
    try:
        with open_regular(out / _MANIFEST) as file:
            found = json.loads(file.read(_MOST_BYTES))["files"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{out / _MANIFEST} is damaged: remove the folder {out} by hand, then install again."
        ) from None
    inside = isinstance(found, dict) and all(
        isinstance(digest, str) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        for name, digest in found.items()
    )
    if not inside:
        raise ValueError(f"{out / _MANIFEST} is damaged: remove the folder {out} by hand, then install again.")
    return dict(found)


def _remove(out: Path, written: Mapping[str, str]) -> None:
    """Remove the files that are still as they were written."""
    for name, digest in written.items():
        path = out / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            path.unlink()


def _prune(folder: Path) -> None:
    """Remove a folder and those in it that hold nothing."""
    for inner in [path for path in folder.iterdir() if path.is_dir()]:
        _prune(inner)
    if not any(folder.iterdir()):
        folder.rmdir()


def _modules(module: str, found: set[str] | None = None) -> set[str]:
    """Return a module of unleak and all that it imports, at the top or inside a function."""
    found = set() if found is None else found
    if module in found or module == "unleak":
        return found
    found.add(module)
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "unleak":
            _modules(node.module, found)
            for alias in node.names:
                if _exists(f"{node.module}.{alias.name}"):
                    _modules(f"{node.module}.{alias.name}", found)
    return found


def _exists(module: str) -> bool:
    base = _PACKAGE.parent / Path(*module.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _file(module: str) -> Path:
    base = _PACKAGE.parent / Path(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _relative(source: str, module: str, path: Path) -> str:
    """Return the source of `module` with its imports of unleak made relative."""
    depth = len(module.split(".")) - (0 if path.name == "__init__.py" else 1)

    def dotted(found: re.Match[str]) -> str:
        return f"{found[1]}from {'.' * depth}{found[2].removeprefix('.')} import"

    return re.sub(r"^(\s*)from unleak((?:\.\w+)*) import", dotted, source, flags=re.MULTILINE)


def _pyproject() -> str:
    requirements = ", ".join(f'"{line}"' for line in _REQUIREMENTS.split())
    return _PYPROJECT.format(version=__version__, requirements=requirements)


def _license() -> bytes:
    """Return the licence: beside the sources, or in the metadata of the installed package."""
    beside = _PACKAGE.parents[1] / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    from importlib.metadata import distribution

    text = distribution("unleak").read_text("licenses/LICENSE")
    return text.encode() if text else b""


_INIT = '''"""unleak's nodes for ComfyUI: image-to-video models that move."""

from .unleak.comfyui.nodes import UnleakExtension

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint() -> UnleakExtension:
    """Give ComfyUI the nodes."""
    return UnleakExtension()
'''

_PYPROJECT = """[project]
name = "unleak"
description = "Make image-to-video models move: one node between the model loader and the sampler."
version = "{version}"
license = {{ file = "LICENSE" }}
requires-python = ">=3.11"
dependencies = [{requirements}]

[tool.comfy]
PublisherId = "unleak"
DisplayName = "unleak: image-to-video that moves"
"""
