import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from peft import LoraConfig
from torch import Tensor

import unleak.families.lvdm.attention as attention
from unleak.families.lvdm.attention import Attention, Tokens
from unleak.families.lvdm.original import scheduler_config, unet_config
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.lvdm.unet import LVDMUNet

SMALL: dict[str, Any] = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (1,),
    "attention_head_dim": 16,
    "cross_attention_dim": 8,
    "text_tokens": 5,
    "image_tokens": 2,
}
FRAMES = 3


@pytest.fixture(scope="module")
def unet() -> LVDMUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LVDMUNet(**SMALL).eval()


def inputs(*, per_frame: bool = True, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = 5 + 2 * (FRAMES if per_frame else 1)
    sample = torch.randn(batch, 8, FRAMES, 4, 6, generator=generator)
    return sample, torch.tensor([900, 30])[:batch], torch.randn(batch, tokens, 8, generator=generator)


def run(unet: LVDMUNet, *arguments: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        return unet(*arguments, **options, return_dict=False)[0]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-5)


def scores(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=heads) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return rearrange(weights @ v, "n h l d -> n l (h d)")


@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("learnable", [True, False])
def test_attention_is_softmax_of_scores_of_text_repeated_for_every_frame(per_frame: bool, learnable: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2, 4, context_dim=6, image=True, learnable_image_scale=learnable)
    if learnable:
        torch.nn.init.constant_(layer.image_scale, 0.3)
    x, text = torch.randn(2 * FRAMES, 7, 8), torch.randn(2, 5, 6)
    image = torch.randn(2 * FRAMES if per_frame else 2, 3, 6)
    tokens = Tokens(FRAMES, text, image, per_frame=per_frame)

    def frames(t: Tensor) -> Tensor:
        return repeat(t, "b l d -> (b f) l d", f=FRAMES)

    shown = image if per_frame else frames(image)
    expected = scores(layer.to_q(x), layer.to_k(frames(text)), layer.to_v(frames(text)), 2)
    scale = 1 + torch.tanh(torch.tensor(0.3)) if learnable else 1
    expected = expected + scale * scores(layer.to_q(x), layer.to_k_ip(shown), layer.to_v_ip(shown), 2)
    close(layer(x, tokens), layer.to_out[0](expected))


def test_attention_to_oneself() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2, 4), torch.randn(3, 7, 8)
    close(layer(x), layer.to_out[0](scores(layer.to_q(x), layer.to_k(x), layer.to_v(x), 2)))


def test_many_sequences_are_attended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2, 4), torch.randn(10, 3, 8)
    whole = layer(x)
    monkeypatch.setattr(attention, "_MOST_SEQUENCES", 4)
    close(layer(x), whole)


