"""What unleak knows of a model family beside its code: data only, which is read without torch and diffusers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from unleak.families.spec import ModelSpec

__all__ = ["Argument", "Family"]


@dataclass(frozen=True)
class Argument:
    """An argument of a pipeline's call that changes how much the video moves."""

    name: str
    meaning: str
    least: float | None = None
    """None: no bound is known."""
    most: float | None = None

    def check(self, value: object) -> None:
        """Raise ValueError for a value outside the bounds, which a pipeline may take in silence."""
        low, high = self.least, self.most
        if not isinstance(value, int | float) or low is None or high is None or low <= value <= high:
            return
        raise ValueError(f"--set {self.name}={value}: give {low:g} to {high:g}: {self.meaning}")


@dataclass(frozen=True)
class Family:
    """One model family. A built-in one is the `FAMILY` of its folder; others are handed to `register_family`.

    Code is named as MODULE:NAME and imported when it is needed.
    """

    name: str
    models: tuple[ModelSpec, ...] = ()
    """The models that have a name, in the order of the table."""
    bases: tuple[ModelSpec, ...] = ()
    """Models that those stand on and that make no video of an image themselves."""
    views: Mapping[str, str] = field(default_factory=dict)
    """Pipeline class -> its view (`unleak.families.view.View`), on which training, diagnosis and statistics stand."""
    pipelines: Mapping[str, str] = field(default_factory=dict)
    """Pipeline class that diffusers lacks -> where it is; it carries its seam as `unleak_seam`."""
    takes_image: Mapping[str, str] = field(default_factory=dict)
    """Class that a checkpoint names though its weights serve images too -> the class that takes an image."""
    fps: Mapping[str, float] = field(default_factory=dict)
    """Pipeline class -> frames a second at which its videos are played, where its call has no argument for that."""
    in_float32: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pipeline class -> networks that lose quality in half precision and are loaded in float32."""
    pixels_at_once: Mapping[str, int] = field(default_factory=dict)
    """Pipeline class -> pixels that its VAE decodes at once on an accelerator, at least a frame, unless a call says."""
    adapter_names: str | None = None
    """A function of (network, adapters by name) that returns the adapters by the names ComfyUI knows them by."""
    arguments: tuple[Argument, ...] = ()
    """Arguments of its pipelines' calls, of no other family's, that change how much the video moves."""
