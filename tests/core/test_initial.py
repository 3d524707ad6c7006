import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from unleak.core.initial import AnalyticInit, InitialNoise, Standard, Unit, parse_init
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.core.process import Level

SHAPE = (2, 2, 2, 3)
LEVELS = {"vp": Level(0.0967, math.sqrt(1 - 0.0967**2)), "ve": Level(1.0, 100.0), "ve-low": Level(1.0, 2.0),
          "rf": Level(0.1, 0.9)}  # fmt: skip
each_level = pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)


def gaussian_data(shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor, LatentMoments]:
    """Mean and full covariance of a Gaussian X_0 and its exact moments: so q_M, Gaussian too, is known exactly."""
    generator = torch.Generator().manual_seed(3)
    d = math.prod(shape)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    covariance = root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)
    moments = LatentMoments(5000, mean, mean.square() + covariance.diagonal().reshape(shape), MomentsMeta(model="tiny"))
    return mean, covariance, moments


class Gaussian(InitialNoise):
    """Any diagonal Gaussian, for tests: what a user's own initial noise looks like."""

    def __init__(self, mean: Tensor | float, variance: Tensor | float) -> None:
        self._mean, self._variance = mean, variance

    def mean(self, level: Level) -> Tensor | float:
        return self._mean

    def variance(self, level: Level) -> Tensor | float:
        return self._variance


@each_level
def test_analytic_init_is_proposition_1(level: Level) -> None:
    mean, covariance, moments = gaussian_data()
    init = AnalyticInit(moments)
    torch.testing.assert_close(init.mean(level), level.alpha * mean)
    trace = covariance.trace().item() / mean.numel()
    assert init.variance(level) == pytest.approx(level.sigma**2 + level.alpha**2 * trace, rel=1e-12)


@each_level
def test_samples_have_the_moments_of_q(level: Level) -> None:
    mean, covariance, moments = gaussian_data()
    eps = torch.randn(40_000, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = AnalyticInit(moments).sample(eps, level)
    q_covariance = level.alpha**2 * covariance + level.sigma**2 * torch.eye(len(covariance), dtype=torch.float64)
    std = math.sqrt(q_covariance.trace().item() / len(q_covariance))
    torch.testing.assert_close(x.mean(0), level.alpha * mean, rtol=0, atol=5 * std / math.sqrt(len(x)))
    assert x.var(0).mean().sqrt().item() == pytest.approx(std, rel=0.005)


@each_level
def test_no_other_isotropic_gaussian_is_closer_to_q(level: Level) -> None:
    # The exact KL from the exact, correlated q_M by torch.distributions: independent of the code under test.
    mean, covariance, moments = gaussian_data()
    d = mean.numel()
    q = MultivariateNormal(
        level.alpha * mean.flatten(), level.alpha**2 * covariance + level.sigma**2 * torch.eye(d, dtype=torch.float64)
    )

    def kl(p_mean: Tensor, p_variance: float) -> float:
        scale = torch.full((d,), math.sqrt(p_variance), dtype=torch.float64)
        return kl_divergence(q, MultivariateNormal(p_mean.flatten(), scale_tril=scale.diag())).item()

    init = AnalyticInit(moments)
    p_mean, p_variance = init.mean(level), init.variance(level)
    best = kl(p_mean, p_variance)
    std = math.sqrt(p_variance)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.ones(SHAPE), -torch.ones(SHAPE), *(torch.randn(SHAPE, generator=generator) for _ in range(4))]
    perturbations = [(0.0, factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0)]
    perturbations += [(shift, factor) for shift in (0.01, 0.1, 1.0) for factor in (0.9, 0.99, 1.0, 1.01, 1.1)]
    for shift, factor in perturbations:
        for direction in directions:
            assert kl(p_mean + shift * std * direction.double(), factor * p_variance) > best
    # The published forms are among the beaten: no moments at all, and 1 counted twice.
    assert kl(torch.zeros_like(p_mean), Unit().variance(level)) > best
    if level.alpha == 1:
        assert kl(p_mean, AnalyticInit(moments, reference=True).variance(level)) > best


@each_level
def test_no_diagonal_perturbation_beats_it_on_isotropic_data(level: Level) -> None:
    # Where q_M itself is isotropic the minimum is 0 and even element-wise perturbations lose.
    mean, _, _ = gaussian_data()
    init = AnalyticInit(LatentMoments(9, mean, mean.square() + 0.6))
    q = (level.alpha * mean, level.sigma**2 + level.alpha**2 * 0.6)
    assert init.kl(*q, level).item() == pytest.approx(0, abs=1e-9)
    generator = torch.Generator().manual_seed(2)
    for size in (0.01, 0.1, 0.5):
        bump = size * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
        assert Gaussian(q[0] + bump * math.sqrt(q[1]), q[1]).kl(*q, level) > 1e-6
        assert Gaussian(q[0], q[1] * (1 + bump)).kl(*q, level) > 1e-6


@each_level
@pytest.mark.parametrize("isotropic", [True, False])
def test_kl_is_that_of_torch_distributions(level: Level, isotropic: bool) -> None:
    _, _, moments = gaussian_data()
    generator = torch.Generator().manual_seed(4)
    q_mean = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    q_variance = 0.3 + torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    q_variance = q_variance.mean() if isotropic else q_variance
    p_std = 0.5 + torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    for init in (AnalyticInit(moments), Unit(), Standard(3.0), Gaussian(q_mean / 2, p_std.square())):
        p_mean, p_variance = (
            torch.as_tensor(moment, dtype=torch.float64).expand(SHAPE)
            for moment in (init.mean(level), init.variance(level))
        )
        expected = kl_divergence(
            Independent(Normal(q_mean, q_variance.sqrt().expand(SHAPE)), 4),
            Independent(Normal(p_mean, p_variance.sqrt()), 4),
        )
        assert init.kl(q_mean, q_variance, level).item() == pytest.approx(expected.item(), rel=1e-10)


