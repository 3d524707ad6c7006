import json

import pytest
import torch

from tests.train.runs import assert_same, state
from unleak.train.config import RecipeError, parse_recipe
from unleak.train.readout import MotionReadout
from unleak.train.trainer import train


def test_the_network_is_the_same_with_a_readout(tiny_svd):
    unet, inputs = tiny_svd.unet, {"added_time_ids": torch.zeros(2, 3)}
    inputs["encoder_hidden_states"] = torch.zeros(2, 1, unet.config.cross_attention_dim)
    sample = torch.randn(2, 3, unet.config.in_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = unet(sample, torch.zeros(2), **inputs).sample
    readout = MotionReadout(unet, 3)
    assert torch.equal(readout(sample, torch.zeros(2), **inputs).sample, plain)
    assert torch.equal(readout.velocity, torch.zeros(2, 2))  # it starts by knowing nothing
    readout.linear.weight.data.normal_()
    sample.requires_grad_()
    readout(sample, torch.zeros(2), **inputs)
    assert readout.velocity.shape == (2, 2)
    assert not torch.equal(readout.velocity[0], readout.velocity[1])
    readout.velocity.sum().backward()
    assert sample.grad.abs().sum() > 0  # what is read off the middle teaches all that comes before


@pytest.mark.slow
def test_it_learns_is_logged_is_thrown_away_and_resumes(recipe, tmp_path):
    long = recipe(output=str(tmp_path / "long"), motion_readout=1.0, optimizer="muon")
    short = long.model_copy(update={"output": tmp_path / "short", "steps": 3})
    train(long)
    train(short)
    train(short.model_copy(update={"steps": 4}))
    assert_same(state(short), state(long))
    assert torch.equal(state(short).readout["weight"], state(long).readout["weight"])
    assert state(long).readout["weight"].abs().sum() > 0
    assert not any("readout" in name for name in state(long).model)
    lines = [json.loads(line) for line in (long.output / "log.jsonl").read_text().splitlines()]
    assert all(len(line["misread_by_sigma"]) == len(line["loss_by_sigma"]) for line in lines)


def test_a_cache_keeps_the_velocity(recipe, tmp_path):
    plain = recipe(output=str(tmp_path / "plain"), motion_readout=1.0)
    cached = plain.model_copy(
        update={"output": tmp_path / "cached", "data": plain.data.model_copy(update={"cache": tmp_path / "cache"})}
    )
    train(plain)
    train(cached)
    ours, theirs = state(cached).readout["weight"], state(plain).readout["weight"]
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


def test_motion_has_to_be_known(recipe, tmp_path):
    changes = {"data": {"kind": "folder", "path": str(tmp_path)}, "motion_readout": 0.1}
    with pytest.raises(RecipeError, match=r"motion_readout: needs clips of known motion: data.kind: synthetic"):
        parse_recipe(recipe().model_dump(mode="json") | changes)
