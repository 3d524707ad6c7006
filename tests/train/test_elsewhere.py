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
    (line,) = [line for line in re.findall(r"^TimeNoise\(.*\)", DOCS, re.MULTILINE) if which in line]
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
    handle = attached('argument="y"', transformer3d=transformer3d)
    call = {"x": x, "context": [torch.zeros(4, 16)], "t": torch.tensor([900.0]), "seq_len": 8, "y": y}
    transformer3d(**call)
    transformer3d.eval()(**call)
    handle.remove()
    line = re.search(r"`(\.attach\(transformer, channels=slice\(20, None\)\))`", DOCS)[1]
    eval(f"TimeNoise(beta_m=5.0){line}", {"TimeNoise": TimeNoise, "transformer": transformer})
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
