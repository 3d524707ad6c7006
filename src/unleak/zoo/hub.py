"""A name, folder or Hub id to a pipeline ready to run."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from unleak.attach.plan import UnleakWarning
from unleak.attach.seams import seam_of
from unleak.core.start import Start
from unleak.families.registry import base_of, found_in
from unleak.zoo.classes import FAMILIES, library_class, part_class, pipeline_class
from unleak.zoo.fetch import fetch, pipeline_source
from unleak.zoo.lora import Lora, adapter_names
from unleak.zoo.own_defaults import with_own_defaults
from unleak.zoo.registry import ModelSpec, find_model
from unleak.zoo.source import Source, one_line

OFFLOADS = ("none", "model", "sequential", "group")


def load(
    name_or_path: str | Path | ModelSpec,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    variant: str | None = None,
    only: Sequence[str] | None = None,
    offload: str = "none",
    vae_tiling: bool = False,
    loras: Sequence[Lora] = (),
    say: Callable[[str], None] | None = None,
    fast: bool = False,
) -> Any:
    """Load the pipeline of a name that `unleak models` lists ("nano", "svd", ...), a folder or a Hub id.

    Called without a size, a number of frames and the like, it renders as the model's row of the table says, as the
    command line does.

    By default it is loaded on the accelerator, in the precision its class is published in (float16 for SVD, bfloat16
    for others, float32 for the VAE and the image encoder of Wan and SkyReels), else on the CPU in float32. Only
    safetensors are read. A local folder needs no network; what is not on this machine is downloaded, compared with its
    hash and converted where need be.

    only: the networks wanted, such as ("vae",); the others are None and neither downloaded nor loaded. offload: keep
    weights in the machine's memory: `model` moves one network at a time to the accelerator, `group` and `sequential`
    one layer, ahead of time or when its turn comes. vae_tiling: decode in tiles. say: called with the licence of what
    is downloaded; without it, what nobody has verified of a listed model is an UnleakWarning. fast: run a large network
    in bfloat16 on a CPU that multiplies it in hardware, unless `dtype` is given.

    Raises ValueError, in one line, for an unknown model or one that cannot be had, and for what this pipeline cannot
    do.
    """
    spec = name_or_path if isinstance(name_or_path, ModelSpec) else find_model(name_or_path)
    if spec.unverified and say is None:
        warnings.warn(spec.caution, UnleakWarning, stacklevel=2)
    device = pick_device(device)
    precision = pick_dtype(dtype, device, spec.dtype)
    source = Source(spec.source, spec.revision)
    if not source.is_folder and Path(spec.source).is_absolute():
        raise ValueError(f"model {spec.name}: its files are not in this installation ({spec.source}); install it again")
    pipeline_class(spec.pipeline)  # an unknown class is refused before anything is fetched
    check_abilities(spec, device=device, offload=offload, loras=loras)
    variant = variant or (spec.variant if precision == torch.float16 else None)
    told: dict[str, Any] = {} if say is None else {"say": say}
    found = fetch(spec, wanted=lambda part: only is None or part in only or is_light(part), variant=variant, **told)
    index = Source(str(found.folder)).read("model_index.json")
    check_abilities(spec, device=device, vae_tiling=vae_tiling)
    for folder in (found.folder, *found.parts.values()):
        check_configurations(folder)
    unwanted = idle(index) + ([] if only is None else [part for part in networks(index) if part not in only])
    if fast and dtype is None and device.type == "cpu" and multiplies_bfloat16() and _is_large(found.folder):
        precision = torch.bfloat16
        if say is not None:
            say("in bfloat16, which this processor multiplies fast (AMX); --dtype float32 for the full precision")
    kept = in_float32(spec) if dtype is None and precision != torch.float32 else ()
    with quiet():
        with _told_in_a_line(spec):
            pipe = _assembled(spec, found, unwanted, precision, kept)
        for name, part in pipe.components.items():  # weights that no file has are left without values
            if isinstance(part, torch.nn.Module) and any(weight.is_meta for weight in part.parameters()):
                raise ValueError(f"model {spec.name} ({spec.source}): its files are incomplete: {name} lacks weights")
        _check_tokenizer(pipe, f"model {spec.name} ({spec.source})")
        _add_loras(pipe, loras)
    _mend(spec, pipe)
    if spec.motion_starts is not None:
        starts = {name: Start.parse(text) for name, text in spec.motion_starts.items()}
        pipe.unleak_seam = replace(seam_of(pipe), motion=starts, motion_fixes={})
    pipe.unleak_model = spec
    if vae_tiling:
        pipe.vae.enable_tiling()
    return _placed(with_own_defaults(pipe, spec.defaults), device, offload)


def _assembled(spec: ModelSpec, found: Any, unwanted: list[str], precision: torch.dtype, kept: Sequence[str]) -> Any:
    """Load the pipeline whose files `found` has, without the parts `unwanted`, those in `kept` in float32."""
    cls, parts = pipeline_class(spec.pipeline), {}
    for part, folder in found.parts.items():
        if part not in unwanted:
            parts[part] = _part(folder, precision)
    assembling = spec.base is not None and base_of(spec).pipeline != spec.pipeline
    if assembling:
        cls, unwanted = library_class(base_of(spec).pipeline), [*unwanted, *base_of(spec).without]
    pipe = cls.from_pretrained(
        found.folder,
        variant=found.variant,
        local_files_only=True,
        torch_dtype={"default": precision, **dict.fromkeys(kept, torch.float32)} if kept else precision,
        use_safetensors=True,
        **dict.fromkeys(unwanted),
        **({} if assembling else parts),
    )
    if assembling:
        pipe = import_module(f"{FAMILIES}.{spec.family}.pipeline").assemble(pipe, *parts.values(), share=True)
    return pipe


@contextmanager
def _told_in_a_line(spec: ModelSpec) -> Iterator[None]:
    """Turn what the libraries raise for a model that cannot be loaded into a ValueError of one line."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"model {spec.name} needs another package: {one_line(error)}") from error
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError) as error:
        if not Source(spec.source, spec.revision).is_folder:
            where = "not on this machine and not to be had"
        else:
            missing = isinstance(error, (OSError, SafetensorError))
            where = "its files are incomplete" if missing else "it cannot be loaded"
        raise ValueError(f"model {spec.name} ({spec.source}): {where}: {one_line(error)}") from error


