"""ComfyUI's sigmas as a noise process, and moved: against closed forms, without ComfyUI."""

import math

import numpy as np
import pytest
import torch

from tests.comfyui import stand_ins
from unleak.comfyui.sampling import Sampling, moved
from unleak.core.process import RF, VE, VP
from unleak.core.start import Start


def simple(sampling, steps):
    """ComfyUI's "simple" schedule."""
    table = sampling.sigmas
    return torch.tensor([float(table[-(1 + int(i * len(table) / steps))]) for i in range(steps)] + [0.0])


def karras(low, high, steps, rho=7.0):
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = high ** (1 / rho), low ** (1 / rho)
    return torch.cat([(ends[0] + ramp * (ends[1] - ends[0])) ** rho, torch.zeros(1)]).float()


def test_each_kind_of_sampling_is_a_process():
    assert isinstance(Sampling.of(stand_ins.flow(8.0)).process, RF)
    edm = Sampling.of(stand_ins.edm(0.002, 700.0)).process
    assert isinstance(edm, VE)
    assert (edm.sigma_min, edm.sigma_max) == pytest.approx((0.002, 700.0))
    discrete = Sampling.of(stand_ins.discrete()).process
    assert isinstance(discrete, VP)
    assert discrete.level_at_timestep(1000).edm_sigma == pytest.approx(float(stand_ins.discrete().sigmas[-1]))


@pytest.mark.parametrize("kind", ["X0", "StableCascadeSampling", "Unheard"])
def test_a_kind_never_seen_is_refused_in_a_sentence(kind):
    with pytest.raises(
        ValueError, match=f"does not know how this model noises its latents .*{kind}.*nothing was changed"
    ):
        Sampling.of(stand_ins.unknown(kind))


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_a_flow_is_rescaled_as_a_whole_in_the_time_before_the_shift(shift, steps):
    model = stand_ins.flow(shift)
    plain = simple(model, steps)
    after = moved(plain, Start.parse("sigma=0.9"), "rescale", Sampling.of(model)).sigmas
    assert after.dtype == plain.dtype
    assert after[0].item() == pytest.approx(0.9, abs=1e-7)
    assert after[-1] == 0

    def time(sigma):
        return sigma / (shift - (shift - 1) * sigma)

    factor = time(0.9) / time(float(plain[0]))
    assert np.allclose([time(float(s)) for s in after], [factor * time(float(s)) for s in plain], atol=1e-6)


def test_on_edm_a_rescaled_grid_is_karras_with_that_sigma_max():
    sampling = Sampling.of(stand_ins.edm(0.002, 700.0))
    after = moved(karras(0.002, 700.0, 25), Start.sigma(100), "rescale", sampling).sigmas
    assert torch.allclose(after, karras(0.002, 100.0, 25), rtol=1e-5, atol=1e-8)


def test_truncate_keeps_the_levels_below():
    model = stand_ins.flow(8.0)
    plain = simple(model, 20)
    after = moved(plain, Start.parse("sigma=0.9"), "truncate", Sampling.of(model)).sigmas
    assert after[0].item() == pytest.approx(0.9)
    assert torch.equal(after[1:], plain[plain < 0.9])


LIGHTNING = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])


@pytest.mark.parametrize("mode", ["truncate", "auto", "nearest"])
def test_with_few_steps_it_starts_at_a_level_of_the_schedule(mode):
    result = moved(LIGHTNING, Start.parse("sigma=0.95"), mode, Sampling.of(stand_ins.flow(5.0)))
    assert torch.equal(result.sigmas, LIGHTNING[1:])
    assert "0.9375" in result.remarks[0]


@pytest.mark.parametrize(("mode", "left"), [("auto", 2), ("truncate", 2), ("nearest", 1)])
def test_a_motion_takes_the_nearest_level_and_a_start_the_next_one_below(mode, left):
    result = moved(LIGHTNING, Start.parse("sigma=0.93"), mode, Sampling.of(stand_ins.flow(5.0)))
    assert torch.equal(result.sigmas, LIGHTNING[left:])


def test_with_few_steps_rescale_is_refused_and_says_what_works():
    with pytest.raises(ValueError, match=r"mode truncate.*0\.9375.*more than 8 steps"):
        moved(LIGHTNING, Start.parse("sigma=0.95"), "rescale", Sampling.of(stand_ins.flow(5.0)))


