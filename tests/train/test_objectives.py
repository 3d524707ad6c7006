from types import SimpleNamespace

import pytest
import torch

from unleak.families.flow import FlowView
from unleak.train.config import FlowConfig, RecipeError, parse_recipe
from unleak.train.draws import generator
from unleak.train.objectives.flow import FlowObjective, FlowSigma

LAWS = [
    FlowSigma(FlowConfig(), shift=1.0),
    FlowSigma(FlowConfig(mean=0.5, std=0.7), shift=5.0),
    FlowSigma(FlowConfig(law="uniform"), shift=3.0),
    FlowSigma(FlowConfig(), shift=3.0, low=0.9),
    FlowSigma(FlowConfig(law="uniform"), shift=3.0, high=0.9),
]


@pytest.mark.parametrize("law", LAWS)
def test_a_quantile_is_uniform_over_training(law):
    sigma = torch.cat([law.sample(generator(0, k)) for k in range(500)])
    assert law.low <= sigma.min()
    assert sigma.max() <= law.high
    quantile = law.quantile(sigma).sort().values
    expected = (torch.arange(500) + 0.5) / 500
    assert (quantile - expected).abs().max() < 1.63 / 500**0.5  # Kolmogorov, 1 %


def test_the_law_in_closed_form():
    """P(sigma <= s): shift 3 makes 0.75 of the median 0.5."""
    assert FlowSigma(FlowConfig(), shift=3.0).quantile(torch.tensor([0.0, 0.75, 1.0])).tolist() == [0, 0.5, 1]
    uniform = FlowSigma(FlowConfig(law="uniform"), shift=1.0)
    assert uniform.quantile(torch.tensor([0.25])).item() == pytest.approx(0.25)
    half = FlowSigma(FlowConfig(law="uniform"), shift=1.0, low=0.5)
    assert half.quantile(torch.tensor([0.75])).item() == pytest.approx(0.5)


class Stub(FlowView):
    """Knows what it should predict, or says nothing."""

    absent, networks = "nothing", None
    encode_still = without_image = _decoded = None

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def shift(self, frames, height, width):
        return 3.0

    def condition(self, still, text, image, *, fps, level=None):
        return SimpleNamespace(latents=still, text=text, fps=fps, level=level)

    def velocity(self, x_t, sigma, condition):
        self.seen.append((x_t, sigma, condition))
        return self.answer(x_t, sigma)


class CleanFirst(Stub):
    first_frame_is_clean = True


def objective(stub, frames=9, **condition):
    data = {"kind": "folder", "path": "clips", "num_frames": frames}
    values = {"model": "wan2.2-i2v", "output": "o", "steps": 1, "data": data}
    return FlowObjective(parse_recipe(values | {"condition": {"noise": "none", "dropout": 0.5} | condition}), stub)


def prepared(which, positions, **more):
    n = len(positions)
    batch = {
        "latents": torch.ones(n, 4, 3, 2, 2),
        "still": torch.ones(n, 4, 3, 2, 2),
        "image": torch.zeros(n, 8, 8, 3).byte(),
    }
    batch |= {"fps": torch.full((n,), 24.0)} | {name: tensor.expand(n, 4, 3, 2, 2) for name, tensor in more.items()}
    texts = torch.stack([torch.zeros(2, 3), *[torch.ones(2, 3)] * n])
    return which.prepare(batch, texts, [generator(0, "clip", position) for position in positions])


def test_the_loss_of_the_right_answer_is_zero():
    """x_0 = 1, so eps = (x_t - (1 - sigma)) / sigma and the velocity is eps - 1."""

    def right(x_t, sigma):
        level = sigma[:, None, None, None, None]
        return (x_t - (1 - level)) / level - 1

    exact, silent = objective(Stub(right)), objective(Stub(lambda x_t, sigma: torch.zeros_like(x_t)))
    level, loss = exact.losses(prepared(exact, [0, 1, 2]))
    assert loss.abs().max() < 1e-6
    assert ((level >= 0) & (level <= 1)).all()
    given = prepared(silent, [0, 1, 2])
    torch.testing.assert_close(silent.losses(given)[1], (given.eps - 1).square().flatten(1).mean(1))