def _mend(spec: ModelSpec, pipe: Any) -> None:
    """Make a loaded pipeline compute as its authors' own code does, where the libraries differ from it."""
    if spec.pipeline == "I2VGenXLPipeline" and pipe.text_encoder is not None:
        # diffusers looks for its last norm in `text_model`, which transformers 5 dissolved into the encoder.
        vars(pipe.text_encoder).setdefault("text_model", pipe.text_encoder)
    if spec.pipeline == "PIAPipeline" and pipe.unet is not None:
        from unleak.families.pia.norms import use_norms
        from unleak.families.pia.pipeline import frame_by_frame

        frame_by_frame(pipe)
        pipe.register_modules(motion_adapter=None)  # its weights are in the UNet
        use_norms(pipe.unet)  # as PIA's own code computes, unless the folder says otherwise


def check_abilities(
    spec: ModelSpec,
    *,
    device: torch.device,
    offload: str = "none",
    vae_tiling: bool = False,
    loras: Sequence[Lora] = (),
) -> None:
    """Raise ValueError for what this pipeline, or this device, cannot do; nothing is loaded."""
    if offload not in OFFLOADS:
        raise ValueError(f"offload {offload!r} is unknown; give one of {', '.join(OFFLOADS)}")
    if offload != "none" and device.type == "cpu":
        raise ValueError(f"offload {offload}: it spares the memory of an accelerator, and this runs on the CPU")
    if loras and not hasattr(pipeline_class(spec.pipeline), "load_lora_weights"):
        raise ValueError(f"--lora: a {spec.pipeline} takes none")
    if loras and find_spec("peft") is None:
        raise ValueError("--lora needs peft; install it with `pip install peft`")
    if any(lora.expert for lora in loras) and not _has_experts(spec):
        raise ValueError(f"--lora high=..., low=...: {spec.name} has one denoiser, no experts; give PATH alone")
    if vae_tiling and not can_tile(spec):
        instead = "; --set decode_chunk_size=1 saves memory too" if "decode_chunk_size" in spec.defaults else ""
        raise ValueError(f"--vae-tiling: the VAE of {spec.name} cannot decode in tiles{instead}")


def _has_experts(spec: ModelSpec) -> bool:
    return bool((pipeline_source(spec).read("model_index.json").get("transformer_2") or [None])[0])


def check_configurations(folder: Path) -> None:
    """Raise ValueError, in one line, if a part of a pipeline's folder has a configuration that cannot be built."""
    for part in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for name in ("config.json", "scheduler_config.json"):
            Source(str(part)).read(name)


def can_tile(spec: ModelSpec) -> bool:
    """Return whether the model's VAE can decode in tiles."""
    import diffusers

    kind = (pipeline_source(spec).read("model_index.json").get("vae") or [None, ""])[1]
    vae = getattr(diffusers, str(kind), None)
    return hasattr(vae, "tiled_decode") or hasattr(vae, "_tiled_decode")


