"""The models that have a name here, and what each is used with unless the user says otherwise."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class ModelSpec:
    """Where a model comes from, its defaults, and the fix recommended for it."""

    name: str
    source: str
    """Folder or Hub id of a diffusers pipeline."""
    summary: str
    licence: str
    height: int
    width: int
    num_frames: int
    fps: float
    steps: int
    size_multiple: int
    """Heights and widths that the network can take."""
    memory_gb: float
    """Peak while generating at the defaults in `dtype` of an accelerator, weights included; a rough figure."""
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    decode_chunk_size: int = 8
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    start: str = "sigma=100"
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
            raise ValueError(
                f"size {width}x{height}: {self.name} takes multiples of {multiple}, such as {self.width}x{self.height}"
            )


_SVD = ModelSpec(
    name="svd",
    source="stabilityai/stable-video-diffusion-img2vid",
    revision="9cf024d5bfa8f56622af86c884f26a52f6676f2e",
    summary="Stable Video Diffusion, 14 frames of 1024x576",
    licence="Stability AI non-commercial / community licence: accept it on the Hub",
    height=576,
    width=1024,
    num_frames=14,
    fps=7,
    steps=25,
    size_multiple=64,
    memory_gb=12,
    moments="GraceZhao/SVD-Analytic-init:initial_noise_1024.pt",
    variant="fp16",
)

MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="nano",
            source=str(PACKAGE / "families" / "nano" / "weights"),
            summary="shipped with unleak: 12 frames of 64x64 in seconds on a laptop",
            licence="Apache-2.0",
            height=64,
            width=64,
            num_frames=12,
            fps=7,
            steps=25,
            size_multiple=16,
            memory_gb=1,
            noise_aug_strength=0.0,
            decode_chunk_size=12,
            start="sigma=20",
            init="analytic",
            moments="moments.safetensors",
            motion_starts={"low": "sigma=40", "medium": "sigma=20", "high": "sigma=10"},
        ),
        _SVD,
        replace(
            _SVD,
            name="svd-xt",
            source="stabilityai/stable-video-diffusion-img2vid-xt",
            revision="9e43909513c6714f1bc78bcb44d96e733cd242aa",
            summary="Stable Video Diffusion XT, 25 frames of 1024x576",
            num_frames=25,
            memory_gb=16,
        ),
    )
}


def find_model(name_or_path: str | Path) -> ModelSpec:
    """The spec of a zoo name, of a folder with a pipeline, or of a Hub id. Loads nothing.

    A folder's sizes, frame count and noise range are read from its own configuration; what it does not say, and
    everything about an unlisted Hub id, is as for `svd`. Raises ValueError with the nearest name and where the list is.
    """
    text = str(name_or_path)
    if text in MODELS:
        return MODELS[text]
    for spec in MODELS.values():
        if text == spec.source:
            return spec
    path = Path(text)
    if path.is_dir():
        return _folder_spec(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith("."):
        return replace(_SVD, name=text, source=text, revision=None, variant=None, moments=None, summary="", licence="")
    close = get_close_matches(text, MODELS, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    raise ValueError(
        f"model {text!r} is unknown: {suggestion}give one of {', '.join(MODELS)} (`unleak doctor` describes them), "
        "a folder with a pipeline, or a Hub id owner/name"
    )


def _folder_spec(path: Path) -> ModelSpec:
    kind = _read(path / "model_index.json").get("_class_name")
    if kind is None:
        raise ValueError(f"{path}: no pipeline in this folder; it needs the model_index.json that diffusers saves")
    if kind != "StableVideoDiffusionPipeline":
        raise ValueError(f"{path}: a {kind}; this version generates with a StableVideoDiffusionPipeline only")
    unet, vae, scheduler = (_read(path / part) for part in ("unet/config.json", "vae/config.json", _SCHEDULER))
    vae_scale = 2 ** (len(vae.get("block_out_channels", (1,) * 4)) - 1)
    sample_size = unet.get("sample_size")
    known: dict[str, Any] = {"num_frames": unet.get("num_frames"), "sigma_min": scheduler.get("sigma_min")}
    known["sigma_max"] = scheduler.get("sigma_max")
    if sample_size is not None and sample_size != _SVD_SAMPLE_SIZE:
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        known |= {"height": height * vae_scale, "width": width * vae_scale}
    if "block_out_channels" in unet:
        known["size_multiple"] = vae_scale * 2 ** (len(unet["block_out_channels"]) - 1)
    spec = replace(_SVD, **{key: value for key, value in known.items() if value is not None})
    moments = "moments.safetensors" if (path / "moments.safetensors").is_file() else None
    return replace(
        spec, name=path.name, source=str(path), revision=None, variant=None, moments=moments, summary="", licence=""
    )


_SCHEDULER = "scheduler/scheduler_config.json"
_SVD_SAMPLE_SIZE = 96  # Stable Video Diffusion's own files say 96 (a square) and mean 72x128


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error}); save or download the pipeline again") from error
    return values if isinstance(values, dict) else {}
