"""What a call of a tiny pipeline begins with, seen from outside: nothing of unleak is asked."""

import importlib
import pkgutil
import sys
from inspect import unwrap
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

import tests.tiny
from tests.tiny.model import Tiny, noise, photo
from tests.tiny.svd import tiny_svd

__all__ = ["Watched", "all_tiny"]


def _call_svd(pipe: Any, **changes: Any) -> Tensor:
    settings = {"height": 32, "width": 48, "num_frames": 3, "num_inference_steps": 4, "output_type": "latent"}
    return pipe(photo(32, 48), **(settings | {"generator": noise()} | changes)).frames


def all_tiny() -> list[Tiny]:
    """Every tiny pipeline of tests.tiny."""
    found = [Tiny("svd", tiny_svd, _call_svd, denoiser="unet")]
    for module in pkgutil.iter_modules(tests.tiny.__path__):
        found += getattr(importlib.import_module(f"tests.tiny.{module.name}"), "TINY", [])
    return found


class _Stop(Exception):  # noqa: N818
    pass


class Watched:
    """One call, up to the denoiser's first evaluation: the pipeline's own first draw, what its `prepare_latents` made
    of it, the latents that its loop began with, the first timestep the denoiser is given and the first sigma of the
    schedule. The pipeline's own code is watched from the interpreter: neither a method nor a module is replaced."""

    def __init__(self, tiny: Tiny, pipe: Any, **changes: Any) -> None:
        self.modular = hasattr(pipe, "_blocks")  # whose blocks are copied for a call, hence known by their module
        code = None if self.modular else unwrap(type(pipe).prepare_latents).__code__
        loop = unwrap(type(pipe).__call__).__code__
        self.eps: Tensor | None = None
        self.prepared: tuple[Any, ...] | None = None
        self.places: dict[str, Any] = {}
        self.latents: Any = None
        self.timestep = self.sigma = None

        def profile(frame: Any, event: str, result: Any) -> None:
            if event != "return" or result is None:
                return
            if frame.f_code is code and self.prepared is None:
                result = result if isinstance(result, tuple) else (result,)
                self.prepared = tuple(part.clone() if isinstance(part, Tensor) else part for part in result)
                self.places = {name: frame.f_locals[name] for name in _PLACES if name in frame.f_locals}
            elif frame.f_code is randn_tensor.__code__ and self.eps is None and self._draws(frame.f_back, code):
                self.eps = result.clone()

        def stop(module: Any, args: Any, kwargs: Any) -> None:
            given = ([kwargs[name] for name in _TIMESTEPS if name in kwargs] or args[1:2])[0]
            self.timestep = float(torch.as_tensor(given[0] if isinstance(given, list) else given).max())
            if self.timestep == 0:  # frames given, to fill a cache
                return
            sys.setprofile(None)
            frame = sys._getframe()
            while not ("block_state" in frame.f_locals if self.modular else frame.f_code is loop):
                frame = frame.f_back
            self.latents = (vars(frame.f_locals["block_state"]) if self.modular else frame.f_locals).get("latents")
            if self.modular:
                self.prepared = (self._unpacked(pipe),)
            self.sigma = float(pipe.scheduler.sigmas[0]) if hasattr(pipe.scheduler, "sigmas") else None
            raise _Stop

        networks = [getattr(pipe, name, None) for name in (tiny.denoiser, "transformer_2")]
        handles = [n.register_forward_pre_hook(stop, with_kwargs=True) for n in networks if n is not None]
        sys.setprofile(profile)
        try:
            torch.manual_seed(0)  # some pipelines encode their image with the global generator
            tiny.call(pipe, **changes)
        except _Stop:
            return
        finally:
            sys.setprofile(None)
            for handle in handles:
                handle.remove()
        raise AssertionError("the denoiser was never called")

    def _draws(self, frame: Any, code: Any) -> bool:
        """Whether this frame is the function that draws the initial noise."""
        if not self.modular:
            return frame.f_code is code
        if frame.f_code.co_filename.endswith("attach/draws.py"):  # what unleak makes of the draw
            frame = frame.f_back
        return frame.f_code.co_filename.endswith("before_denoise.py")

    def _unpacked(self, pipe: Any) -> Tensor:
        """The latents as they were drawn: LTX packs them."""
        tokens = self.latents.ndim == 3
        return pipe.pachifier.unpack_latents(self.latents, *self.eps.shape[2:]) if tokens else self.latents.clone()


_PLACES = ("latent_num_frames", "latent_height", "latent_width")
_TIMESTEPS = ("timestep", "timesteps", "vision_timesteps")