def in_float32(spec: ModelSpec) -> tuple[str, ...]:
    """Return the networks that are loaded in float32 unless a precision is asked for."""
    return found_in("in_float32", spec.pipeline) or ()


def networks(index: dict[str, Any]) -> list[str]:
    """Return the parts of a model_index.json whose weights a pipeline runs."""
    named = [name for name, value in index.items() if isinstance(value, list) and value[0] and not is_light(name)]
    return [name for name in named if name not in idle(index)]


def idle(index: dict[str, Any]) -> list[str]:
    """Return the parts of a model_index.json that a pipeline never runs: a motion adapter that is in the UNet, too."""
    together = index.get("_class_name") == "PIAPipeline" and "UNetMotionModel" in (index.get("unet") or ())
    return ["motion_adapter"] if together and "motion_adapter" in index else []


def is_light(part: str) -> bool:
    """Return whether a part of a pipeline has no weights, by its name."""
    return any(word in part for word in ("scheduler", "tokenizer", "processor", "feature_extractor"))


def _part(folder: Path, dtype: torch.dtype) -> Any:
    return part_class(folder).from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True)


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """Return `device` if it is given and there, else the machine's accelerator, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {str(device)!r} is unknown; give cpu, cuda, cuda:1 or mps") from None
    if wanted.type != "cpu" and (accelerator is None or accelerator.type != wanted.type):
        raise ValueError(f"device {wanted}: this machine has {accelerator or 'no accelerator'}; give --device cpu")
    there = 1 if accelerator is None or wanted.type == "cpu" else torch.accelerator.device_count()
    if wanted.index is not None and wanted.index >= there:
        count = f"one {wanted.type}" if there == 1 else f"{there} of {wanted.type}, counted from 0"
        raise ValueError(f"device {wanted}: this machine has {count}; give --device {wanted.type}")
    return wanted


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device, usual: str = "float16") -> torch.dtype:
    """Return `dtype` (or its name) if given, else `usual` on an accelerator and float32 on the CPU."""
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype is None:
        return torch.float32 if device.type == "cpu" else known[usual]
    if dtype in known.values():
        assert isinstance(dtype, torch.dtype)
        return dtype
    if dtype not in known:
        raise ValueError(f"dtype {str(dtype)!r}: give one of {', '.join(known)}")
    return known[str(dtype)]


_LARGE = 100_000_000
"""Parameters of a denoiser from which its multiplications, and no longer their overhead, take the time."""


def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in tiles (AMX), several times as fast as float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _is_large(folder: Path) -> bool:
    source = Source(str(folder))
    return sum(sum(source.weights(part)) for part in ("unet", "transformer")) >= _LARGE


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and loading bars of the libraries below until the block ends.

    Downloads still show theirs: gigabytes should not arrive in silence.
    """
    import diffusers
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    set_downloads = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
    states = []
    for library in (transformers, diffusers):
        logging = library.utils.logging
        states.append((logging, logging.get_verbosity(), logging.is_progress_bar_enabled()))
        logging.set_verbosity(logging.CRITICAL)  # what they call an error is raised too
        logging.disable_progress_bar()
    set_downloads()  # transformers counts them among its own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logging, verbosity, bars in states:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
        set_downloads()


def _check_tokenizer(pipe: Any, where: str) -> None:
    from transformers import CLIPTextModel

    from unleak.families.words import check_words

    tokenizer, encoder = (pipe.components.get(name) for name in ("tokenizer", "text_encoder"))
    if tokenizer is not None and isinstance(encoder, CLIPTextModel):
        check_words(tokenizer, encoder.config, where)


def _add_loras(pipe: Any, loras: Sequence[Lora]) -> None:
    """Load every LoRA into its denoiser, and set their scales."""
    names = adapter_names(loras)
    for name, lora in zip(names, loras, strict=True):
        second = {"load_into_transformer_2": True} if lora.expert == "low" else {}
        try:
            pipe.load_lora_weights(lora.source, adapter_name=name, use_safetensors=True, **second)
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            SafetensorError,
        ) as error:  # seen for weights of other models
            raise ValueError(f"--lora {lora.source}: not of this model, or damaged: {one_line(error)}") from error
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            raise ValueError(f"--lora {lora.source}: nothing in it fits this {type(pipe).__name__}")
    if loras:
        pipe.set_adapters(names, [lora.scale for lora in loras])


def _placed(pipe: Any, device: torch.device, offload: str) -> Any:
    match offload:
        case "model":
            pipe.enable_model_cpu_offload(device=device)
        case "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        case "group":
            pipe.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")
        case _:
            pipe.to(device)
    return pipe
