"""A name, folder or Hub id to a pipeline ready to run."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unleak.attach.seams import seam_of
from unleak.core.start import Start
from unleak.zoo.registry import find_model


def load(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    variant: str | None = None,
    only: Sequence[str] | None = None,
) -> Any:
    """The diffusers pipeline of a zoo name ("nano", "svd", "svd-xt"), a folder or a Hub id.

    By default on the accelerator in float16 if there is one, else on the CPU in float32. Only safetensors are read. A
    local folder needs no network. `only` names the networks wanted, such as ("vae",); the others are None and neither
    downloaded nor loaded. Raises ValueError, in one line, for an unknown model or one that cannot be had.
    """
    spec = find_model(name_or_path)
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    if not Path(spec.source).is_dir() and Path(spec.source).is_absolute():
        raise ValueError(f"model {spec.name}: its files are not in this installation ({spec.source}); install it again")
    with quiet():
        from diffusers import StableVideoDiffusionPipeline

        try:
            pipe = StableVideoDiffusionPipeline.from_pretrained(
                spec.source,
                revision=spec.revision,
                variant=variant or (spec.variant if dtype == torch.float16 else None),
                torch_dtype=dtype,
                use_safetensors=True,
                **{name: None for name in ("unet", "vae", "image_encoder") if only is not None and name not in only},
            )
        except (OSError, ValueError) as error:
            where = (
                "its files are incomplete" if Path(spec.source).is_dir() else "not on this machine and not to be had"
            )
            raise ValueError(f"model {spec.name} ({spec.source}): {where}: {_first_sentence(error)}") from error
    if spec.motion_starts is not None:
        starts = {name: Start.parse(text) for name, text in spec.motion_starts.items()}
        pipe.unleak_seam = replace(seam_of(pipe), motion=starts)
    return pipe.to(device)


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """`device` if given and there, else the machine's accelerator, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {str(device)!r} is unknown; give cpu, cuda, cuda:1 or mps") from None
    if wanted.type != "cpu" and (accelerator is None or accelerator.type != wanted.type):
        raise ValueError(f"device {wanted}: this machine has {accelerator or 'no accelerator'}; give --device cpu")
    return wanted


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """`dtype` (or its name) if given, else float16 on an accelerator and float32 on the CPU."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype in known.values():
        assert isinstance(dtype, torch.dtype)
        return dtype
    if dtype not in known:
        raise ValueError(f"dtype {str(dtype)!r}: give one of {', '.join(known)}")
    return known[str(dtype)]


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no loading bars of the libraries below; what they were set to comes back.

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
        logging.set_verbosity_error()
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


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:300] or type(error).__name__