def test_the_image_in_the_video_has_no_loss():
    stub = CleanFirst(lambda x_t, sigma: torch.zeros_like(x_t))
    given = prepared(which := objective(stub), [0, 1])
    torch.testing.assert_close(which.losses(given)[1], (given.eps - 1)[:, :, 1:].square().flatten(1).mean(1))


def test_the_first_frame_is_noised_as_it_is_told():
    """still = 1, so what is seen is (1 - level) + level eps, at levels below the video's and below the most."""
    which = objective(CleanFirst(None), first_frame_sigma=0.3)
    given = prepared(which, range(60))
    level = given.condition.level
    assert ((level >= 0) & (level <= given.levels.sigma.clamp(max=0.3))).all()
    assert level.max() > 0.25
    still = given.condition.latents
    eps = (still - 1 + level[:, None, None, None, None]) / level[:, None, None, None, None]
    assert abs(eps.mean()) < 0.05
    assert abs(eps.std() - 1) < 0.05
    plain = prepared(objective(CleanFirst(None)), range(60))
    assert plain.condition.level is None
    for name in ("eps", "quantile"):
        assert torch.equal(getattr(plain, name), getattr(given, name))
    assert torch.equal(plain.levels.sigma, given.levels.sigma)
    assert torch.equal(plain.condition.text, given.condition.text)


@pytest.mark.parametrize(
    ("stub", "changes", "line"),
    [
        (Stub, {"first_frame_sigma": 0.3}, "condition.first_frame_sigma: of models whose image is the noisy video's"),
        (CleanFirst, {}, "data.num_frames: 1: the image is this network's first frame"),
    ],
)
def test_what_the_place_of_the_image_does_not_allow(stub, changes, line):
    with pytest.raises(RecipeError, match=line):
        objective(stub(None), frames=1, **changes)


@pytest.mark.parametrize(
    ("stub", "condition"),
    [(Stub, {}), (Stub, {"noise": "timenoise", "beta_m": 2.0}), (CleanFirst, {"first_frame_sigma": 0.5})],
)
def test_a_clip_draws_the_same_whatever_its_batch(stub, condition):
    which = objective(stub(None), **condition)
    together, alone = prepared(which, [4, 5, 6]), prepared(which, [6])
    assert torch.equal(together.eps[2:], alone.eps)
    assert torch.equal(together.levels.sigma[2:], alone.levels.sigma)
    assert torch.equal(together.condition.latents[2:], alone.condition.latents)
    assert torch.equal(together.condition.text[2:], alone.condition.text)
    assert len(together.levels.sigma.unique()) == 3


def test_samples_of_the_posterior_are_keyed_by_the_clip_and_change_no_other_draw():
    which, spread = objective(Stub(None)), torch.tensor(0.5)
    mode = prepared(which, range(9))
    together, alone = (prepared(which, positions, spread=spread) for positions in (range(9), [8]))
    assert torch.equal(together.x_0[8:], alone.x_0)
    assert together.x_0.std().item() == pytest.approx(0.5, rel=0.15)
    assert together.x_0.mean().item() == pytest.approx(1, abs=0.1)
    assert len(together.x_0.unique()) == together.x_0.numel()
    assert torch.equal(together.eps, mode.eps)
    assert torch.equal(together.levels.sigma, mode.levels.sigma)


def test_timenoise_is_on_the_condition_and_grows_with_sigma():
    which = objective(Stub(None), noise="timenoise", beta_m=2.0, a=1.0, spread=0.0)
    given = prepared(which, range(40))
    strength = (given.condition.latents - 1).flatten(1).std(1)
    torch.testing.assert_close(strength, 2 * torch.sigmoid(2 * given.levels.sigma - 1), rtol=0.5, atol=0)
    assert torch.equal(given.x_0, torch.ones_like(given.x_0))
    lost = given.condition.text.flatten(1).sum(1) == 0
    assert 5 < lost.sum() < 35
    assert not objective(Stub(None), noise="none").recipe.experts
