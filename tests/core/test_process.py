import math

import pytest
import torch

from tests.core.processes import BETAS, PROCESSES
from unleak.core.process import VP, Level, NoiseProcess, shift_sigma

UNITS = ["timestep", "fraction", "sigma", "log_snr"]
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@each_process
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("place", [1, 940, 500, 1000])
def test_every_unit_comes_back(process: NoiseProcess, unit: str, place: int) -> None:
    level = process.level_at_fraction(place / 1000 if place > 1 else process.fraction_of(process.cleanest))
    value = getattr(process, f"{unit}_of")(level)
    again = getattr(process, f"level_at_{unit}")(value)
    assert again.alpha == pytest.approx(level.alpha, rel=1e-9, abs=1e-12)
    assert again.sigma == pytest.approx(level.sigma, rel=1e-9)


@each_process
@pytest.mark.parametrize("unit", UNITS)
def test_full_start_is_the_noisiest_level_itself(process: NoiseProcess, unit: str) -> None:
    value = getattr(process, f"{unit}_of")(process.noisiest)
    assert getattr(process, f"level_at_{unit}")(value) == process.noisiest
    assert process.level_at_fraction(1.0) == process.noisiest


@each_process
@pytest.mark.parametrize(
    ("unit", "value"),
    [
        *(("timestep", 1001), ("timestep", -9), ("sigma", -1), ("sigma", 0), ("log_snr", 40)),
        *(("fraction", 1.01), ("fraction", -0.01), ("fraction", math.nan)),
    ],
)
def test_outside_the_process_names_the_range(process: NoiseProcess, unit: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{unit} .* outside this {process.kind} process: it runs from"):
        getattr(process, f"level_at_{unit}")(value)


def test_vp_timestep_is_the_index_before_it() -> None:
    process = PROCESSES["vp"]
    alphas_cumprod = (1 - BETAS).cumprod(0)
    level = process.level_at_timestep(940)
    assert level.alpha == pytest.approx(alphas_cumprod[939].sqrt().item(), rel=1e-12)
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1, rel=1e-12)
    between = process.level_at_timestep(939.5)
    assert between.alpha**2 == pytest.approx(alphas_cumprod[938:940].mean().item(), rel=1e-12)
    assert process.timestep_of(process.level_at_sigma(level.edm_sigma)) == pytest.approx(940, rel=1e-9)


def test_zero_terminal_snr() -> None:
    process = PROCESSES["vp-zero-snr"]
    assert process.noisiest == Level(0.0, 1.0)
    assert process.noisiest.log_snr == -math.inf
    assert process.noisiest.edm_sigma == math.inf
    # arXiv 2305.08891, Alg. 1: sqrt(alphas_cumprod) is shifted and scaled, its first value kept.
    assert process.cleanest.alpha == pytest.approx(math.sqrt(1 - BETAS[0].item()), rel=1e-12)


def test_ve_fraction_is_karras_time() -> None:
    expected = (0.5 * 700 ** (1 / 7) + 0.5 * 0.002 ** (1 / 7)) ** 7
    assert PROCESSES["ve"].level_at_fraction(0.5).sigma == pytest.approx(expected, rel=1e-12)
    assert PROCESSES["ve"].timestep_of(Level(1.0, 700.0)) == pytest.approx(1.63777, rel=1e-5)


def test_shift_keeps_the_ends_and_scales_the_noise_ratio() -> None:
    assert (shift_sigma(0, 5), shift_sigma(1, 5)) == (0, 1)
    before, after = 0.5, shift_sigma(0.5, 5)
    assert after / (1 - after) == pytest.approx(5 * before / (1 - before))


def test_one_number_for_every_model_does_not_exist() -> None:
    # The same SNR in other units: Stable Diffusion timesteps as rectified-flow sigmas, SVD's sigma 100 likewise.
    in_rf = [PROCESSES["vp"].level_at_timestep(M).flow_sigma for M in (900, 940, 1000)]
    assert in_rf == pytest.approx([0.89, 0.91, 0.936], abs=0.005)
    assert Level(1.0, 100.0).flow_sigma == pytest.approx(0.990, abs=0.0005)


@pytest.mark.parametrize("alphas_cumprod", [[0.9], [0.5, 0.6], [1.0, 0.5], [0.9, -0.1]])
def test_vp_refuses_what_is_no_schedule(alphas_cumprod: list[float]) -> None:
    with pytest.raises(ValueError, match="alphas_cumprod must fall strictly"):
        VP(torch.tensor(alphas_cumprod))
