"""A compressed photo: an H.264 round trip of the conditioning image, as video models saw their frames in training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from unleak.attach.modular import argument_names
from unleak.attach.seams import Seam
from unleak.core.numbers import within
from unleak.core.process import NoiseProcess

__all__ = ["Compress", "compressed"]

PHOTOS = ("image", "last_image", "cond_image", "ref_image")
"""Arguments of a pipeline's call that are conditioning images."""


@dataclass(frozen=True)
class Compress:
    """Pass the conditioning image through H.264 before the pipeline sees it.

    A photo is sharper than any frame of a compressed video; a model that was trained on such videos takes a sharp image
    for a still. Works with any model and any number of steps.

    crf: strength of the compression, 0 to 51; 33 is what LTX-2 was trained with. 0 leaves the call as it is.

    A photo larger than the video is first scaled down to it. Pipelines that compress by themselves (LTX-2) get
    `crf` by their own argument, `image_crf` or the `crf` of their conditions, and compress once.
    """

    crf: int = 33

    def __post_init__(self) -> None:
        if not within(self.crf, 0, 51):
            raise ValueError(f"Compress needs a crf from 0 (nothing) to 51 (coarsest), not {self.crf!r}.")

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if the call of these pipelines takes no conditioning image by a name that is known."""
        del seam, process
        self._refuse_without_photo(pipeline, pipeline.__name__)

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline takes no conditioning image by a name that is known."""
        del seam
        self._refuse_without_photo(pipe, type(pipe).__name__)

    def _refuse_without_photo(self, pipeline: Any, name: str) -> None:
        if not {*PHOTOS, "conditions"} & argument_names(pipeline):
            raise ValueError(
                f"Compress cannot be attached to {name}: it takes no argument named image. Pass it images"
                " from unleak.attach.strategies.compress.compressed yourself."
            )

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Put compressed images, or the pipeline's own argument, into `arguments`."""
        del pipe, seam
        if self.crf:
            self._change(arguments)
        yield

    def _change(self, arguments: dict[str, Any]) -> None:
        size = (arguments.get("height"), arguments.get("width"))
        if "image_crf" in arguments:
            self._refuse_two(arguments["image_crf"], "image_crf")
            arguments["image_crf"] = self.crf
            return
        found = [name for name in PHOTOS if arguments.get(name) is not None]
        for name in found:
            arguments[name] = _each(arguments[name], self.crf, size)
        if (conditions := arguments.get("conditions")) is not None:
            several = isinstance(conditions, list | tuple)
            changed = [self._condition(one, size) for one in (conditions if several else [conditions])]
            arguments["conditions"] = changed if several else changed[0]
        elif not found:
            raise ValueError("Compress needs the photo: this call gives no image, and latents cannot be compressed.")

    def _condition(self, condition: Any, size: tuple[int | None, int | None]) -> Any:
        """Return a condition of LTX or LTX-2 with a compressed image; videos stay as they are."""
        if not is_dataclass(condition) or isinstance(condition, type):
            raise ValueError(f"Compress does not know conditions of type {type(condition).__name__}.")
        if hasattr(condition, "crf"):  # LTX-2 compresses single frames, and those alone
            self._refuse_two(condition.crf, "crf in a condition")
            return replace(condition, crf=self.crf)
        if (image := getattr(condition, "image", None)) is not None:
            changed: Any = {"image": _each(image, self.crf, size)}
            return replace(condition, **changed)
        return condition

    def _refuse_two(self, own: int | None, name: str) -> None:
        if own not in (None, 0, self.crf):
            raise ValueError(
                f"this call gives {name} {own}, and Compress({self.crf}) is attached: leave one of them away."
            )


def compressed(pixels: UInt8[np.ndarray, "h w 3"], crf: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return what is left of `pixels` after H.264 at `crf` (libx264, one frame, 4:2:0); the size stays."""
    import av

    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with BytesIO() as file:
        with av.open(file, "w", format="mp4") as container:
            stream: Any = container.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt, stream.thread_count = *even.shape[:2], "yuv420p", 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
        file.seek(0)
        with av.open(file, "r") as video:
            frame: Any = next(video.decode(video=0))
    return np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:height, :width])


def _each(images: Any, crf: int, size: tuple[int | None, int | None]) -> Any:
    """Compress images, and return the kind that was given: a PIL image, an array or a tensor, or a list of those."""
    match images:
        case list() | tuple():
            return type(images)([_each(image, crf, size) for image in images])
        case Image.Image():
            return Image.fromarray(compressed(np.asarray(_scaled(images.convert("RGB"), size)), crf))
        case np.ndarray():
            if images.ndim > 3:
                return np.stack([_each(image, crf, size) for image in images])
            if images.dtype == np.uint8:
                return compressed(images, crf)
            return (compressed(_bytes(images), crf) / 255).astype(images.dtype)
        case torch.Tensor():
            if images.ndim > 3:
                return torch.stack([_each(image, crf, size) for image in images])
            low = -1.0 if images.min() < 0 else 0.0  # pipelines take [-1, 1] as well as [0, 1]
            pixels = ((images.detach().cpu().float() - low) / (1 - low)).permute(1, 2, 0).numpy()
            done = torch.from_numpy(compressed(_bytes(pixels), crf)).permute(2, 0, 1) / 255
            return (done * (1 - low) + low).to(images)
    raise ValueError(f"Compress takes PIL images, arrays [h, w, 3] or tensors [3, h, w], not {type(images).__name__}.")


def _bytes(pixels: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def _scaled(image: Image.Image, size: tuple[int | None, int | None]) -> Image.Image:
    """Return the image no larger than covers `size` (height, width): finer detail would not be seen."""
    height, width = size
    if not (isinstance(height, int) and isinstance(width, int)):
        return image
    scale = max(height / image.height, width / image.width)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
