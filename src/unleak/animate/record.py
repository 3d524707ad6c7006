"""How a video was made, as plain values for JSON files: written in one place, the same for every command."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unleak import __version__
from unleak.animate.model import Model
from unleak.animate.settings import Settings
from unleak.data.image import load_image

__all__ = ["Photo", "asked", "provenance", "public", "versions"]

_PACKAGES = {name: name for name in ("torch", "diffusers", "transformers", "scipy")}
_PACKAGES |= {f"opencv-python{kind}": "opencv" for kind in ("", "-headless")}


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and the file that it was read from."""

    path: Path
    image: Image.Image

    @classmethod
    def read(cls, path: Path) -> "Photo":
        """Read the file; MediaError if it is no picture that can be read, OSError if it cannot be opened."""
        return cls(path, load_image(path))

    @property
    def notes(self) -> list[str]:
        """Return what a person should know about how the file was read."""
        return list(self.image.info.get("notes", []))

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        digest = self.image.info["sha256"]  # of what was read: the file may have changed since
        return {"file": str(self.path), "sha256": digest, "size": list(self.image.size), "notes": self.notes}


def provenance(model: Model, photo: Photo | None = None) -> dict[str, Any]:
    """Describe what made a video besides its settings: the model, the photo, the machine and the software."""
    spec, pipe = model.spec, model.pipe
    return {
        **({} if photo is None else {"photo": photo.record}),
        "model": {
            "name": spec.name,
            "source": spec.source,
            "revision": spec.revision,
            "pipeline": spec.pipeline,
            "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
            "moments": spec.moments,
            "loras": [lora.record for lora in model.loading.loras],
        },
        "device": str(model.device),
        "dtype": {name: str(part.dtype).removeprefix("torch.") for name, part in _networks(pipe).items()},
        "offload": model.loading.offload,
        "vae_tiling": model.loading.vae_tiling,
        "versions": versions(),
    }


def asked(settings: Settings) -> dict[str, Any]:
    """Describe settings whose start a study changes."""
    record = settings.record
    return {name: record[name] for name in ("seed", "init", "mode", "strategies")} | {"settings": record["arguments"]}


def public(record: Any) -> Any:
    """Copy a record for other people: of an absolute path the last part is kept, and every text can be encoded.

    The name of a file may hold bytes that are no text; they become escapes such as `\\udcff`.
    """
    if isinstance(record, Mapping):
        return {name: public(value) for name, value in record.items()}
    if isinstance(record, list | tuple):
        return [public(value) for value in record]
    if isinstance(record, str):
        text = Path(record).name if Path(record).is_absolute() else record
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return record


def versions() -> dict[str, str]:
    """Return the version of everything that decides the pixels and the numbers; what is not installed is left out."""
    found = {"unleak": __version__, "python": platform.python_version()}
    for package, name in _PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plain(config: Any) -> dict[str, Any]:
    """Return the entries of a configuration that JSON can hold; private ones say where files lay."""
    kinds = (str, int, float, bool, list, type(None))
    return {name: value for name, value in config.items() if isinstance(value, kinds) and not name.startswith("_")}


def _networks(pipe: Any) -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