@each_level
def test_log_prob_and_its_gradient(level: Level) -> None:
    _, _, moments = gaussian_data()
    init = AnalyticInit(moments)
    x = init.sample(torch.randn(3, *SHAPE, dtype=torch.float64), level).requires_grad_()
    expected = Independent(Normal(init.mean(level), math.sqrt(init.variance(level))), 4).log_prob(x)
    torch.testing.assert_close(init.log_prob(x, level), expected)
    (score,) = torch.autograd.grad(init.log_prob(x, level).sum(), x)
    torch.testing.assert_close(score, -(x - init.mean(level)) / init.variance(level))


def test_density_integrates_to_one() -> None:
    moments = LatentMoments(9, torch.full((1, 1, 1, 1), 0.4).double(), torch.full((1, 1, 1, 1), 1.0).double())
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = AnalyticInit(moments).log_prob(grid.reshape(-1, 1, 1, 1, 1), LEVELS["rf"]).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)


def test_unit_is_analytic_init_of_unit_variance_data() -> None:
    zero = torch.zeros(SHAPE, dtype=torch.float64)
    analytic = AnalyticInit(LatentMoments(9, zero, zero + 1))
    assert all(Unit().variance(level) == pytest.approx(analytic.variance(level)) for level in LEVELS.values())


def test_reference_arithmetic_of_svd_adds_one_and_exists_for_svd_only() -> None:
    _, _, moments = gaussian_data()
    ours, reference = AnalyticInit(moments), AnalyticInit(moments, reference=True)
    assert reference.variance(LEVELS["ve"]) == ours.variance(LEVELS["ve"]) + 1
    with pytest.raises(ValueError, match="reference=True is the published arithmetic of SVD"):
        reference.variance(LEVELS["vp"])


def test_other_sizes_are_resampled_and_other_channels_refused() -> None:
    _, _, moments = gaussian_data()
    init, level = AnalyticInit(moments), LEVELS["rf"]
    eps = torch.zeros(1, 2, 5, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(init.sample(eps, level)[0], level.alpha * moments.resample(5, 4, 6).mean)
    with pytest.raises(ValueError, match="2 channels and belong to tiny; the latents have 4"):
        init.sample(torch.zeros(1, 4, 2, 2, 3), level)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    _, _, moments = gaussian_data()
    eps = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = AnalyticInit(moments).sample(eps, LEVELS["ve"])
    assert x.dtype == dtype
    assert torch.equal(x, AnalyticInit(moments).sample(eps.float(), LEVELS["ve"]).to(dtype))


@pytest.mark.parametrize(("name", "kind"), [("standard", Standard), ("unit", Unit), ("analytic", AnalyticInit)])
def test_parse(name: str, kind: type[InitialNoise]) -> None:
    _, _, moments = gaussian_data()
    assert isinstance(parse_init(name, moments), kind)
    init = kind(moments) if kind is AnalyticInit else kind()
    assert parse_init(init) is init


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: parse_init("analytic"), "needs moments of this model's latents: make them with `unleak stats"),
        (lambda: parse_init("gaussian"), "choose standard, unit or analytic"),
        (lambda: parse_init("m.safetensors"), r"pass unleak.AnalyticInit.from_pretrained\('moments.safetensors'\)"),
        (lambda: Standard().variance(Level(1.0, 2.0)), "takes its factor from a pipeline"),
        (lambda: Standard(0), "positive factor"),
        (lambda: AnalyticInit(LatentMoments.empty(SHAPE)), "these moments hold no video"),
    ],
)
def test_bad_arguments_are_named(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


def test_from_pretrained_file_folder_and_choice(tmp_path: Path) -> None:
    _, _, moments = gaussian_data()
    moments.save(tmp_path / "a.safetensors")
    for source in (tmp_path, tmp_path / "a.safetensors", str(tmp_path)):
        assert torch.equal(AnalyticInit.from_pretrained(source).moments.mean, moments.mean)
    moments.save(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"holds several moments files, a.safetensors, b.safetensors: name the file"):
        AnalyticInit.from_pretrained(tmp_path)
    assert AnalyticInit.from_pretrained(tmp_path, filename="b.safetensors", reference=True).reference
    with pytest.raises(FileNotFoundError, match="no moments file at"):
        AnalyticInit.from_pretrained(tmp_path / "none.safetensors")


def test_of_the_published_files_the_widest_is_taken(tmp_path: Path) -> None:
    for width in (512, 1024):
        reference = {"Expectation_x_0": torch.zeros(2, 1, 4, width // 128), "trCov_d": torch.tensor(0.5)}
        torch.save(reference, tmp_path / f"initial_noise_{width}.pt")
    assert AnalyticInit.from_pretrained(tmp_path).moments.shape == (1, 2, 4, 8)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    network_error, _ = huggingface_hub.errors.HfHubHTTPError.__bases__  # what the Hub's client lets through

    def unreachable(*args: object, **kwargs: object) -> None:
        raise network_error("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    for filename in (None, "moments.safetensors"):
        with pytest.raises(ValueError, match=r"^someone/moments: no such file .*, and the Hub does not give it"):
            AnalyticInit.from_pretrained("someone/moments", filename=filename)
