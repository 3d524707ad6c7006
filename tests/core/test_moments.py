import pickle
from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unleak.core.moments import LatentMoments, MomentsMeta

META = MomentsMeta(model="tiny", vae="vae-1", fps=8, height=64, width=96, source="clips")


def latents(n: int = 12, shape: tuple[int, ...] = (4, 3, 5, 6), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 + 3 * torch.randn(n, *shape, generator=generator)


def gathered(x: Tensor) -> LatentMoments:
    return LatentMoments.empty(x.shape[1:], META).update(x)


def assert_same(left: LatentMoments, right: LatentMoments) -> None:
    torch.testing.assert_close(left.mean, right.mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(left.mean_square, right.mean_square, rtol=1e-13, atol=1e-13)
    assert (left.count, left.meta) == (right.count, right.meta)


def test_moments_are_the_population_ones() -> None:
    x = latents()
    moments = gathered(x)
    torch.testing.assert_close(moments.mean, x.double().mean(0))
    torch.testing.assert_close(moments.variance, x.double().var(0, correction=0))
    assert moments.isotropic_variance == pytest.approx(x.double().var(0, correction=0).mean().item(), rel=1e-12)


def test_streams_and_shards_agree_in_any_order_and_grouping() -> None:
    x = latents()
    whole = gathered(x)
    shards = [gathered(part) for part in x.split([1, 4, 7])]
    for a, b, c in permutations(shards):
        assert_same(a.merge(b).merge(c), whole)
        assert_same(a.merge(b.merge(c)), whole)
    streamed = LatentMoments.empty(x.shape[1:], META)
    for part in x.split(5):
        streamed = streamed.update(part)
    assert_same(streamed, whole)
    assert_same(LatentMoments.empty(x.shape[1:], META).merge(whole), whole)
    assert_same(whole.update(x[:0]), whole)


def test_float64_survives_a_long_stream_of_far_values() -> None:
    moments = LatentMoments.empty((1, 1, 1, 1))
    for value in (1000.0, 1002.0) * 5000:
        moments = moments.update(torch.full((1, 1, 1, 1, 1), value, dtype=torch.float16))
    assert moments.isotropic_variance == pytest.approx(1.0, rel=1e-6)
    assert moments.count == 10_000


def test_sources_of_shards_are_both_kept_whatever_the_order() -> None:
    a, b = (LatentMoments(1, *[torch.ones(1, 1, 1, 1).double()] * 2, MomentsMeta(source=s)) for s in ("b", "a"))
    assert a.merge(b).meta == b.merge(a).meta == MomentsMeta(source="a; b")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m.update(latents(shape=(4, 3, 5, 7))), "cannot join moments"),
        (lambda m: m.update(latents().fill_(float("nan"))), "NaN or inf"),
        (lambda m: m.merge(LatentMoments.empty(m.shape)), "merge only moments of one model"),
        (lambda m: m.merge(LatentMoments(None, m.mean, m.mean_square, META)), "without a sample count"),
        (lambda m: m.resample(0, 5, 6), "at least one frame"),
        (lambda m: LatentMoments(1, m.mean, m.mean_square / 0), "NaN or inf: make them again"),
    ],
)
def test_what_does_not_belong_is_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act(gathered(latents()))


# Resampling


def field(c: int, f: int, h: int, w: int) -> Tensor:
    """A mean that is linear over the scene (cell centres) and over time (first frame 0, last frame 1)."""
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (h, w))
    time = torch.linspace(0, 1, f, dtype=torch.float64)
    scene = time[:, None, None] + 2 * rows[:, None] - 3 * columns
    return torch.arange(1.0, c + 1, dtype=torch.float64)[:, None, None, None] * scene


@pytest.mark.parametrize("size", [(16, 10, 12), (5, 9, 30), (2, 4, 4), (1, 5, 6), (3, 7, 6)])
def test_a_linear_mean_is_read_exactly_between_the_borders(size: tuple[int, int, int]) -> None:
    old = field(2, 3, 5, 6)
    moments = LatentMoments(9, old, old.square() + 0.7)
    new = moments.resample(*size)
    (_, height, width), expected = size, field(2, *size) if size[0] > 1 else field(2, 3, *size[1:])[:, :1]

    def inside(n_old: int, n_new: int) -> slice:  # beyond the centre of the outermost old cell nothing is known
        centres = [i for i in range(n_new) if 0.5 <= (i + 0.5) * n_old / n_new <= n_old - 0.5]
        return slice(centres[0], centres[-1] + 1)

    window = (..., inside(5, height), inside(6, width))
    assert new.mean[window].numel() > 0
    torch.testing.assert_close(new.mean[window], expected[window], rtol=1e-12, atol=1e-12)
    assert (new.count, new.meta) == (moments.count, moments.meta)


