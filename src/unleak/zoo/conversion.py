"""Original checkpoints made into folders that load at once: on first use, once, kept by hash."""

from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from unleak.zoo.cache import cache_folder, check_space, made_once
from unleak.zoo.classes import FAMILIES
from unleak.zoo.safety import check_pickle
from unleak.zoo.words import clip_words

__all__ = ["Converter", "converted", "converted_folder", "converter"]


@runtime_checkable
class Converter(Protocol):
    """What `unleak.families.FAMILY.convert` offers as `convert`; those that are LVDM's share one, and offer a `FAMILY`.

    It writes a pipeline folder, or the folder of one part, in safetensors. It reads pickles with `weights_only`, uses
    every weight or says which are left over, and raises ValueError, in one line, for a file of another model. A module
    whose result changes counts its VERSION up, so that what an older one made is made again.
    """

    def __call__(self, source: Path, out: Path) -> object:
        """Make the folder `out` of a checkpoint file or an original folder."""


def converter(family: str) -> tuple[Converter, int]:
    """The converter of a family, and its version. ValueError if there is none."""
    name = f"{FAMILIES}.{family}.convert"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # something else that it needs is missing
        raise ValueError(f"family {family}: this unleak has no converter for its checkpoints") from error
    if hasattr(module, "FAMILY"):
        from unleak.families.lvdm.folder import convert as of_lvdm

        def with_words(source: Path, out: Path) -> object:
            return of_lvdm(module.FAMILY, source, out, tokenizer=clip_words)

        return with_words, getattr(module, "VERSION", 1)
    convert: Converter = module.convert
    return convert, getattr(module, "VERSION", 1)


def converted_folder(family: str, digest: str) -> Path:
    """Where the conversion of the checkpoint with this SHA-256 is, or is to be."""
    return cache_folder() / "converted" / f"{family}-v{converter(family)[1]}-{digest[:32]}" / "model"


def converted(family: str, source: Path, digest: str) -> Path:
    """The folder made of a checkpoint file or folder with this SHA-256, converted now if it never was."""
    folder = converted_folder(family, digest)
    if folder.is_dir():
        return folder
    convert, _ = converter(family)
    if source.is_file():
        check_pickle(source)
    files = [source] if source.is_file() else source.rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    check_space(folder.parent.parent, size, f"converting {source.name}")

    def make(out: Path) -> None:
        from unleak.zoo.hub import quiet  # which imports this module

        with quiet():
            convert(source, out / folder.name)  # converters make their folder themselves

    made_once(folder.parent, make)
    return folder
