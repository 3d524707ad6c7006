import pytest
import torch

from unleak.train.config import CleanConfig, PixelNoiseConfig, TimeNoiseConfig
from unleak.train.draws import Draws, build_condition, clip_at, draw, generator
from unleak.train.loss import SigmaDistribution

PAPER = SigmaDistribution(-1.2, 1.2)
LATENT, IMAGE = torch.Size((4, 3, 8, 8)), torch.Size((3, 16, 16))


def drawn(config, positions, *, distribution=PAPER) -> Draws:
    generators = [generator(0, "clip", p) for p in positions]
    return draw(config, distribution, generators, latent_shape=LATENT, image_shape=IMAGE)


def test_each_epoch_is_a_permutation_of_its_own():
    epochs = [[clip_at(7 * epoch + i, seed=3, length=7) for i in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [clip_at(i, seed=4, length=7) for i in range(7)]


@pytest.mark.parametrize(
    "config",
    [
        CleanConfig(noise="none", noise_aug_strength=0.02),
        PixelNoiseConfig(noise="pixel"),
        TimeNoiseConfig(noise="timenoise"),
        TimeNoiseConfig(noise="timenoise", per_frame=True),
        TimeNoiseConfig(noise="timenoise", reference=True),
    ],
)
def test_a_clip_draws_the_same_whatever_its_batch(config):
    together, alone = drawn(config, [4, 5, 6]), drawn(config, [6])
    for name, value in vars(alone).items():
        assert (value is None) == (vars(together)[name] is None)
        if value is not None:
            assert torch.equal(vars(together)[name][2:], value), name
    assert len(together.sigma.unique()) == 3


def test_dropout_is_per_clip():
    dropped = drawn(CleanConfig(noise="none", dropout=0.3), range(2000)).dropped.float()
    assert dropped.mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


def test_strength_is_what_the_pixels_got():
    draws = drawn(PixelNoiseConfig(noise="pixel", p_mean=-3.0, p_std=0.5), range(300))
    assert draws.strength.log().mean().item() == pytest.approx(-3.0, abs=0.1)
    assert draws.strength.log().std().item() == pytest.approx(0.5, abs=0.06)
    noise = draws.pixel_noise.flatten(1) / draws.strength[:, None]
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert drawn(CleanConfig(noise="none"), [0]).pixel_noise is None


def test_timenoise_spreads_over_its_whole_range_and_the_reference_does_not():
    """With the quantile as t, beta is large for the noisiest clips; sigma / 700 is nearly 0 for all of them."""
    ours = drawn(TimeNoiseConfig(noise="timenoise", beta_m=1.0, a=1.0, spread=0.0), range(500))
    reference = drawn(TimeNoiseConfig(noise="timenoise", beta_m=1.0, a=1.0, spread=0.0, reference=True), range(500))
    t = (ours.strength.logit() + 1) / 2
    torch.testing.assert_close(t, PAPER.cdf(ours.sigma), rtol=0, atol=1e-5)
    assert t.min() < 0.01
    assert t.max() > 0.99
    assert ((reference.strength.logit() + 1) / 2).max() < 0.05


def test_noise_on_the_latents_is_per_element_per_frame_or_one_scalar():
    def shape_and_distinct(**options):
        noise = drawn(TimeNoiseConfig(noise="timenoise", **options), [0]).latent_noise
        return tuple(noise.shape), len(noise.unique())

    assert shape_and_distinct() == ((1, 4, 8, 8), 256)
    assert shape_and_distinct(per_frame=True) == ((1, 4, 3, 8, 8), 768)
    assert shape_and_distinct(reference=True) == ((1, 1, 1, 1), 1)


@pytest.mark.parametrize("per_frame", [False, True])
def test_condition_is_noised_told_and_dropped_whole(per_frame):
    draws = drawn(TimeNoiseConfig(noise="timenoise", per_frame=per_frame, dropout=0.5), range(6))
    assert 0 < draws.dropped.sum() < 6
    raw, embeddings = torch.randn(6, 4, 8, 8), torch.randn(6, 1, 5)
    before = raw.clone()
    fps, motion = torch.full((6,), 3.0), torch.full((6,), 20.0)
    condition = build_condition(raw, embeddings, fps=fps, motion_bucket_id=motion, draws=draws)
    kept = ~draws.dropped
    noised = draws.latent_noise + (raw[:, :, None] if per_frame else raw)
    assert torch.equal(condition.latents[kept], noised[kept])
    assert torch.equal(condition.image_embeddings[kept], embeddings[kept])
    assert not condition.latents[draws.dropped].any()
    assert not condition.image_embeddings[draws.dropped].any()
    assert torch.equal(condition.added_time_ids, torch.stack([fps, motion, draws.strength], 1))
    assert torch.equal(raw, before)


def test_the_network_may_be_told_nothing_of_the_noise():
    hidden, told = (drawn(TimeNoiseConfig(noise="timenoise", told=told), range(4)) for told in (False, True))
    assert torch.equal(hidden.latent_noise, told.latent_noise)
    assert told.strength.all()
    assert not hidden.strength.any()


def test_no_strength_is_the_plain_condition():
    draws = drawn(TimeNoiseConfig(noise="timenoise", beta_m=0.0, dropout=0.0), [0, 1])
    raw = torch.randn(2, 4, 8, 8)
    ones = torch.ones(2)
    condition = build_condition(raw, torch.ones(2, 1, 5), fps=ones, motion_bucket_id=ones, draws=draws)
    assert torch.equal(condition.latents, raw)
    assert condition.added_time_ids[:, 2].tolist() == [0, 0]
