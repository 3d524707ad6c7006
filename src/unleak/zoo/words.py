"""CLIP's vocabulary, which checkpoints do not hold: from an installed package, or from the Hub."""

from pathlib import Path

from unleak.families.words import HOW_TO_GET, installed_words
from unleak.zoo.source import Source

__all__ = ["OPENCLIP", "clip_words"]

OPENCLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The Hub id of the model whose text and image encoders DynamiCrafter and VideoCrafter1 hold."""


def clip_words(source: str | None = None) -> Path:
    """Return a local folder or file that `read_words` takes; `source` is one already, or a Hub id.

    None: the file of an installed open_clip package, else `OPENCLIP` from the Hub. Raises ValueError at once, saying
    where the files come from, where the network is needed and does not answer.
    """
    if source is not None and Path(source).exists():
        return Path(source)
    if source is None and (installed := installed_words()) is not None:
        return installed
    name = source or OPENCLIP
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"tokenizer {name}: no such file or folder; {HOW_TO_GET}")
    try:
        files = [Source(name).file(part) for part in ("vocab.json", "merges.txt", "tokenizer_config.json")]
    except ValueError as error:
        reason = str(error).removeprefix("model ")
        raise ValueError(f"the checkpoint holds no tokenizer, and {reason}; {HOW_TO_GET}") from error
    if files[0] is None or files[1] is None:
        raise ValueError(f"tokenizer {name}: no vocab.json and merges.txt in it; {HOW_TO_GET}")
    return files[0].parent
