"""The worked examples of docs/train-elsewhere.md, on tiny models, as those trainers call them."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig
from torch import nn

from tests.tiny import cogvideox
from tests.train.tiny_ltx import tiny_ltx
from tests.train.tiny_wan import tiny_wan
from unleak import TimeNoise

DOCS = (Path(__file__).parents[2] / "docs/train-elsewhere.md").read_text()


def attached(which, **names):
    """Run the line of the document that has `which` in it; TimeNoise's handle."""
    line = next(line for line in re.findall(r"^TimeNoise\(.*\)", DOCS, re.MULTILINE) if which in line)
    return eval(line, {"TimeNoise": TimeNoise, "slice": slice, **names})


def record(layer, place):
    seen = []
    layer.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append((kwargs | dict(enumerate(args)))[place].detach().clone()),
        with_kwargs=True,
    )
    return seen


def test_cogvideox_script():
    torch.manual_seed(0)
    sizes = cogvideox.TRANSFORMER | {"in_channels": 32, "out_channels": 16}
    transformer = CogVideoXTransformer3DModel(**sizes)
    config, half = transformer.config, 16
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    transformer.enable_gradient_checkpointing()
    attached("b f c h w", transformer=transformer)
    seen = record(transformer, "hidden_states")
    transformer.train()
    noisy, image = torch.zeros(2, 2, half, 4, 4), torch.zeros(2, 2, config.in_channels - half, 4, 4)
    for _ in range(2):  # accumulation
        out = transformer(
            hidden_states=torch.cat([noisy, image], dim=2),
            encoder_hidden_states=torch.zeros(2, config.max_text_seq_length, config.text_embed_dim),
            timestep=torch.tensor([100, 900]),
            image_rotary_emb=None,
            return_dict=False,
        )[0]
        out.square().mean().backward()
    assert len(seen) == 2
    for given in seen:
        changed = given.abs().amax((0, 3, 4)) > 0
        assert changed.tolist() == [[c >= 16 for c in range(config.in_channels)], [False] * config.in_channels]
    assert any(p.grad is not None and p.grad.abs().sum() for n, p in transformer.named_parameters() if "lora" in n)


