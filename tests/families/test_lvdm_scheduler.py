"""LVDM's schedules and their DDIM, against closed forms."""

import math
from itertools import pairwise

import pytest
import torch

from unleak.attach.schedule import nearest, process_of, started
from unleak.core.start import Start
from unleak.families.lvdm.schedule import ddim_grid
from unleak.families.lvdm.scheduler import LVDMScheduler

EPS = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
KINDS = [{}, {"base_scale": None}, EPS, EPS | {"timestep_spacing": "uniform"}, {"timestep_spacing": "quad"}]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spacing", ["uniform", "uniform_trailing", "quad"])
@pytest.mark.parametrize("start", [1000, 940, 925, 820, 333])
def test_a_grid_has_the_steps_asked_for_below_its_start(spacing, start):
    for steps in (1, 7, 25, 30, 50):
        grid = ddim_grid(spacing, steps, start)
        assert len(grid) == steps
        assert all(a > b for a, b in pairwise(grid))
        assert 0 <= grid[-1] <= grid[0] < start
        assert spacing != "uniform_trailing" or grid[0] == start - 1


def test_the_published_uniform_grid_brings_more_steps_than_asked_for():
    assert len(ddim_grid("uniform", 30, 1000, reference=True)) == 31
    assert len(ddim_grid("uniform", 30, 1000)) == 30
    assert ddim_grid("uniform", 8, 870, reference=True) == [865, 757, 649, 541, 433, 325, 217, 109, 1]


@pytest.mark.parametrize("config", KINDS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_network_that_knows_the_clean_video_is_followed_to_it(config, eta):
    """With the true x_0, every step lands where x_0 and noise of unit variance are mixed as its level says."""
    scheduler = LVDMScheduler(**config, set_scale_to_one=True, set_alpha_to_one=True)
    scheduler.set_timesteps(10)
    x_0, noise = normal(1, 4, 3, 8, 8, seed=1), torch.Generator().manual_seed(2)
    t = scheduler.timesteps[:1]
    x = scheduler.add_noise(x_0, normal(*x_0.shape, seed=3), t)
    for t in scheduler.timesteps:
        alpha, sigma, scale = (value.item() for value in scheduler._at(t[None], x_0[:1, :1, :1, :1, :1]))
        eps = (x - alpha * scale * x_0) / sigma
        assert eps.std().item() == pytest.approx(1, abs=0.12)
        prediction = eps if scheduler.config.prediction_type == "epsilon" else alpha * eps - sigma * scale * x_0
        torch.testing.assert_close(scheduler.predict_clean(prediction, x, t[None]), x_0, rtol=1e-3, atol=1e-3)
        x, seen = scheduler.step(prediction, t, x, eta, generator=noise, return_dict=False)
        torch.testing.assert_close(seen, x_0, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(x, x_0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [7, 11, 14, 15, 20, 25, 33, 34, 35, 37, 38, 39, 61, 62, 63, 64])
def test_zero_terminal_snr_gives_numbers_where_the_published_sampler_gives_none(steps):
    scheduler = LVDMScheduler()
    scheduler.set_timesteps(steps)
    step = scheduler.step_from(999, eta=1.0)
    assert (step.alpha, step.direction) == (0, pytest.approx(0, abs=1e-3))
    x = scheduler.step(normal(1, 4, 2, 4, 4), 999, normal(1, 4, 2, 4, 4, seed=1), 1.0, return_dict=False)[0]
    assert x.isfinite().all()


def test_every_step_goes_to_the_next_timestep_whatever_the_gap():
    scheduler = LVDMScheduler()
    scheduler.set_timesteps(30)  # 33 and 34 timesteps apart
    for t, following in pairwise(scheduler.timesteps.tolist()):
        assert scheduler.step_from(t).alpha_next == math.sqrt(scheduler.alphas_cumprod[following].item())


def test_the_last_step_keeps_or_takes_off_the_rescale_as_the_configuration_says():
    for whole, expected in ((True, 1.0), (False, LVDMScheduler().scales[19].item())):
        scheduler = LVDMScheduler(set_scale_to_one=whole)
        scheduler.set_timesteps(50)
        assert scheduler.step_from(19).scale_next == expected
    assert expected == pytest.approx(1 - 0.3 * 19 / 399)


@pytest.mark.parametrize("spacing", ["uniform", "uniform_trailing", "quad"])
@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_a_lower_start_is_met_exactly_with_no_step_more(spacing, mode):
    scheduler = LVDMScheduler(timestep_spacing=spacing)
    process = process_of(scheduler)
    for start in (999, 940, 821):
        below = started(scheduler, nearest(scheduler, Start.timestep(start).resolve(process)), mode)
        below.set_timesteps(25)
        timesteps = below.timesteps.tolist()
        assert timesteps[0] == start - 1
        assert all(a > b for a, b in pairwise(timesteps))
        assert len(timesteps) == 25 if mode == "rescale" else len(timesteps) <= 25
        if (spacing, mode) == ("uniform_trailing", "rescale"):
            assert timesteps == scheduler.grid(25, start)


def test_as_published_a_start_leaves_the_schedule_whole():
    scheduler = LVDMScheduler(**EPS, timestep_spacing="uniform", reference=True)
    below = started(scheduler, Start.timestep(940).resolve(process_of(scheduler)), "rescale")
    below.set_timesteps(50)
    assert below.timesteps.tolist() == list(range(981, 0, -20))


def test_half_precision_is_computed_in_float32():
    scheduler = LVDMScheduler()
    scheduler.set_timesteps(10)
    x, m = (normal(1, 4, 2, 4, 4, seed=seed).bfloat16() for seed in (0, 1))
    made = scheduler.step(m, 499, x, return_dict=False)[0]
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, scheduler.step(m.float(), 499, x.float(), return_dict=False)[0].bfloat16())


@pytest.mark.parametrize(
    ("config", "call", "reason"),
    [
        ({"prediction_type": "sample"}, (), "prediction_type 'sample' is unknown: give epsilon or v_prediction"),
        ({"timestep_spacing": "leading"}, (), "timestep_spacing 'leading' is unknown: give one of uniform"),
        ({"prediction_type": "epsilon"}, (), "eps says nothing of x_0 where x_t is pure noise"),
        ({}, (0,), "num_inference_steps 0: give 1 or more"),
        ({}, (1001,), "only 1000 timesteps lie at or below this start, too few for 1001 steps"),
        ({}, (50, 1001), "start 1001 lies outside the training's timesteps: give 1 to 1000"),
        ({}, (50, 20), "only 20 timesteps lie at or below this start, too few for 50 steps"),
    ],
)
def test_what_cannot_be_done_is_said(config, call, reason):
    with pytest.raises(ValueError, match=reason):
        LVDMScheduler(**config).grid(*call)
