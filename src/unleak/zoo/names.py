"""What somebody may have meant by a name that is none."""

from difflib import get_close_matches

from unleak.families.registry import MODELS

__all__ = ["nearest"]


def nearest(text: str) -> str:
    """Return `did you mean NAME? ` with the names and Hub ids that `text` may stand for; empty if none is near.

    A name in other letters comes first, then every name that begins with the text (`wan`: all of Wan), then the one
    that is most alike.
    """
    word = text.lower()
    if same := next((name for name in MODELS if name.lower() == word and name != text), None):
        return f"did you mean {same}? "
    if begun := [name for name in MODELS if name.lower().startswith(word)]:
        return f"did you mean {' or '.join(filter(None, (', '.join(begun[:-1]), begun[-1])))}? "
    names = {name.lower(): name for name in MODELS}
    names |= {spec.source.lower(): spec.source for spec in MODELS.values() if spec.source.count("/") == 1}
    close = get_close_matches(text.lower(), names.keys() - {text.lower()}, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]}? " if close else ""
