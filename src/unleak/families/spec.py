"""What is known of a model before any of it is on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CARRIED_OVER", "UNPINNED", "File", "ModelSpec"]

CARRIED_OVER = "the paper's signal-to-noise ratio, carried over to this model; nobody has tuned it"
UNPINNED = ("revision", "hash")


@dataclass(frozen=True)
class File:
    """A file of a model at the pinned revision; what is None is not known here, and compared with the Hub's own."""

    path: str
    size: int | None = None
    """Bytes."""
    sha256: str | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Where a model comes from, how it differs from what its pipeline class does by default, and the fix for it.

    A source is one of three: a diffusers pipeline; a pipeline's one `part`, the others being those of `base`; or a
    checkpoint that `convert` makes one of these two of, on first use.
    """

    name: str
    source: str
    """Folder, Hub id, or https address of a tar archive."""
    pipeline: str
    """Name of its class, in diffusers or in `unleak.families`."""
    summary: str = ""
    family: str = ""
    licence: str = ""
    terms: str = ""
    """What the licence means for who uses it, in a line."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the call where they differ from the pipeline's own."""
    fps: float | None = None
    """Frames a second of the video, where the pipeline is not told, or is told something else by that name."""
    size_multiple: int = 1
    """Heights and widths that the network can take."""
    pixels_per_latent: int = 8
    """The VAE's compression of each side."""
    frame_multiple: int = 1
    """The VAE's compression in time: videos have this times k, plus 1 frames."""
    memory_gb: float | None = None
    """Peak while generating at the defaults in `dtype` of an accelerator, weights included; a rough figure."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration, with the class name; empty where it cannot be known before loading."""
    dtype: str = "bfloat16"
    """On an accelerator; on the CPU it is float32."""
    start: str | None = None
    """None: the `medium` of the pipeline's family."""
    init: str = "standard"
    why: str = ""
    """Where the recommended start and init come from."""
    motion_starts: Mapping[str, str] | None = None
    """Starts of `low`, `medium` and `high`, where they differ from those of the pipeline's family."""
    moments: str | None = None
    """Moments file for `analytic`: beside the pipeline's own files, or a Hub id with an optional :filename."""
    moments_at: Mapping[str, str] = field(default_factory=dict)
    """The same made at other sizes: `WxH` -> Hub id:filename. At a size not listed, `moments` are resampled."""
    revision: str | None = None
    """Commit. None: the newest, which is said at use."""
    variant: str | None = None
    """Name of the half-precision weights, where they are kept apart."""
    files: tuple[File, ...] = ()
    """Those whose name, size or hash is known; of a checkpoint, the ones to convert."""
    convert: str | None = None
    """Family whose `unleak.families.FAMILY.convert` reads the checkpoint; None: nothing to convert."""
    part: str | None = None
    """The source is this part of a pipeline alone."""
    base: str | None = None
    """Name of the model that the other parts are of."""
    without: tuple[str, ...] = ()
    """Parts of the source that are neither downloaded nor loaded."""
    unverified: tuple[str, ...] = ()
    """What of this row nobody has checked against the Hub, such as `revision` or `file name`; said at use."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for a size in pixels that the network cannot take."""
        multiple = self.size_multiple
        if height % multiple or width % multiple or min(height, width) < multiple:
            usual = self.defaults.get("width", 20 * multiple), self.defaults.get("height", 12 * multiple)
            raise ValueError(
                f"size {width}x{height}: {self.name} takes multiples of {multiple}, such as {usual[0]}x{usual[1]}"
            )

    def check_frames(self, num_frames: int) -> None:
        """Raise ValueError for a number of frames that the VAE would round."""
        multiple = self.frame_multiple
        if (num_frames - 1) % multiple:
            below = (num_frames - 1) // multiple * multiple + 1
            raise ValueError(
                f"{num_frames} frames: {self.name} makes {multiple}k + 1; give {max(below, multiple + 1)} or "
                f"{below + multiple}"
            )

    @property
    def caution(self) -> str:
        """Say for people which facts of the row nobody has verified; empty if all were."""
        return f"{self.name}: not verified by unleak: {', '.join(self.unverified)}" if self.unverified else ""

    def moments_for(self, height: int | None, width: int | None) -> str | None:
        """Return the moments file made at this size in pixels, else the model's own, or None."""
        return self.moments_at.get(f"{width}x{height}", self.moments)