def test_half_of_a_long_schedule_is_not_few_steps():
    model = stand_ins.flow(8.0)
    half = simple(model, 20)[:9]  # 8 of 20 steps, the first expert
    after = moved(half, Start.parse("sigma=0.96"), "rescale", Sampling.of(model)).sigmas
    assert len(after) == len(half)
    assert after[0].item() == pytest.approx(0.96)
    assert after[-1] == half[-1]


def test_half_of_a_distilled_schedule_is():
    with pytest.raises(ValueError, match="few-step"):
        moved(LIGHTNING[:3], Start.parse("sigma=0.95"), "rescale", Sampling.of(stand_ins.flow(5.0)))


def test_a_start_below_the_end_of_the_first_expert_raises():
    half = simple(stand_ins.flow(8.0), 20)[:11]
    with pytest.raises(
        ValueError, match=r"start 0\.8T is sigma 0\.8, at or below sigma 0\.8889 where this sampler ends"
    ):
        moved(half, Start.parse("0.8T"), "rescale", Sampling.of(stand_ins.flow(8.0)))


def test_a_start_that_leaves_the_first_expert_almost_nothing_warns():
    half = simple(stand_ins.flow(8.0), 20)[:11]
    result = moved(half, Start.parse("sigma=0.902"), "rescale", Sampling.of(stand_ins.flow(8.0)))
    assert "almost nothing" in " ".join(result.remarks)
    assert not moved(half, Start.parse("sigma=0.96"), "rescale", Sampling.of(stand_ins.flow(8.0))).remarks


def test_sigmas_that_start_low_stay_and_it_is_said():
    late = simple(stand_ins.flow(8.0), 20)[-11:]
    result = moved(late, Start.parse("0.94T"), "rescale", Sampling.of(stand_ins.flow(8.0)))
    assert torch.equal(result.sigmas, late)
    assert "already below" in result.remarks[0]


def test_the_full_start_is_the_plain_schedule():
    plain = simple(stand_ins.flow(8.0), 20)
    result = moved(plain, Start.parse("1.0T"), "rescale", Sampling.of(stand_ins.flow(8.0)))
    assert result.sigmas is plain
    assert not result.remarks


def test_a_start_outside_the_process_names_its_range():
    with pytest.raises(ValueError, match="sigma 800 lies outside this VE process"):
        moved(karras(0.002, 700.0, 25), Start.sigma(800), "rescale", Sampling.of(stand_ins.edm(0.002, 700.0)))


@pytest.mark.parametrize("text", ["0.9T", "sigma=2", "940"])
@pytest.mark.parametrize("steps", [9, 20, 100])
def test_a_discrete_schedule_falls_strictly(text, steps):
    model = stand_ins.discrete()
    result = moved(simple(model, steps), Start.parse(text), "rescale", Sampling.of(model)).sigmas
    assert (result.diff() < 0).all()
    level = Start.parse(text).resolve(Sampling.of(model).process)
    assert result[0].item() == pytest.approx(level.edm_sigma, rel=1e-6)
    assert math.isclose(result[-1].item(), 0.0)


def test_a_flow_of_flux_kind_holds_the_logarithm_of_its_shift():
    assert Sampling.of(stand_ins.flux(2.37)).coordinate.shift == pytest.approx(math.exp(2.37))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_step_leaves_the_first_steps_out(steps):
    result = moved(LIGHTNING, Start.parse(f"step:{steps}"), "rescale", Sampling.of(stand_ins.flow(5.0)))
    assert torch.equal(result.sigmas, LIGHTNING[steps:])


def test_step_leaves_at_least_one():
    with pytest.raises(ValueError, match="start step:4 leaves no step: this sampler has 4"):
        moved(LIGHTNING, Start.parse("step:4"), "rescale", Sampling.of(stand_ins.flow(5.0)))


def test_few_steps_of_another_process_are_not_distilled():
    after = moved(karras(0.002, 700.0, 4), Start.sigma(100), "rescale", Sampling.of(stand_ins.edm(0.002, 700.0))).sigmas
    assert torch.allclose(after, karras(0.002, 100.0, 4), rtol=1e-5, atol=1e-8)
