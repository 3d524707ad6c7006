"""The models that have a name here, what a folder or the Hub says of others, and the fix recommended for each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unleak.zoo.source import Source

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class ModelSpec:
    """Where a model comes from, how it differs from what its pipeline class does by default, and the fix for it."""

    name: str
    source: str
    """Folder or Hub id of a diffusers pipeline."""
    pipeline: str
    """Name of its class in diffusers."""
    summary: str = ""
    licence: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the call where they differ from the pipeline's own."""
    fps: float | None = None
    """Frames a second of the video, where the pipeline is not told."""
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
    motion_starts: Mapping[str, str] | None = None
    """Starts of `low`, `medium` and `high`, where they differ from those of the pipeline's family."""
    moments: str | None = None
    """Moments file for `analytic`: beside the pipeline's own files, or a Hub id with an optional :filename."""
    revision: str | None = None
    variant: str | None = None
    """Name of the half-precision weights, where they are kept apart."""

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


_SVD = ModelSpec(
    name="svd",
    source="stabilityai/stable-video-diffusion-img2vid",
    pipeline="StableVideoDiffusionPipeline",
    revision="9cf024d5bfa8f56622af86c884f26a52f6676f2e",
    summary="Stable Video Diffusion, 14 frames of 1024x576",
    licence="Stability AI non-commercial / community licence: accept it on the Hub",
    defaults={"height": 576, "width": 1024, "num_frames": 14, "decode_chunk_size": 8},
    size_multiple=64,
    memory_gb=12,
    scheduler={
        "_class_name": "EulerDiscreteScheduler",
        "use_karras_sigmas": True,
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "sigma_min": 0.002,
        "sigma_max": 700.0,
    },
    dtype="float16",
    start="sigma=100",
    moments="GraceZhao/SVD-Analytic-init:initial_noise_1024.pt",
    variant="fp16",
)

MODELS = {
    spec.name: spec
    for spec in (
        replace(
            _SVD,
            name="nano",
            source=str(PACKAGE / "families" / "nano" / "weights"),
            revision=None,
            variant=None,
            summary="shipped with unleak: 12 frames of 64x64 in seconds on a laptop",
            licence="Apache-2.0",
            defaults={
                "height": 64,
                "width": 64,
                "num_frames": 12,
                "decode_chunk_size": 12,
                "noise_aug_strength": 0.0,
            },
            size_multiple=32,
            pixels_per_latent=8,
            memory_gb=1,
            start="sigma=20",
            init="analytic",
            moments="moments.safetensors",
            motion_starts={"low": "sigma=100", "medium": "sigma=20", "high": "sigma=5"},
        ),
        _SVD,
        replace(
            _SVD,
            name="svd-xt",
            source="stabilityai/stable-video-diffusion-img2vid-xt",
            revision="9e43909513c6714f1bc78bcb44d96e733cd242aa",
            summary="Stable Video Diffusion XT, 25 frames of 1024x576",
            defaults={**_SVD.defaults, "num_frames": 25},
            memory_gb=16,
        ),
    )
}

# Frames a second at which diffusers' own example of each class plays its videos; others take an argument for it.
_FPS = {
    "CogVideoXImageToVideoPipeline": 8,
    "ConsisIDPipeline": 8,
    "PIAPipeline": 8,
    "HunyuanVideoImageToVideoPipeline": 15,
    "HunyuanSkyreelsImageToVideoPipeline": 15,
    "Kandinsky5I2VPipeline": 24,
    "HunyuanVideo15ImageToVideoPipeline": 24,
    "MotifVideoImage2VideoPipeline": 24,
    "SkyReelsV2ImageToVideoPipeline": 24,
}

# Checkpoints published as text-to-video pipelines whose weights serve both: the class that takes an image.
_TAKES_IMAGE = {
    "LTXPipeline": "LTXImageToVideoPipeline",
    "LTX2Pipeline": "LTX2ImageToVideoPipeline",
    "SanaVideoPipeline": "SanaImageToVideoPipeline",
}


