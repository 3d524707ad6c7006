"""The models that have a name here, what a folder or the Hub says of others, and the fix recommended for each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unleak.families.registry import MODELS, found_in
from unleak.families.spec import ModelSpec
from unleak.families.svd.models import SVD
from unleak.zoo.names import nearest
from unleak.zoo.source import Source, one_line

__all__ = ["MODELS", "ModelSpec", "find_model"]


def find_model(name_or_path: Any) -> ModelSpec:
    """Return the spec of a zoo name, a pipeline folder, a Hub id, or a loaded pipeline. Loads no weights.

    Sizes, compression, noise range and class of an unlisted model are read from its own configuration. Raises
    ValueError with the nearest name and where the list is, for a folder without a pipeline, and for a Hub id that
    cannot be had.
    """
    if isinstance(name_or_path, ModelSpec):
        return name_or_path
    if not isinstance(name_or_path, str | Path):
        return _spec_of_loaded(name_or_path)
    text = str(name_or_path)
    if text in MODELS:
        return MODELS[text]
    for spec in MODELS.values():
        if text == spec.source:
            return spec
    path = Path(text)
    if path.is_dir():
        return _spec_of(path.name or path.resolve().name, Source(str(path)))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith("."):
        return _spec_of(text, Source(text).pinned())
    if path.is_file():
        raise ValueError(
            f"model {text}: a checkpoint; make a pipeline folder of it with `unleak convert FAMILY {text} FOLDER`, and "
            "give the folder"
        )
    raise ValueError(
        f"model {text!r} is unknown: {nearest(text)}give a name (`unleak models` lists them), a folder with a "
        "pipeline, or a Hub id owner/name"
    )


def _spec_of_loaded(pipe: Any) -> ModelSpec:
    """Return the spec with which `unleak.load` loaded a pipeline, or the one that its configurations tell."""
    if (known := getattr(pipe, "unleak_model", None)) is not None:
        return known
    if not hasattr(pipe, "components"):
        raise ValueError(f"a {type(pipe).__name__} is no model: give a name, a folder, a Hub id, or a loaded pipeline")
    place = str(pipe.config.get("_name_or_path") or "")
    listed = (spec for spec in MODELS.values() if spec.source == place and spec.pipeline == type(pipe).__name__)
    if (spec := next(listed, None)) is not None:
        return spec
    return _spec_of(Path(place).name or type(pipe).__name__, _Loaded(place or type(pipe).__name__, pipe=pipe))


@dataclass(frozen=True)
class _Loaded(Source):
    """The configurations of a loaded pipeline, as its folder would have them."""

    pipe: Any = None

    def read(self, name: str) -> dict[str, Any]:
        """Return what the JSON file of that name would hold."""
        if name == "model_index.json":
            parts = {part: [type(it).__module__, type(it).__name__] for part, it in self.pipe.components.items() if it}
            return {**self.pipe.config, "_class_name": type(self.pipe).__name__, **parts}
        part = self.pipe.components[name.partition("/")[0]]
        return {**part.config, "_class_name": type(part).__name__}


def _spec_of(name: str, source: Source) -> ModelSpec:
    try:
        return _read_spec(name, source)
    except (AttributeError, LookupError, TypeError) as error:  # a list where a number is expected, and the like
        raise ValueError(
            f"model {source.location}: its configuration is damaged ({one_line(error)}); save or download it again"
        ) from error


def _read_spec(name: str, source: Source) -> ModelSpec:
    index = source.read("model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise ValueError(
            f"model {source.location}: no pipeline there; it needs the model_index.json that diffusers saves"
        )
    if kind == "LatentToVideoPipeline":  # a folder of Animate-Anything's own repository
        raise ValueError(
            f"model {source.location}: as its authors published it; make a folder of ours of it with `unleak convert"
            f" animate-anything {source.location} FOLDER`, and give that"
        )
    if kind == "WanPipeline" and index.get("expand_timesteps"):  # one checkpoint for text and images
        kind = "WanImageToVideoPipeline"
    kind = found_in("takes_image", kind) or kind
    parts = [part for part, value in index.items() if isinstance(value, list) and value[0]]
    unet, transformer, vae = (
        source.read(f"{part}/config.json") if part in parts else {} for part in ("unet", "transformer", "vae")
    )
    spatial, temporal = _compression(vae)
    svd = kind == SVD.pipeline
    ours = replace(SVD, variant=None, memory_gb=None) if svd else ModelSpec("", "", kind, fps=found_in("fps", kind))
    defaults = dict(ours.defaults)
    if svd and unet.get("num_frames"):
        defaults["num_frames"] = _whole(unet["num_frames"])
    size = _sample_size(unet, transformer)
    if size is not None and kind in _SIZE_FROM_CONFIG and not (svd and size == _SVD_SAMPLE_SIZE):
        defaults |= {"height": size[0] * spatial, "width": size[1] * spatial}
    if index.get("sample_height") and index.get("sample_width"):  # our families' folders say it themselves
        defaults |= {"height": _whole(index["sample_height"]), "width": _whole(index["sample_width"])}
        defaults["num_frames"] = _whole(unet["temporal_length"])
    beside = source.is_folder and (Path(source.location) / "moments.safetensors").is_file()
    return replace(
        ours,
        name=name,
        source=source.location,
        revision=source.revision,
        summary="",
        licence="",
        terms="",
        why="",
        defaults=defaults,
        size_multiple=spatial * _downsampling(unet, transformer),
        pixels_per_latent=spatial,
        frame_multiple=temporal,
        scheduler=source.read("scheduler/scheduler_config.json") if "scheduler" in parts else {},
        moments="moments.safetensors" if beside else None,
        moments_at={},
    )


# Classes whose default size is in their configuration, not in the signature of their call.
_SIZE_FROM_CONFIG = (SVD.pipeline, "CogVideoXImageToVideoPipeline", "PIAPipeline")
_SVD_SAMPLE_SIZE = (96, 96)  # Stable Video Diffusion's own files say so and mean 72x128


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} where a number is expected")
    return number


def _sample_size(unet: Mapping[str, Any], transformer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of the latents that the network was made for, if its configuration says so."""
    if unet.get("sample_size"):
        both = unet["sample_size"]
        return (both, both) if isinstance(both, int) else (_whole(both[0]), _whole(both[1]))
    height, width = transformer.get("sample_height"), transformer.get("sample_width")
    return (height, width) if height and width else None


def _downsampling(unet: Mapping[str, Any], transformer: Mapping[str, Any]) -> int:
    """Return how many latents a side the network takes together: a transformer's patch, a U-Net's levels."""
    if unet:
        levels = unet.get("block_out_channels") or unet.get("channel_mult") or (1,) * 4
        return int(2 ** (len(levels) - 1))
    patch = transformer.get("patch_size") or 1
    return patch if isinstance(patch, int) else int(patch[-1])


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Return pixels per latent and frames per latent frame, as diffusers reads them off each configuration."""
    if "spatio_temporal_scaling" in vae:  # LTX
        halvings = 2 ** sum(vae["spatio_temporal_scaling"])
        return vae.get("patch_size", 1) * halvings, vae.get("patch_size_t", 1) * halvings
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio")
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or 1
    return spatial or 2 ** (len(vae.get("block_out_channels", (1,) * 4)) - 1), temporal