def test_clips_of_a_batch_do_not_meet(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs()
    together = run(unet, sample, timestep, tokens, fps=torch.tensor([3, 20]))
    for i, fps in enumerate((3, 20)):
        close(run(unet, sample[i : i + 1], timestep[i], tokens[i : i + 1], fps=fps), together[i : i + 1])


def test_the_same_tokens_for_every_frame_may_be_given_once(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs(per_frame=False)
    repeated = torch.cat([tokens[:, :5], tokens[:, 5:].repeat(1, FRAMES, 1)], dim=1)
    close(run(unet, sample, timestep, tokens), run(unet, sample, timestep, repeated))


def test_every_input_counts(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs()
    plain = run(unet, sample, timestep, tokens)
    close(plain, run(unet, sample, timestep, tokens, fps=24))
    for name, changed in {
        "time": run(unet, sample, timestep - 20, tokens),
        "fps": run(unet, sample, timestep, tokens, fps=5),
        "text": run(unet, sample, timestep, torch.cat([tokens[:, :5] + 1, tokens[:, 5:]], 1)),
        "image": run(unet, sample, timestep, torch.cat([tokens[:, :5], tokens[:, 5:] + 1], 1)),
        "order of frames": run(unet, sample.flip(2), timestep, tokens).flip(2),
    }.items():
        assert (changed - plain).abs().max() > 1e-4, name


@pytest.mark.parametrize("height", [3, 5])
def test_a_size_that_the_levels_do_not_divide(unet: LVDMUNet, height: int) -> None:
    sample, timestep, tokens = inputs()
    with pytest.raises(ValueError, match=rf"latents of {height}x6: .* give multiples of 2"):
        run(unet, sample[..., :1, :].expand(-1, -1, -1, height, -1), timestep, tokens)


def test_tokens_that_fit_neither_the_clip_nor_its_frames(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs()
    message = r"9 tokens for 3 frames: this UNet takes 5 of text and 2 of the image or 5 \+ 3 x 2"
    with pytest.raises(ValueError, match=message):
        run(unet, sample, timestep, tokens[:, :9])
    clip_only = LVDMUNet(**SMALL | {"image_tokens_per_frame": False})
    with pytest.raises(ValueError, match=r"11 tokens for 3 frames: this UNet takes 5 of text and 2 of the image$"):
        run(clip_only, sample, timestep, tokens)


def test_checkpointing_changes_no_gradient(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs()

    def gradients() -> list[Tensor]:
        unet.zero_grad()
        unet(sample, timestep, tokens).sample.square().mean().backward()
        return [parameter.grad.clone() for parameter in unet.parameters()]

    plain = gradients()
    unet.enable_gradient_checkpointing()
    try:
        again = gradients()
    finally:
        unet.disable_gradient_checkpointing()
        unet.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_saved_and_loaded_in_any_memory_format(unet: LVDMUNet, tmp_path: Path) -> None:
    expected = run(unet, *inputs())
    unet.to(memory_format=torch.channels_last)
    close(run(unet, *inputs()), expected)
    unet.save_pretrained(tmp_path)
    unet.to(memory_format=torch.contiguous_format)
    loaded = LVDMUNet.from_pretrained(tmp_path)
    assert torch.equal(run(loaded, *inputs()), expected)
    assert loaded.config.channel_mult == [1, 2]


def test_half_precision_stays_half(unet: LVDMUNet) -> None:
    sample, timestep, tokens = inputs()
    half = LVDMUNet.from_config(unet.config).eval()
    half.load_state_dict(unet.state_dict())
    half.to(torch.bfloat16)
    ours = run(half, sample.bfloat16(), timestep, tokens.bfloat16())
    assert ours.dtype == torch.bfloat16
    expected = run(unet, sample, timestep, tokens)
    assert (ours - expected).abs().max() < 0.05 * expected.abs().max()


def test_adapters(unet: LVDMUNet) -> None:
    tuned = LVDMUNet.from_config(unet.config).eval()
    tuned.load_state_dict(unet.state_dict())
    tuned.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    close(run(tuned, *inputs()), run(unet, *inputs()))
    trained = [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


_COMPILED = """
import torch
from unleak.families.lvdm.unet import LVDMUNet
torch.manual_seed(0)
unet = LVDMUNet(**{small}).eval()
inputs = torch.randn(2, 8, 3, 4, 6), torch.tensor([900, 30]), torch.randn(2, 11, 8)
with torch.no_grad():
    plain = unet(*inputs).sample
    unet.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(unet(*inputs).sample, plain, atol=2e-5, rtol=1e-4)
"""


@pytest.mark.slow
def test_blocks_compile_whole_and_compute_the_same() -> None:
    """Each in one graph. In a process of its own: the tests' run-time type checks cannot be compiled."""
    subprocess.run([sys.executable, "-c", _COMPILED.format(small=SMALL)], check=True)


@pytest.mark.parametrize("frames", [None, 3])
def test_resampler_makes_tokens_for_the_clip_or_its_frames(frames: int | None) -> None:
    torch.manual_seed(0)
    resampler = Resampler(
        dim=8, depth=2, head_dim=4, heads=2, num_queries=4, embedding_dim=6, output_dim=10, video_length=frames
    )
    image = torch.randn(2, 7, 6)
    tokens = resampler(image)
    assert tokens.shape == (2, 4 * (frames or 1), 10)
    close(resampler(image[:, torch.randperm(7)]), tokens)  # features have no order to the queries
    assert (resampler(image + 1) - tokens).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_relative_position": True}, "unet use_relative_position: True; unleak's UNet has False only"),
        ({"use_causal_attention": True}, "unet use_causal_attention: True"),
        ({"resblock_updown": True}, "unet resblock_updown: True"),
        ({"colour": 3}, "unet: colour unknown; known are"),
    ],
)
def test_networks_that_no_checkpoint_has_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unet_config({"in_channels": 8, "use_relative_position": False, **changes})


def test_the_schedule_of_a_configuration() -> None:
    plain = {"linear_start": 0.00085, "linear_end": 0.012}
    videocrafter = scheduler_config({**plain, "use_scale": True, "scale_b": 0.7})
    assert LVDMScheduler(**videocrafter).scales[[0, 399, 999]].tolist() == pytest.approx([1, 0.7, 0.7])
    assert LVDMScheduler(**scheduler_config(plain)).scales.eq(1).all()
    zero = {**plain, "rescale_betas_zero_snr": True, "parameterization": "v", "use_dynamic_rescale": True}
    dynamicrafter = LVDMScheduler(**scheduler_config({**zero, "base_scale": 0.3}))
    assert dynamicrafter.alphas_cumprod[-1] == 0
    assert dynamicrafter.scales[-1].item() == pytest.approx(0.3)
    assert dynamicrafter.config.timestep_spacing == "uniform_trailing"
