"""CLIP's tokenizer: read from local files, and checked against the text encoder that is to read its ids.

All CLIP models of Stable Diffusion's kin and of OpenCLIP share one vocabulary of 49,408 words, which their checkpoints
do not hold. A missing file must be an error: `CLIPTokenizer.from_pretrained` of transformers 5.24 returns a tokenizer
of two words instead, with which every prompt means nothing.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["HOW_TO_GET", "check_words", "installed_words", "read_words"]

MERGES = "bpe_simple_vocab_16e6.txt.gz"
HOW_TO_GET = (
    "give --tokenizer with the folder of any OpenCLIP ViT-H model (its vocab.json and merges.txt), or with the file "
    f"{MERGES} of the open_clip_torch package, or install that package (pip install --no-deps open_clip_torch)"
)
"""Where the vocabulary comes from, for error messages."""

_WORDS = 49408
_MERGES = _WORDS - 2 * 256 - 2  # two alphabets of bytes, inside of words and at their ends, and two special words
_LENGTH = 77
_SENTENCE = "a photo of a cat"
_IDS = [49406, 320, 1125, 539, 320, 2368, 49407]
_PADDING = 64  # some embedding tables are rounded up to a multiple of this


def read_words(source: str | Path) -> "CLIPTokenizer":
    """Read a CLIP tokenizer from a folder, or from OpenCLIP's merges file.

    The folder holds vocab.json and merges.txt, or tokenizer.json, or is a pipeline's with such a `tokenizer` folder in
    it. Nothing is fetched. Raises ValueError, in one line, for anything else.
    """
    from transformers import CLIPTokenizer

    path = Path(source)
    if path.is_file():
        tokenizer = _from_merges(path)
    else:
        folders = [folder for folder in (path, path / "tokenizer") if _holds_words(folder)]
        if not folders:
            raise ValueError(f"tokenizer {source}: no vocab.json with merges.txt and no tokenizer.json; {HOW_TO_GET}")
        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(folders[0]), local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"tokenizer {source}: damaged ({' '.join(str(error).split())[:200]}); {HOW_TO_GET}"
            ) from error
    if tokenizer.model_max_length > _LENGTH:  # a folder without a configuration does not say
        tokenizer.model_max_length = _LENGTH
    return tokenizer


def installed_words() -> Path | None:
    """Return the merges file of an installed open_clip or clip package, without importing it; None if neither is."""
    for package in ("open_clip", "clip"):
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (Path(folder) / MERGES).is_file():
                return Path(folder) / MERGES
    return None


def check_words(tokenizer: Any, text_config: Any, where: str) -> None:
    """Check that a tokenizer speaks the language of a CLIP text encoder with the configuration `text_config`.

    Its words must be as many as the encoder's, and the published vocabulary must give the published ids. Raises
    ValueError, in one line that begins with `where`.
    """
    words, known = len(tokenizer), text_config.vocab_size
    if words <= 2 or not known - _PADDING < words <= known:
        raise ValueError(
            f"{where}: its tokenizer has {words:,} words and its text encoder {known:,}: the tokenizer's files are "
            "missing or of another model"
        )
    if known >= _WORDS and (ids := list(tokenizer(_SENTENCE).input_ids)) != _IDS:
        raise ValueError(
            f"{where}: its tokenizer makes {ids} of {_SENTENCE!r}, where CLIP's makes {_IDS}: it is of another model"
        )


def _holds_words(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    )


def _from_merges(path: Path) -> "CLIPTokenizer":
    """Build the tokenizer as OpenCLIP does: bytes, bytes that end a word, merged pairs, two special words."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"tokenizer {path}: damaged ({error}); copy or download it again") from error
    from transformers import CLIPTokenizer

    merges = [tuple(line.split()) for line in text.split("\n")[1 : 1 + _MERGES]]
    if len(merges) < _MERGES or any(len(pair) != 2 for pair in merges):
        raise ValueError(f"tokenizer {path}: not the {MERGES} of open_clip; {HOW_TO_GET}")
    alphabet = _alphabet()
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: place for place, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_LENGTH)


def _alphabet() -> list[str]:
    """The letters that stand for the 256 bytes: visible characters for themselves, the others moved up by 256."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + place) for place in range(len(hidden))]