class OriginalWan(nn.Module):
    """The signature of the original Wan, around diffusers' network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, context, seq_len, clip_fea=None, y=None):
        return self.network(torch.cat([x, y], dim=1), t, torch.stack(context), return_dict=False)[0]


def test_videox_fun_and_diffusers_wan():
    transformer = tiny_wan("2.2").transformer.train()
    transformer3d = OriginalWan(transformer).train()
    seen = record(transformer, 0)
    x, y = torch.zeros(1, 16, 2, 4, 4), torch.zeros(1, 20, 2, 4, 4)
    handle = attached("(transformer3d", transformer3d=transformer3d)
    call = {"x": x, "context": [torch.zeros(4, 16)], "t": torch.tensor([900.0]), "seq_len": 8, "y": y}
    transformer3d(**call)
    transformer3d.eval()(**call)
    handle.remove()
    attached("slice(20, None)", transformer=transformer)
    seen = [*seen, *record(transformer, "hidden_states")]
    changed = [given.abs().amax((0, 2, 3, 4)) > 0 for given in seen]
    assert changed[0].tolist() == [c >= 20 for c in range(36)]
    assert not changed[1].any()


def test_ltx_itself():
    """The packed tokens of the first frame, through the network and its gradient checkpointing."""
    transformer = tiny_ltx().transformer.requires_grad_(True).train()
    transformer.enable_gradient_checkpointing()
    attached('layout="b f c"', transformer=transformer, tokens=8)
    seen = record(transformer, "hidden_states")
    transformer(
        hidden_states=torch.zeros(1, 24, 8),
        encoder_hidden_states=torch.ones(1, 4, 16),
        timestep=torch.cat([torch.zeros(1, 8), torch.full((1, 16), 900.0)], dim=1),
        encoder_attention_mask=torch.ones(1, 4),
        num_frames=3,
        height=4,
        width=2,
        return_dict=False,
    )[0].square().mean().backward()
    assert len(seen) == 1
    assert (seen[0].abs().amax((0, 2)) > 0).tolist() == [True] * 8 + [False] * 16
    assert all(weight.grad is not None for weight in transformer.parameters())


@pytest.mark.parametrize(
    ("which", "shape"), [("slice(None), frames=slice(0, 1)", (1, 48, 2, 4, 4)), ('layout="b f c"', (1, 8, 48))]
)
def test_the_clean_first_frame(which, shape):
    class Network(nn.Module):
        def forward(self, hidden_states, timestep):
            return hidden_states

    network = Network().train()
    line = next(line for line in DOCS.splitlines() if which in line and line.startswith("TimeNoise("))
    eval(line, {"TimeNoise": TimeNoise, "transformer": network, "tokens": 4})
    out = network(torch.zeros(shape), torch.tensor([[0.0, 900.0]]))
    frames = out.transpose(1, 2).flatten(2).abs().sum((0, 2)) if out.ndim == 5 else out.abs().sum((0, 2))
    half = len(frames) // 2
    assert (frames[:half] > 0).all()
    assert not frames[half:].any()


# ---- trainers that go around the network's forward, or train in evaluation mode


def patch(name, **names):
    """Run the lines of the document for a trainer in its function's variables; what they are afterwards."""
    (code,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", DOCS, re.DOTALL)
    exec(code, {"torch": torch}, names)
    return names


def stepped(loss, weights):
    """One step of the optimizer; whether every weight that was trained has moved."""
    weights = list(weights)
    before = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    loss.backward()
    optimizer.step()
    return [not torch.equal(a, b) for a, b in zip(before, weights, strict=True)]


def test_ai_toolkit_and_simpletuner():
    """Adapters on diffusers' Wan, called with keywords alone as both do."""
    transformer = tiny_wan("2.2").transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    attached("slice(20, None)", transformer=transformer)
    seen = record(transformer, "hidden_states")
    out = transformer.train()(
        hidden_states=torch.zeros(2, 36, 2, 4, 4),
        timestep=torch.tensor([900.0, 100.0]),
        encoder_hidden_states=torch.ones(2, 4, 16),
        return_dict=False,
    )[0]
    assert any(stepped((out - 1).square().mean(), [p for p in transformer.parameters() if p.requires_grad]))
    changed = seen[0].abs().amax((0, 2, 3, 4)) > 0
    assert changed.tolist() == [c >= 20 for c in range(36)]


def test_musubi_tuner():
    """The network is in evaluation mode and frozen; what is trained stands outside it."""
    transformer = OriginalWan(tiny_wan("2.2").transformer.requires_grad_(False)).eval()
    outside = nn.Linear(16, 16)
    handle = attached("always=True", transformer=transformer)
    seen = record(transformer.network, 0)
    call = {"context": [outside(torch.ones(4, 16))], "clip_fea": None, "seq_len": 8, "y": torch.zeros(1, 20, 2, 4, 4)}
    out = transformer(torch.zeros(1, 16, 2, 4, 4), t=torch.tensor([900.0]), **call)
    assert all(stepped((out - 1).square().mean(), outside.parameters()))
    assert handle.acted
    with torch.no_grad():  # its samples while training
        transformer(torch.zeros(1, 16, 2, 4, 4), t=torch.tensor([900.0]), **call)
    changed = [given.abs().amax((0, 2, 3, 4)) > 0 for given in seen]
    assert changed[0].tolist() == [c >= 20 for c in range(36)]
    assert not changed[1].any()


def test_diffusion_pipe():
    """prepare_inputs makes y and t; the first layer puts the mask before y."""
    network = tiny_wan("2.2").transformer.requires_grad_(True).train()
    y, t = torch.zeros(2, 16, 2, 4, 4), torch.tensor([0.9, 0.1])
    made = patch("diffusion-pipe", y=y, t=t, timestep_quantile=None)
    assert (made["y"].flatten(1).abs().amax(1) > 0).all()
    assert patch("diffusion-pipe", y=y, t=t, timestep_quantile=0.5)["y"] is y  # while it evaluates
    assert patch("diffusion-pipe", y=None, t=t, timestep_quantile=None)["y"] is None
    x = torch.cat([torch.zeros(2, 16, 2, 4, 4), torch.zeros(2, 4, 2, 4, 4), made["y"]], dim=1)
    out = network(x, t * 1000, torch.ones(2, 4, 16), return_dict=False)[0]
    assert any(stepped((out - 1).square().mean(), network.parameters()))


def test_diffsynth_studio():
    network = tiny_wan("2.2").transformer.requires_grad_(True).train()
    given = {"y": torch.ones(1, 20, 2, 4, 4), "latents": torch.zeros(1, 16, 2, 4, 4)}
    before = given["y"]
    made = patch("DiffSynth-Studio", inputs=given, timestep=torch.tensor([900.0], dtype=torch.bfloat16))["inputs"]
    assert torch.equal(before, torch.ones_like(before))  # cached latents stay as they are
    assert torch.equal(made["y"][:, :4], before[:, :4])
    assert not torch.allclose(made["y"][:, 4:], before[:, 4:])
    x = torch.cat([made["latents"], made["y"]], dim=1)
    out = network(x, torch.tensor([900.0]), torch.ones(1, 4, 16), return_dict=False)[0]
    assert any(stepped((out - 1).square().mean(), network.parameters()))


def test_ltx_2():
    """Tokens of the first frame, whose sigma the trainer sets to zero only afterwards."""
    clean, timesteps = torch.zeros(2, 24, 8), torch.tensor([[0.9], [0.1]]).expand(2, 24)
    made = patch("LTX-2", clean_latents=clean, timesteps=timesteps)["clean_latents"]
    assert (made.flatten(1).abs().amax(1) > 0).all()
    assert not clean.any()
    mask = torch.zeros(2, 24)
    mask[:, :8] = 1
    transformer = tiny_ltx().transformer.requires_grad_(True).train()
    out = transformer(
        hidden_states=mask[..., None] * made,
        encoder_hidden_states=torch.ones(2, 4, 16),
        timestep=(1 - mask) * timesteps * 1000,
        encoder_attention_mask=torch.ones(2, 4),
        num_frames=3,
        height=4,
        width=2,
        return_dict=False,
    )[0]
    assert any(stepped((out[:, 8:] - 1).square().mean(), transformer.parameters()))