def find_model(name_or_path: str | Path) -> ModelSpec:
    """The spec of a zoo name, of a folder with a pipeline, or of a Hub id. Reads configurations, loads no weights.

    Sizes, compression, noise range and class of an unlisted model are read from its own configuration. Raises
    ValueError with the nearest name and where the list is, for a folder without a pipeline, and for a Hub id that
    cannot be had.
    """
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
    close = get_close_matches(text, MODELS, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    raise ValueError(
        f"model {text!r} is unknown: {suggestion}give one of {', '.join(MODELS)} (`unleak doctor` describes them), "
        "a folder with a pipeline, or a Hub id owner/name"
    )


def _spec_of(name: str, source: Source) -> ModelSpec:
    index = source.read("model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise ValueError(
            f"model {source.location}: no pipeline there; it needs the model_index.json that diffusers saves"
        )
    if kind == "WanPipeline" and index.get("expand_timesteps"):  # one checkpoint for text and images
        kind = "WanImageToVideoPipeline"
    kind = _TAKES_IMAGE.get(kind, kind)
    parts = [part for part, value in index.items() if isinstance(value, list) and value[0]]
    unet, transformer, vae = (
        source.read(f"{part}/config.json") if part in parts else {} for part in ("unet", "transformer", "vae")
    )
    spatial, temporal = _compression(vae)
    svd = kind == _SVD.pipeline
    ours = replace(_SVD, variant=None, memory_gb=None) if svd else ModelSpec("", "", kind, fps=_FPS.get(kind))
    defaults = dict(ours.defaults)
    if svd and unet.get("num_frames"):
        defaults["num_frames"] = unet["num_frames"]
    size = _sample_size(unet, transformer)
    if size is not None and kind in _SIZE_FROM_CONFIG and not (svd and size == _SVD_SAMPLE_SIZE):
        defaults |= {"height": size[0] * spatial, "width": size[1] * spatial}
    beside = source.is_folder and (Path(source.location) / "moments.safetensors").is_file()
    return replace(
        ours,
        name=name,
        source=source.location,
        revision=source.revision,
        summary="",
        licence="",
        defaults=defaults,
        size_multiple=spatial * _downsampling(unet, transformer),
        pixels_per_latent=spatial,
        frame_multiple=temporal,
        scheduler=source.read("scheduler/scheduler_config.json") if "scheduler" in parts else {},
        moments="moments.safetensors" if beside else None,
    )


# Classes whose default size is in their configuration, not in the signature of their call.
_SIZE_FROM_CONFIG = (_SVD.pipeline, "CogVideoXImageToVideoPipeline", "PIAPipeline")
_SVD_SAMPLE_SIZE = (96, 96)  # Stable Video Diffusion's own files say so and mean 72x128


def _sample_size(unet: Mapping[str, Any], transformer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the latents that the network was made for, where its configuration says so."""
    if unet.get("sample_size"):
        both = unet["sample_size"]
        return (both, both) if isinstance(both, int) else (both[0], both[1])
    height, width = transformer.get("sample_height"), transformer.get("sample_width")
    return (height, width) if height and width else None


def _downsampling(unet: Mapping[str, Any], transformer: Mapping[str, Any]) -> int:
    """Latents a side that the network takes together: a transformer's patch, the levels of a UNet."""
    if unet:
        return int(2 ** (len(unet.get("block_out_channels", (1,) * 4)) - 1))
    patch = transformer.get("patch_size") or 1
    return patch if isinstance(patch, int) else int(patch[-1])


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels per latent, and frames per latent frame; as diffusers reads them off each class's configuration."""
    if "spatio_temporal_scaling" in vae:  # LTX
        halvings = 2 ** sum(vae["spatio_temporal_scaling"])
        return vae.get("patch_size", 1) * halvings, vae.get("patch_size_t", 1) * halvings
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio")
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or 1
    return spatial or 2 ** (len(vae.get("block_out_channels", (1,) * 4)) - 1), temporal
