"""Text tokens of captions: as they come, or of the whole data at once and kept, so that the text encoder can go."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unleak.data.atomic import written_whole
from unleak.data.files import open_regular

__all__ = ["Texts"]

_AT_ONCE = 16


class Texts:
    """Called with captions: the tokens of no text, then those of each, [1 + n, l, d]."""

    def __init__(self, encode: Callable[[Sequence[str]], Float[Tensor, "n l d"]], device: torch.device):
        self.encode, self.device = encode, device
        self.kept: dict[str, tuple[Path, int]] = {}
        self.empty: Tensor | None = None

    def __call__(self, captions: Sequence[str]) -> Float[Tensor, "n l d"]:
        """Return tokens; captions that are not kept are encoded."""
        asked = ["", *captions] if self.empty is None else list(captions)
        new = [text for text in dict.fromkeys(asked) if text not in self.kept]
        made = dict(zip(new, self.encode(new), strict=True)) if new else {}
        tokens = [made[text] if text in made else self._read(text) for text in asked]
        if self.empty is None:
            self.empty, *tokens = tokens
        return torch.stack([tensor.to(self.device) for tensor in (self.empty, *tokens)])

    def _read(self, text: str) -> Float[Tensor, "l d"]:
        """Read the tokens of a text that is kept. Raises ValueError for a damaged file."""
        file, row = self.kept[text]
        try:
            open_regular(file).close()
            with safe_open(file, "pt") as stored:
                tokens: Tensor = stored.get_slice("tokens")[row]
            if tokens.ndim != 2 or (self.empty is not None and tokens.shape != self.empty.shape):
                raise ValueError(f"tokens of shape {list(tokens.shape)}")
        except (SafetensorError, ValueError, IndexError) as error:
            raise ValueError(f"{file} is damaged; delete {file.parent} to have the captions encoded again") from error
        return tokens

    def keep(
        self,
        folder: Path,
        captions: Sequence[str],
        encoder: nn.Module,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Encode all `captions` into `folder`, or go on where a stopped run left it; they are read from there then."""
        folder = folder / f"texts-{_fingerprint(encoder)}"
        wanted = list(dict.fromkeys(["", *captions]))
        for start in range(0, len(wanted), _AT_ONCE):
            piece = wanted[start : start + _AT_ONCE]
            name = hashlib.sha256(json.dumps(piece).encode()).hexdigest()[:24]
            file = folder / f"{name}.safetensors"
            if not file.exists():
                tokens = self.encode(piece).cpu().contiguous()
                with written_whole(file) as temporary:
                    save_file({"tokens": tokens}, temporary)
            self.kept |= {text: (file, row) for row, text in enumerate(piece)}
            if progress:
                progress(start + len(piece), len(wanted))


def _fingerprint(encoder: nn.Module) -> str:
    """Return a name that changes with a text encoder's configuration and with some bits of each of its weights.

    Not all bits are read: these encoders have billions of weights."""
    config: Any = getattr(encoder, "config", None)
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        ends = torch.cat([tensor.flatten()[:64], tensor.flatten()[-64:]]).detach().cpu().contiguous()
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(ends.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