@pytest.mark.parametrize("size", [(3, 10, 12), (16, 3, 2), (7, 5, 6)])
def test_variance_is_relocated_not_mixed_with_the_spread_of_the_mean(size: tuple[int, int, int]) -> None:
    mean = field(2, 3, 5, 6)
    moments = LatentMoments(9, mean, mean.square() + 0.7)
    torch.testing.assert_close(moments.resample(*size).variance, torch.full((2, *size), 0.7, dtype=torch.float64))
    # Shown able to fail: interpolating E[X_0^2] itself, as one would at first, adds the spread of the mean.
    naive = LatentMoments(9, moments.mean_square, moments.mean_square.square()).resample(*size).mean
    naive_variance = (naive - moments.resample(*size).mean.square()).mean().item()
    assert naive_variance > 0.71


@pytest.mark.parametrize("size", [(3, 40, 64), (25, 9, 16), (1, 2, 3)])
def test_isotropic_variance_does_not_change_with_the_grid(size: tuple[int, int, int]) -> None:
    moments = gathered(latents())
    assert moments.resample(*size).isotropic_variance == pytest.approx(moments.isotropic_variance, rel=1e-12)


def test_stationary_data_has_the_same_law_on_every_grid() -> None:
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64).reshape(2, 1, 1, 1)
    mean_square = mean.square() + torch.tensor([0.5, 1.5], dtype=torch.float64).reshape(2, 1, 1, 1)
    at = {
        size: LatentMoments(3, mean.expand(2, *size), mean_square.expand(2, *size)) for size in [(2, 3, 4), (5, 7, 6)]
    }
    assert_same(at[2, 3, 4].resample(5, 7, 6), at[5, 7, 6])
    assert_same(at[5, 7, 6].resample(2, 3, 4), at[2, 3, 4])


def test_same_size_is_the_same_object() -> None:
    moments = gathered(latents())
    assert moments.resample(3, 5, 6) is moments


# Files


def test_file_comes_back(tmp_path: Path) -> None:
    moments = gathered(latents())
    moments.save(tmp_path / "moments.safetensors")
    again = LatentMoments.load(tmp_path / "moments.safetensors")
    assert torch.equal(again.mean, moments.mean)
    assert torch.equal(again.mean_square, moments.mean_square)
    assert (again.count, again.meta) == (12, META)
    assert [file.name for file in tmp_path.iterdir()] == ["moments.safetensors"]


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    tensor = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    tensors = {"mean": tensor, "mean_square": tensor.clone()}
    save_file(tensors, path, metadata={"unleak_moments": '{"version": 2, "new": 1}'})
    with pytest.raises(ValueError, match=r"version 2.*reads version 1.*update unleak"):
        LatentMoments.load(path)


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("schema", ["dynamicrafter", "svd"])
def test_reference_files(tmp_path: Path, form: str, schema: str) -> None:
    mean, variance = torch.randn(4, 3, 5, 6), torch.tensor(0.8)
    tensors = {
        "dynamicrafter": {"Expectation_X0": mean[None], "Tr_Cov_d": variance},
        "svd": {"Expectation_x_0": mean.transpose(0, 1).contiguous(), "trCov_d": variance},
    }[schema]
    path = tmp_path / f"initial_noise_512.{form}"
    torch.save(tensors, path) if form == "pt" else save_file(tensors, path)
    moments = LatentMoments.load(path)
    assert torch.equal(moments.mean, mean.double())
    torch.testing.assert_close(moments.variance, torch.full((4, 3, 5, 6), 0.8, dtype=torch.float64), rtol=1e-6, atol=0)
    assert moments.isotropic_variance == pytest.approx(0.8, rel=1e-6)
    assert moments.count is None


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"Expectation_X0": Hostile()}), "refused"),
        (b"", "refused"),
        (b"PK\x03\x04 cut off", "refused"),
        (pickle.dumps([1, 2]), "refused|holds a list"),
        (b"\x80\x02he.", "refused"),
        (b"\x80\x02\x85.", "refused"),
    ],
    ids=["hostile", "empty", "truncated", "list", "no such memo", "empty stack"],
)
def test_files_that_are_no_moments_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "moments.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        LatentMoments.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_lost_something_is_named(tmp_path: Path) -> None:
    tensor, about = torch.zeros(1, 1, 1, 1, dtype=torch.float64), '{"version": 1, "layout": "c f h w", "count": 1}'
    save_file({"mean": tensor}, tmp_path / "half.safetensors", metadata={"unleak_moments": about})
    with pytest.raises(ValueError, match="damaged or was edited: 'mean_square'"):
        LatentMoments.load(tmp_path / "half.safetensors")


def test_other_tensors_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds \['weight'\], not moments"):
        LatentMoments.load(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no moments file at"):
        LatentMoments.load(tmp_path / "none.safetensors")
