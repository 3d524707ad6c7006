"""The initial noise that settings name: one of the standard ones, or that of a file of moments."""

import re
from pathlib import Path

from unleak.animate.settings import Settings
from unleak.core.initial import AnalyticInit, InitialNoise, parse_init
from unleak.data.files import open_regular
from unleak.zoo.fetch import fetch_file
from unleak.zoo.registry import ModelSpec
from unleak.zoo.safety import check_pickle

__all__ = ["check_init", "initial_noise"]

_MAX_MOMENTS = 1_000_000_000  # bytes; those of a film in full resolution have less


def initial_noise(settings: Settings, spec: ModelSpec) -> InitialNoise:
    """Make the initial noise that `settings.init` names; download the model's own moments where they are needed.

    `analytic` takes the moments that were made at the size of the video, if the model has some. Raises ValueError if
    there are none.
    """
    place = check_init(settings, spec)
    if place is None:
        return parse_init(settings.init)
    if isinstance(place, str) and ":" in place:
        place = fetch_file(place)
        check_pickle(place, most=_MAX_MOMENTS)
    return AnalyticInit.from_pretrained(place)


def check_init(settings: Settings, spec: ModelSpec) -> Path | str | None:
    """Return where the moments are that `settings.init` needs, on this machine or on the Hub; None if it needs none.

    What is on this machine is read, so that a file that holds no moments is found before a model is loaded; nothing is
    downloaded. Raises ValueError if there are none, and OSError for a file that may not be read.
    """
    init = settings.init
    if init in ("standard", "unit"):
        return None
    if init != "analytic":
        file = Path(init)
        if file.exists():
            if not file.is_dir():
                open_regular(file).close()
            AnalyticInit.from_pretrained(file)
            return file
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", init) or init.endswith((".safetensors", ".pt")):  # no Hub id either
            raise ValueError(f"init {init!r}: no such file; give standard, unit, analytic, or a file of moments")
        return init
    moments = spec.moments_for(settings.height, settings.width)
    if moments is None:
        raise ValueError(
            f"init analytic: there are no moments for {spec.name} yet; make them with `unleak stats --videos DIR "
            f"--model {spec.name} --out moments.safetensors` and give --init moments.safetensors"
        )
    beside = Path(spec.source) / moments
    return beside if beside.is_file() else moments
