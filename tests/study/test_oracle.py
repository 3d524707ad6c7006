import pytest
import torch

from unleak.study.diagnose.oracle import euler, one_step, posterior, posterior_mean, restart

G = torch.Generator().manual_seed(0)
CLIPS = torch.randn(1, 3, 2, 3, 2, 2, generator=G)
PRIOR = torch.tensor([0.5, 0.3, 0.2])
KARRAS = torch.cat([torch.linspace(50 ** (1 / 7), 0.01 ** (1 / 7), 60) ** 7, torch.zeros(1)])


def test_bayes_by_hand():
    x_t, sigma = torch.randn(1, 2, 3, 2, 2, generator=G), torch.tensor([1.7])
    density = torch.stack([torch.distributions.Normal(clip, 1.7).log_prob(x_t[0]).sum() for clip in CLIPS[0]])
    joint = PRIOR * (density - density.max()).exp()
    torch.testing.assert_close(posterior(x_t, sigma, CLIPS, PRIOR)[0], joint / joint.sum())


@pytest.mark.parametrize("k", range(3))
def test_little_noise_leaves_no_doubt_and_much_leaves_the_prior(k):
    predict, eps = posterior_mean(CLIPS, PRIOR), torch.randn(1, 2, 3, 2, 2, generator=G)
    torch.testing.assert_close(one_step(predict, CLIPS[:, k], 0.05, eps), CLIPS[:, k])
    mean = (PRIOR.view(1, 3, 1, 1, 1, 1) * CLIPS).sum(1)
    torch.testing.assert_close(one_step(predict, CLIPS[:, k], 1e4, eps), mean, atol=1e-2, rtol=0)


def test_nothing_predicts_better_in_mean_square():
    k = torch.multinomial(PRIOR, 4000, replacement=True, generator=G)
    x_0, clips = CLIPS[0, k], CLIPS.expand(4000, -1, -1, -1, -1, -1)
    x_t, sigma = x_0 + 2 * torch.randn(x_0.shape, generator=G), torch.full((4000,), 2.0)
    predict = posterior_mean(clips, PRIOR)
    guesses = predict(x_t, sigma), predict(x_t, 0.7 * sigma), 0.9 * predict(x_t, sigma), x_t
    errors = [(guess - x_0).square().mean() for guess in guesses]
    assert min(errors) == errors[0]


def test_samples_follow_the_law():
    clips = CLIPS.expand(2000, -1, -1, -1, -1, -1)
    x = euler(posterior_mean(clips, PRIOR), 50 * torch.randn(2000, 2, 3, 2, 2, generator=G), KARRAS)
    distance = (x[:, None] - clips).square().flatten(2).mean(2)
    assert distance.min(1).values.quantile(0.99) < 1e-3  # each sample is one of the clips
    share = torch.bincount(distance.argmin(1), minlength=3) / 2000
    assert (share - PRIOR).abs().max() < 0.04


def test_a_restart_keeps_what_could_be_seen():
    clips, eps = CLIPS.expand(500, -1, -1, -1, -1, -1), torch.randn(500, 2, 3, 2, 2, generator=G)
    back = restart(posterior_mean(clips, PRIOR), clips[:, 1], KARRAS[KARRAS < 0.3], eps)
    torch.testing.assert_close(back, clips[:, 1], atol=1e-3, rtol=0)
    lost = restart(posterior_mean(clips, PRIOR), clips[:, 1], KARRAS, eps)
    assert 0.5 < (lost - clips[:, 1]).square().flatten(1).mean(1).gt(0.1).float().mean() < 0.9  # 1 - 0.3 or so
