import math

import pytest
import torch

from unleak.families.view import Levels, View
from unleak.train.loss import SigmaDistribution, edm_weight, squared_error


class Saying(View):
    """Says that x_0 is `answer`, or x_t."""

    absent, networks = "nothing", None
    encode_video = encode_condition = without_image = decode = None

    def __init__(self, answer):
        self.answer = answer

    def predict_clean(self, x_t, level, condition):
        return x_t if self.answer is None else self.answer


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_quantile_of_sigma_is_uniform(share):
    distribution = SigmaDistribution(0.7, 1.6, share, (10.0, 700.0))
    g = torch.Generator().manual_seed(0)
    n = 4000
    quantiles = distribution.cdf(torch.stack([distribution.sample(g) for _ in range(n)])).sort().values
    # Kolmogorov-Smirnov: a distance of 1.95 / sqrt(n) has probability 0.001.
    assert (quantiles - torch.linspace(0, 1, n)).abs().max() < 1.95 / math.sqrt(n)


def test_cdf_is_the_mixture():
    distribution = SigmaDistribution(-1.2, 1.2, 0.2, (10.0, 700.0))
    log_sigma = torch.tensor([-1.2, 0.0, math.log(10 * math.sqrt(70)), math.log(700)], dtype=torch.float64)
    normal = torch.distributions.Normal(-1.2, 1.2).cdf(log_sigma)
    uniform = torch.tensor([0, 0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(distribution.cdf(log_sigma.exp()), 0.8 * normal + 0.2 * uniform)


def test_loss_of_an_exact_and_of_an_idle_denoiser():
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 2, 5, 6, generator=g)
    sigma = torch.tensor([0.1, 1.0, 100.0])
    levels = Levels(torch.ones(3), sigma)
    assert squared_error(Saying(x_0), x_0, eps, levels, None).tolist() == [0, 0, 0]
    # D(x) = x errs by sigma eps: the loss is (sigma^2 + d^2) / d^2 times the mean square of eps.
    expected = (sigma**2 + 0.25) / 0.25 * eps.square().mean((1, 2, 3, 4))
    idle = edm_weight(sigma, sigma_data=0.5) * squared_error(Saying(None), x_0, eps, levels, None)
    torch.testing.assert_close(idle, expected, rtol=1e-4, atol=0)


def test_weight_undoes_the_output_scale():
    # With sigma_data = 1, lambda c_out^2 = 1: the loss is the plain mean square error of v.
    sigma = torch.logspace(-3, 3, 7, dtype=torch.float64)
    c_out = -sigma / (sigma**2 + 1).sqrt()
    torch.testing.assert_close(edm_weight(sigma) * c_out**2, torch.ones_like(sigma))
