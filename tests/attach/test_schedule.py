import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from tests.tiny import SETTINGS
from unleak.attach.schedule import process_of, started
from unleak.core.process import VE, Level


def euler(**changes: Any) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(SETTINGS["scheduler_config"] | {"sigma_max": 700.0} | changes)


def grid(scheduler: EulerDiscreteScheduler, steps: int = 25) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    return scheduler.sigmas


SPACINGS = [{}, {"use_karras_sigmas": False, "use_exponential_sigmas": True}]
each_spacing = pytest.mark.parametrize("spacing", SPACINGS, ids=["karras", "exponential"])


def test_process_is_read_from_the_scheduler() -> None:
    assert process_of(euler()) == VE(0.002, 700.0)


@each_spacing
@pytest.mark.parametrize("sigma", [100.0, 40.0, 3.7, 699.0])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_rescale_is_a_scheduler_configured_with_that_sigma_max(spacing: dict, sigma: float, steps: int) -> None:
    ours, theirs = started(euler(**spacing), Level(1.0, sigma), "rescale"), euler(**spacing, sigma_max=sigma)
    assert torch.equal(grid(ours, steps), grid(theirs, steps))
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert ours.init_noise_sigma == theirs.init_noise_sigma
    assert ours.sigmas[0] == torch.tensor(sigma)


@each_spacing
@pytest.mark.parametrize("sigma", [100.0, 40.0, 3.7, 0.0021, 699.0])
def test_truncate_keeps_the_plain_grid_below_the_start(spacing: dict, sigma: float) -> None:
    plain, cut = grid(euler(**spacing)), started(euler(**spacing), Level(1.0, sigma), "truncate")
    assert torch.equal(grid(cut)[1:], plain[plain < sigma])
    assert cut.sigmas[0] == torch.tensor(sigma)
    torch.testing.assert_close(cut.timesteps, 0.25 * cut.sigmas[:-1].log())
    assert cut.init_noise_sigma == (cut.sigmas[0] ** 2 + 1) ** 0.5
    assert cut.num_inference_steps == len(cut.timesteps) <= 25


def test_truncate_at_a_level_of_the_grid_inserts_none() -> None:
    plain = grid(euler())
    cut = started(euler(), Level(1.0, plain[5].item()), "truncate")
    assert torch.equal(grid(cut), plain[5:])


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_full_level_leaves_the_schedule_alone(mode: str) -> None:
    scheduler = started(euler(), Level(1.0, 700.0), mode)
    assert "set_timesteps" not in vars(scheduler)
    assert torch.equal(grid(scheduler), grid(euler()))


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_the_scheduler_itself_is_never_touched_nor_reached_from_a_copy(mode: str) -> None:
    scheduler = euler()
    before = copy.deepcopy(vars(scheduler))
    ours = started(scheduler, Level(1.0, 100.0), mode)
    grid(ours)
    twin = copy.deepcopy(ours)
    ours.sigmas = None
    grid(twin, 10)
    assert twin.sigmas[0] == 100
    assert ours.sigmas is None  # the copy's method worked on the copy
    assert vars(scheduler).keys() == before.keys()
    assert dict(scheduler.config) == dict(before["_internal_dict"])
    assert torch.equal(scheduler.sigmas, before["sigmas"])


def test_one_euler_step_at_a_time_reaches_the_same_end() -> None:
    # Exact data x_0 = 0: every step must land on sigma_next / sigma of the sample, down to 0.
    for mode in ("rescale", "truncate"):
        scheduler = started(euler(), Level(1.0, 100.0), mode)
        sigmas = grid(scheduler, 7).tolist()
        x = torch.full((1,), 100.0)
        for t, (sigma, below) in zip(scheduler.timesteps, pairwise(sigmas), strict=True):
            v = x / np.sqrt(sigma**2 + 1) / sigma  # v-prediction of x_0 = 0
            scheduler.scale_model_input(x, t)
            x = scheduler.step(v, t, x).prev_sample
            assert x.item() == pytest.approx(below, rel=1e-4, abs=1e-6)
