import math

import pytest
import torch

from unleak.core.timenoise import TimeNoise, logit_normal, mu


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mu_runs_from_minus_to_plus_mu_max() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert mu(t, a=5.0, mu_max=4.0).tolist() == pytest.approx([-4, 4 * (2 / 32 - 1), 4])


def test_beta_is_logit_normal() -> None:
    t = torch.full((200_000,), 0.9, dtype=torch.float64)
    noise = TimeNoise(beta_m=25.0, a=2.0, spread=0.5, mu_max=3.0)
    logit = (noise.sample_beta(t, seeded()) / 25).logit()
    assert logit.mean().item() == pytest.approx(3 * (2 * 0.81 - 1), abs=5 * 0.5 / math.sqrt(len(t)))
    assert logit.std().item() == pytest.approx(0.5, rel=0.01)


def test_extreme_strengths_stay_finite() -> None:
    y = torch.tensor([-1e4, 1e4])
    assert logit_normal(y, torch.zeros(2), beta_m=100.0).tolist() == [0, 100]


def test_noise_is_independent_per_element_with_one_strength_per_sample() -> None:
    condition = torch.ones(3, 4, 64, 64)
    noised, beta = TimeNoise(beta_m=100.0)(condition, torch.tensor([0.0, 0.5, 1.0]), seeded())
    standard = (noised - condition) / beta[:, None, None, None]
    assert beta.shape == (3,)
    assert len(beta.unique()) == 3
    assert standard.flatten(1).std(1).tolist() == pytest.approx([1, 1, 1], rel=0.03)
    assert standard.flatten(1).mean(1).tolist() == pytest.approx([0, 0, 0], abs=0.05)
    assert condition.eq(1).all()  # the caller's tensor is as it was


def test_beta_zero_is_the_plain_condition() -> None:
    condition = torch.randn(2, 4, 8, 8, generator=seeded())
    noised, beta = TimeNoise(beta_m=0.0)(condition, torch.tensor([0.2, 1.0]), seeded())
    assert torch.equal(noised, condition)
    assert beta.tolist() == [0, 0]


def test_same_seed_same_noise_and_dtype_kept() -> None:
    condition, t = torch.zeros(2, 5, dtype=torch.bfloat16), torch.tensor([0.1, 0.9])
    (first, beta), (second, _) = (TimeNoise()(condition, t, seeded(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first.dtype, beta.dtype) == (torch.bfloat16, torch.float32)
    assert not torch.equal(first, TimeNoise()(condition, t, seeded(8))[0])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TimeNoise(beta_m=-1), "beta_m >= 0"),
        (lambda: TimeNoise(a=0), "a > 0"),
        (lambda: TimeNoise().sample_beta(torch.tensor([0.1, 940.0])), r"\[0, 1\].*rescale it"),
        (lambda: TimeNoise().sample_beta(torch.tensor([math.nan])), r"\[0, 1\]"),
    ],
)
def test_bad_arguments_are_named(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
