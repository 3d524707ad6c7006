"""RAFT, the optical flow of the paper's motion score, where torchvision and weights are installed."""

from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

WEIGHTS = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"  # torchvision's default ones
_URL = f"https://download.pytorch.org/models/{WEIGHTS}"


class Raft:
    """RAFT (Teed and Deng 2020), the large model of torchvision, with 12 updates of the flow: `motion_score(flow=...)`.

    weights: a file of torchvision's `raft_large_*` weights; by default `C_T_SKHT_V2` in torch's own cache
    (`torch.hub.get_dir()`/checkpoints). Nothing is downloaded. Raises ModuleNotFoundError without torchvision,
    FileNotFoundError without weights, and ValueError if the file holds other weights. The paper does not say which
    weights it used, so its scores are reproduced except for those.
    """

    def __init__(self, weights: str | Path | None = None, *, device: str | torch.device = "cpu", updates: int = 12):
        file = Path(torch.hub.get_dir(), "checkpoints", WEIGHTS) if weights is None else Path(weights)
        self.name = f"RAFT (torchvision, {file.name}, {updates} updates)"
        self.device, self.updates = torch.device(device), updates
        build = _torchvision().raft_large
        if not file.is_file():
            raise FileNotFoundError(f"no weights of RAFT at {file}; download {_URL} there, or say where they are")
        self.model = build(weights=None, progress=False)
        self.model.load_state_dict(_state(file, self.model))
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 2"]:
        """Return the flow from `a` to `b`, frames of 128 pixels or more on a side."""
        height, width = a.shape[:2]
        # The network takes multiples of eight. Its authors repeat the rim; what is added is cut off again.
        top, left = -height % 8 // 2, -width % 8 // 2
        rims = (left, -width % 8 - left, top, -height % 8 - top)
        pair = [F.pad(self._normalized(frame), rims, mode="replicate") for frame in (a, b)]
        flow = self.model(*pair, num_flow_updates=self.updates)[-1]
        inside = flow[0, :, top : top + height, left : left + width]
        return inside.permute(1, 2, 0).float().cpu().numpy()

    def _normalized(self, frame: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self.device)
        return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def _torchvision() -> Any:
    try:
        return import_module("torchvision.models.optical_flow")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "RAFT needs torchvision, which is not installed: install the one that belongs to torch "
            f"{torch.__version__}, or score with DIS",
            name=error.name,
        ) from error


def _state(file: Path, model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights in `file` after checking that they are those of `model`."""
    own = model.state_dict()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        fits = {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in own.items()}
    except (UnpicklingError, StructError, RuntimeError, EOFError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of weights, or damaged; download {_URL}") from error
    if not fits:
        raise ValueError(f"{file} does not hold the weights of torchvision's raft_large; download {_URL}")
    return state
