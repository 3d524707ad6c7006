"""Networks that turn videos and frames into features. None is downloaded without being asked for.

A torchscript file is a program: unless its hash is pinned here, it runs only if its hash is given.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["I3D_SHA256", "ImageFeatures", "TorchScript", "VideoMAE", "check_hash"]

Frames = UInt8[np.ndarray, "f h w 3"]

I3D_SHA256 = "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
"""SHA-256 of `i3d_torchscript.pt`, the translation of the original I3D with which StyleGAN-V computes FVD.

Several projects publish this hash and check it; the file itself was not at hand when this was written.
"""


class TorchScript:
    """A saved torchscript network, called with float frames [1 3 f h w] from 0 to 255.

    sha256: the hash that the file must have. call: further arguments, such as I3D's `rescale`. Raises ValueError for
    another file and for one that is no torchscript, FileNotFoundError if there is none.
    """

    def __init__(self, file: str | Path, *, sha256: str, device: str | torch.device = "cpu", **call: Any):
        file = Path(file)
        found = check_hash(file, sha256)
        self.name, self.device, self.call = f"{file.name} {found[:12]}", torch.device(device), call
        try:
            self.network = torch.jit.load(str(file), map_location=self.device).eval()
        except RuntimeError as error:
            raise ValueError(f"{file} is no torchscript file; give one that torch.jit.save wrote") from error

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Float[np.ndarray, " d"]:
        """Return the features of one video."""
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(3, 0, 1, 2)[None].float()
        try:
            out = self.network(video, **self.call)
        except RuntimeError as error:  # a torchscript says no more of what it cannot take
            f, h, w, _ = frames.shape
            last = str(error).strip().splitlines()[-1]
            raise ValueError(f"{self.name} cannot take {f} frames of {w}x{h}: {last}") from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 1:
            raise ValueError(f"{self.name} gives no features [1, d] for a video; it is another kind of network")
        return out[0].float().cpu().numpy()


def check_hash(file: Path, sha256: str) -> str:
    """Return the SHA-256 of a torchscript file; ValueError if it is not this one."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256.lower():
        raise ValueError(
            f"{file}: its SHA-256 is {found}, not {sha256.lower()}; a torchscript is a program, so it is not run"
        )
    return found


def i3d(file: str | Path, *, sha256: str = I3D_SHA256, device: str | torch.device = "cpu") -> TorchScript:
    """Load the network of FVD; ValueError if the file has another hash. With another `sha256` no number is FVD."""
    return TorchScript(file, sha256=sha256, device=device, rescale=True, resize=True, return_features=True)


class VideoMAE:
    """VideoMAE of transformers: the mean of its last tokens. source: a folder or a Hub id."""

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, source: str, *, device: str | torch.device = "cpu"):
        from transformers import VideoMAEModel

        _check_source(source)
        self.name, self.device = source, torch.device(device)
        self.network = VideoMAEModel.from_pretrained(source).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Float[np.ndarray, " d"]:
        """Return the features of one video, from as many evenly spaced frames as the network takes."""
        config = self.network.config
        chosen = np.linspace(0, len(frames) - 1, config.num_frames).round().astype(int)
        video = torch.from_numpy(frames[chosen]).to(self.device).permute(0, 3, 1, 2).float() / 255
        video = F.interpolate(video, (config.image_size, config.image_size), mode="bilinear", antialias=True)
        mean, std = (video.new_tensor(values).view(3, 1, 1) for values in (self.MEAN, self.STD))
        return self.network(((video - mean) / std)[None]).last_hidden_state.mean(1)[0].float().cpu().numpy()


class ImageFeatures:
    """CLIP or DINO of transformers: features of pictures, with CLIP also of texts. source: a folder or a Hub id."""

    def __init__(self, source: str, *, device: str | torch.device = "cpu", batch_size: int = 32):
        from transformers import AutoImageProcessor, AutoModel

        _check_source(source)
        self.name, self.device, self.batch_size = source, torch.device(device), batch_size
        self.network: Any = AutoModel.from_pretrained(source).to(self.device).eval()
        self.processor: Any = AutoImageProcessor.from_pretrained(source)

    @property
    def reads(self) -> bool:
        """Return whether the network also has features of texts."""
        return hasattr(self.network, "get_text_features")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.name)

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Float[np.ndarray, "f d"]:
        """Return the features of each picture, of length 1."""
        found = []
        for first in range(0, len(frames), self.batch_size):
            pixels = self.processor(list(frames[first : first + self.batch_size]), return_tensors="pt")
            values = pixels["pixel_values"].to(self.device)
            see = getattr(self.network, "get_image_features", None)
            found.append(_unit(see(pixel_values=values) if see else self.network(pixel_values=values)))
        return np.concatenate(found)

    @torch.inference_mode()
    def text(self, prompt: str) -> Float[np.ndarray, " d"]:
        """Return the features of a text, of length 1."""
        tokens = self._tokenizer([prompt], return_tensors="pt", truncation=True, padding=True).to(self.device)
        return _unit(self.network.get_text_features(**tokens))[0]


def _check_source(source: str) -> None:
    """Raise ValueError unless `source` is a folder with a model of transformers, or may be a Hub id."""
    if Path(source).is_dir():
        if not (Path(source) / "config.json").is_file():
            raise ValueError(f"{source}: no model there; it needs the config.json that transformers writes")
    elif Path(source).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ValueError(f"{source}: not a folder; give a folder with a model of transformers, or a Hub id")


def _unit(out: Any) -> Float[np.ndarray, "n d"]:
    if not isinstance(out, Tensor):
        pooled = getattr(out, "pooler_output", None)
        out = out.last_hidden_state[:, 0] if pooled is None else pooled
    return F.normalize(out.float(), dim=-1).cpu().numpy()
