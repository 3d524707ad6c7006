import pytest
import torch
from torch import nn

from tests.train.runs import assert_same, state
from unleak.train.optimizer import Muon, make_optimizer, orthogonalize
from unleak.train.trainer import train


@pytest.mark.parametrize("shape", [(8, 8), (6, 24), (24, 6)])
def test_directions_lose_their_scale_and_keep_their_axes(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices)
    assert ((torch.linalg.svdvals(found) > 0.6) & (torch.linalg.svdvals(found) < 1.3)).all()
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), (u @ vt).flatten(1))
    assert (cosine > 0.97).all()
    torch.testing.assert_close(orthogonalize(1000 * matrices), found, rtol=0.05, atol=0.02)


def test_an_exactly_orthogonal_gradient_moves_a_matrix_by_its_own_scale():
    weight = nn.Parameter(torch.zeros(16, 4, 2, 2))  # a convolution: 16 x 16
    optimizer = Muon([weight], [], lr=0.1, weight_decay=0.0)
    weight.grad = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0].view(16, 4, 2, 2)
    gradient = weight.grad.clone()
    optimizer.step()
    # Root mean square of an element: lr * 0.2, whatever the gradient's size.
    assert weight.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.3)
    assert torch.nn.functional.cosine_similarity(weight.flatten(), -gradient.flatten(), dim=0) > 0.99


def test_what_is_no_matrix_follows_adamw():
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    options = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.01}
    a, b = Muon([nn.Parameter(torch.ones(2, 2))], [ours], **options), torch.optim.AdamW([theirs], **options)
    for value in (1.0, -3.0):
        ours.grad, theirs.grad = torch.full((5,), value), torch.full((5,), value)
        a.step()
        b.step()
    assert torch.equal(ours, theirs)


def test_ends_of_the_network_are_no_hidden_matrices(recipe, tiny_svd):
    weights = dict(tiny_svd.unet.named_parameters())
    hidden, rest = make_optimizer(recipe(optimizer="muon"), weights).param_groups
    names = {id(p): n for n, p in weights.items()}
    assert {"conv_in.weight", "conv_out.weight", "conv_in.bias"} <= {names[id(p)] for p in rest["params"]}
    assert all(p.ndim >= 2 for p in hidden["params"])
    assert len(hidden["params"]) + len(rest["params"]) == len(weights)


@pytest.mark.parametrize("optimizer", ["muon", "adamw8bit"])
def test_a_run_resumes_bit_for_bit(recipe, tmp_path, optimizer):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    long = recipe(output=str(tmp_path / "long"), optimizer=optimizer)
    short = long.model_copy(update={"output": tmp_path / "short", "steps": 3})
    train(long)
    train(short)
    train(short.model_copy(update={"steps": 4}))
    assert_same(state(short), state(long))
