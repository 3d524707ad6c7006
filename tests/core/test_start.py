import json
import math

import pytest

from tests.core.processes import PROCESSES
from unleak.core.start import Start, describe


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("940", Start.timestep(940)),
        ("timestep=939.5", Start.timestep(939.5)),
        ("0.94T", Start.fraction(0.94)),
        (" 1.00t ", Start.fraction(1)),
        (".9 T", Start.fraction(0.9)),
        ("sigma=100", Start.sigma(100)),
        ("Sigma = 1e2", Start.sigma(100)),
        ("sigma=inf", Start.sigma(math.inf)),
        ("logsnr=-5.3", Start.log_snr(-5.3)),
        ("log_snr=-5.3", Start.log_snr(-5.3)),
        (940, Start.timestep(940)),
    ],
)
def test_parse_and_back(text: str | int, start: Start) -> None:
    assert Start.parse(text) == start
    assert Start.parse(str(start)) == start


@pytest.mark.parametrize("number", [1 / 3, 1e-7, 123456.789])
def test_text_keeps_every_digit(number: float) -> None:
    for start in (Start.timestep(number), Start.fraction(number), Start.sigma(number), Start.log_snr(-number)):
        assert Start.parse(str(start)) == start


@pytest.mark.parametrize("text", ["0.94", 0.94, "940.0"])
def test_bare_decimal_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match=f"{text}T or sigma={text}\\?"):
        Start.parse(text)


@pytest.mark.parametrize("text", ["", "T", "sigma", "sigma=", "sigma=nan", "94%", "0.94TT"])
def test_nonsense_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"not understood: say for example 940 \(timestep\), 0.94T"):
        Start.parse(text)


def test_resolve_in_each_process() -> None:
    assert Start.parse("0.94T").resolve(PROCESSES["vp"]) == Start.timestep(940).resolve(PROCESSES["vp"])
    assert Start.parse("0.94T").resolve(PROCESSES["rf"]).sigma == 0.94
    assert Start.parse("sigma=100").resolve(PROCESSES["ve"]).sigma == 100
    assert Start.parse("logsnr=-5.3").resolve(PROCESSES["rf"]).log_snr == pytest.approx(-5.3)
    with pytest.raises(ValueError, match="sigma 701 lies outside this VE process"):
        Start.sigma(701).resolve(PROCESSES["ve"])
    with pytest.raises(ValueError, match=r"a timestep is 0.25 ln sigma here, so give a sigma \(0.002 to 7"):
        Start.timestep(940).resolve(PROCESSES["ve"])


@pytest.mark.parametrize("name", PROCESSES)
def test_describe_prints_a_level_that_parses_back(name: str) -> None:
    process = PROCESSES[name]
    level = process.level_at_fraction(0.9)
    units = describe(level, process)
    for unit in ("timestep", "fraction", "sigma", "log_snr"):
        assert Start(unit, units[unit]).resolve(process).sigma == pytest.approx(level.sigma, rel=1e-9)
    for number in (f"{units['sigma']:.6g}", f"{units['edm_sigma']:.6g}", f"{units['fraction']:.4g}T"):
        assert number in units["text"]


def test_describe_is_strict_json_at_pure_noise() -> None:
    process = PROCESSES["vp-zero-snr"]
    units = describe(process.noisiest, process)
    assert json.loads(json.dumps(units, allow_nan=False))["log_snr"] is None
    assert "log-SNR -inf" in units["text"]


def test_auto_says_where_a_start_is_found():
    with pytest.raises(ValueError, match=r"found for each photo, by previews: unleak.tune\(pipe, image=photo\).start"):
        Start.parse("Auto")
