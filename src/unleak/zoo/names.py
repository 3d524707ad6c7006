"""What somebody may have meant by a name that is none."""

from difflib import get_close_matches

from unleak.families.registry import MODELS

__all__ = ["nearest"]


def nearest(text: str) -> str:
    """`did you mean NAME? `, of the names and Hub ids known here; empty if none is near."""
    names = {name.lower(): name for name in MODELS}
    names |= {spec.source.lower(): spec.source for spec in MODELS.values() if spec.source.count("/") == 1}
    close = get_close_matches(text.lower(), names.keys() - {text.lower()}, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]}? " if close else ""
