import copy
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import MotionAdapter

import unleak
from tests.tiny.model import photo
from tests.tiny.sd15 import TINY, _adapter, _call_pia, _unet, _vae
from tests.tiny.text import clip, words
from unleak.animate.settings import Settings
from unleak.families.pia.convert import (
    adapter_of,
    convert,
    convert_pipeline,
    original_of,
    read_original,
    write_checkpoint,
)
from unleak.families.pia.norms import use_norms
from unleak.families.pia.pipeline import assemble, pia_pipeline
from unleak.families.pia.preset import CALL, CONDITION, FPS, MOTION_SCALES, SCHEDULER, condition_strength
from unleak.families.pia.view import PIAView
from unleak.zoo.hub import load, networks
from unleak.zoo.registry import find_model
from unleak.zoo.source import Source

SOURCES = Path(unleak.__file__).parent
SIZES = {"num_attention_heads": 2, "norm_num_groups": 2}


class Base:
    """The networks of a Stable Diffusion pipeline."""

    def __init__(self):
        torch.manual_seed(0)
        self.vae, self.text_encoder, self.tokenizer, self.unet = _vae(), clip(), words(), _unet()


@pytest.fixture
def base():
    return Base()


@pytest.fixture
def adapter():
    torch.manual_seed(1)
    return _adapter(conv_in_channels=9)


@pytest.fixture
def original(adapter):
    return original_of(adapter)


# diffusers calls its pipeline deprecated


def test_diffusers_still_has_the_pipeline():
    """If this fails, diffusers has removed PIAPipeline: `families/pia/pipeline.py` is what needs another."""
    assert hasattr(diffusers, "PIAPipeline"), f"diffusers {diffusers.__version__} has removed PIAPipeline"
    assert pia_pipeline() is diffusers.PIAPipeline


def test_one_file_depends_on_it():
    code = re.compile(
        r"import.*\bPIAPipeline\b|diffusers\.PIAPipeline|getattr\(diffusers, .PIAPipeline|deprecated\.pia"
    )
    found = [path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if code.search(path.read_text())]
    assert found == ["families/pia/pipeline.py"]


def test_its_removal_is_said_in_a_line(monkeypatch, base, adapter):
    monkeypatch.setattr(diffusers, "PIAPipeline", None)
    with pytest.raises(ValueError, match=r"PIA needs the PIAPipeline of diffusers, which diffusers .* does not have"):
        assemble(base, adapter)


# Motion scales


def told(pipe, **changes):
    """What the network is given at the first step."""
    seen = {}

    def watch(module, args, kwargs):
        if not seen:
            seen.update(kwargs, sample=args[0], timestep=args[1])

    hook = pipe.unet.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        _call_pia(pipe, **{"num_inference_steps": 1} | changes)
    finally:
        hook.remove()
    return seen


def test_the_motion_scales_are_those_of_the_pipeline():
    pipe = next(tiny for tiny in TINY if tiny.name == "pia").build()
    assert list(MOTION_SCALES.values()) == list(range(len(CONDITION)))
    for scale in MOTION_SCALES.values():
        for num_frames in (3, 18) if scale in (0, 4) else (16,):
            mask = told(pipe, motion_scale=scale, num_frames=num_frames, guidance_scale=1.0)["sample"][0, 4, :, 0, 0]
            assert mask.tolist() == pytest.approx(condition_strength(scale, num_frames))


@pytest.mark.parametrize("scale", ["small-loop", "moderate-loop", "large-loop"])
def test_a_loop_of_16_frames_returns_to_the_photo(scale):
    curve = condition_strength(MOTION_SCALES[scale], 16)
    assert curve[0] == curve[-1] == 1


@pytest.mark.parametrize("scale", [-1, 9])
def test_no_other_scales(scale):
    with pytest.raises(ValueError, match=f"motion_scale={scale}: give 0 to 8, which are small, moderate"):
        condition_strength(scale, 16)


@pytest.mark.parametrize("scale", [-1, 9])
def test_the_command_line_refuses_other_scales_too(scale):
    with pytest.raises(ValueError, match=f"--set motion_scale={scale}: give 0 to 8: .*loop"):
        Settings.for_model(find_model("pia"), others=[f"motion_scale={scale}"])


def test_the_zoo_has_the_published_settings():
    for name in ("pia", "pia-original"):
        spec = find_model(name)
        assert spec.defaults == {**CALL, "motion_scale": 0}
        assert spec.scheduler == {"_class_name": "DDIMScheduler", **SCHEDULER}
        assert spec.fps == FPS


# Assembly


@pytest.mark.parametrize("personalised", [False, True])
def test_the_input_layer_is_pias_or_on_a_personalised_base_its_own_where_it_has_one(base, adapter, personalised):
    before = copy.deepcopy(adapter.state_dict())
    pipe = assemble(base, adapter, personalised=personalised)
    ours, theirs = pipe.unet.conv_in, base.unet.conv_in
    assert torch.equal(ours.weight[:, 4:], adapter.conv_in.weight[:, 4:])
    first = theirs.weight if personalised else adapter.conv_in.weight[:, :4]
    assert torch.equal(ours.weight[:, :4], first)
    assert torch.equal(ours.bias, theirs.bias if personalised else adapter.conv_in.bias)
    for state in (adapter.state_dict(), pipe.motion_adapter.state_dict()):
        assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())
    assert {name: pipe.scheduler.config[name] for name in SCHEDULER} == SCHEDULER


def test_what_does_not_fit_is_refused(base, adapter):
    with pytest.raises(ValueError, match="PIA needs its own motion adapter, with a condition input"):
        assemble(base, _adapter())
    wide = MotionAdapter(
        block_out_channels=(4, 16), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2,
        conv_in_channels=9,
    )  # fmt: skip
    with pytest.raises(ValueError, match="the motion adapter does not fit the base"):
        assemble(base, wide)


def test_a_base_without_its_network_still_encodes(base):
    """As for statistics, which need the autoencoder alone."""
    base.unet = base.text_encoder = base.tokenizer = None
    pipe = assemble(base)
    assert pipe.unet is None
    assert PIAView(pipe).encode_video(torch.zeros(1, 2, 3, 16, 24)).shape == (1, 4, 2, 8, 12)


def test_the_start_and_the_moments_attach(base, adapter):
    pipe = assemble(base, adapter)
    pipe.set_progress_bar_config(disable=True)
    plain = _call_pia(pipe)
    with unleak.applied(pipe, start=900, init="unit"):
        assert int(told(pipe)["timestep"]) == 899
        assert not torch.equal(_call_pia(pipe), plain)
    assert torch.equal(_call_pia(pipe), plain)


# The checkpoint


def test_the_names_are_animatediffs(original):
    assert "conv_in.weight" in original
    assert "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight" in original
    block = "up_blocks.1.motion_modules.1.temporal_transformer.transformer_blocks.0"
    for name in ("attention_blocks.1.to_q.weight", "attention_blocks.1.pos_encoder.pe", "norms.1.bias"):
        assert f"{block}.{name}" in original
    assert f"{block}.ff_norm.weight" in original
    assert f"{block}.ff.net.0.proj.weight" in original


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
@pytest.mark.parametrize("trained", ["adapter", "pipeline"])
def test_both_ways_is_bit_for_bit_the_same(base, adapter, tmp_path, ending, trained):
    network = adapter if trained == "adapter" else assemble(base, adapter).unet
    file = tmp_path / f"pia.{ending}"
    write_checkpoint(original_of(network), file)
    again = adapter_of(read_original(tmp_path), **SIZES)
    assert again.config.block_out_channels == (4, 8)
    assert again.config.motion_layers_per_block == 1
    assert again.config.motion_max_seq_length == 32
    expected = adapter.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_a_whole_network_is_taken_with_its_base_only(base, original):
    whole = {f"module.{name}": tensor for name, tensor in (original | _rest(base)).items()}
    whole = {name.removeprefix("module."): tensor for name, tensor in whole.items()}
    with pytest.raises(ValueError, match="of a whole network, give the base it belongs to"):
        adapter_of(whole, **SIZES)
    assert adapter_of(whole, base=base.unet, **SIZES).config.conv_in_channels == 9
    with pytest.raises(ValueError, match=r"not what PIA's checkpoint has: conv_out.bias \(of 1\)"):
        adapter_of({name: tensor for name, tensor in whole.items() if name != "conv_out.bias"}, base=base.unet, **SIZES)


def _rest(base):
    return {name: tensor for name, tensor in base.unet.state_dict().items() if not name.startswith("conv_in.")}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("conv_in.weight"), "no checkpoint of PIA: no conv_in"),
        (lambda w: [w.pop(name) for name in list(w) if "motion" in name], "no checkpoint of PIA: no motion modules"),
        (lambda w: w.pop("conv_in.bias"), "conv_in.bias"),
        (lambda w: w.update({"stranger": torch.zeros(1)}), "not what PIA's checkpoint has: stranger"),
        (lambda w: w.update({"up_blocks.9.motion_modules.0.x": torch.zeros(1)}), "not PIA's checkpoint: .*up_blocks.9"),
        (lambda w: w.update({"conv_in.weight": torch.zeros(4, 9, 1, 1)}), "size mismatch for conv_in.weight"),
        (
            lambda w: w.update({name: tensor + 1 for name, tensor in w.items() if name.endswith(".pe")}),
            "not the sinusoidal positions",
        ),
    ],
)
def test_another_checkpoint_is_refused_in_a_line(original, damage, message):
    damage(original)
    with pytest.raises(ValueError, match=message) as error:
        adapter_of(original, **SIZES)
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [({"x": Evil()}, "more than plain tensors: refused"), ([1, 2], "not a dictionary of tensors")],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content, message):
    torch.save(content, tmp_path / "pia.ckpt")
    with pytest.raises(ValueError, match=message):
        read_original(tmp_path / "pia.ckpt")
    (tmp_path / "pia.ckpt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged one"):
        read_original(tmp_path)
    (tmp_path / "pia.ckpt").unlink()
    with pytest.raises(ValueError, match="0 checkpoints in it"):
        read_original(tmp_path)


@pytest.fixture
def full_size(tmp_path):
    """As wide as 32 groups and 8 heads ask for, which a checkpoint does not say."""
    torch.manual_seed(2)
    adapter = MotionAdapter(
        block_out_channels=(32, 32), motion_layers_per_block=1, conv_in_channels=9, use_motion_mid_block=False
    )
    write_checkpoint(original_of(adapter), tmp_path / "pia.ckpt")
    return tmp_path / "pia.ckpt", adapter


def test_a_file_becomes_a_folder(full_size, tmp_path):
    file, adapter = full_size
    convert(file, tmp_path / "adapter")
    again = MotionAdapter.from_pretrained(tmp_path / "adapter", use_safetensors=True)
    assert again.config.use_motion_mid_block is False
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in adapter.state_dict().items())


def test_a_file_and_a_base_become_a_pipeline(full_size, tmp_path):
    file, adapter = full_size
    torch.manual_seed(3)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 32), layers_per_block=1, sample_size=8, cross_attention_dim=8, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    plain = diffusers.StableDiffusionPipeline(
        vae=_vae(), text_encoder=clip(), tokenizer=words(), unet=unet, scheduler=diffusers.PNDMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    plain.save_pretrained(tmp_path / "base")
    made = convert_pipeline(file, tmp_path / "base", tmp_path / "pia")
    again = pia_pipeline().from_pretrained(tmp_path / "pia", use_safetensors=True)
    assert not torch.equal(_call_pia(made), _call_pia(again))  # diffusers alone computes in its own way
    again = load(tmp_path / "pia")
    assert again.motion_adapter is None  # its weights are in the UNet: they would be held twice
    assert "motion_adapter" not in networks(Source(str(tmp_path / "pia")).read("model_index.json"))
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(_call_pia(again), _call_pia(load(tmp_path / "again")))
    for pipe in (made, again):
        pipe.set_progress_bar_config(disable=True)
        assert torch.equal(pipe.unet.conv_in.weight, adapter.conv_in.weight)
    assert torch.equal(_call_pia(made), _call_pia(again))
    assert all(torch.equal(tensor, original_of(adapter)[name]) for name, tensor in original_of(again.unet).items())
    other = convert_pipeline(file, tmp_path / "base", tmp_path / "other", norms="diffusers")
    alone = pia_pipeline().from_pretrained(tmp_path / "other", use_safetensors=True)
    kept = load(tmp_path / "other")
    for pipe in (other, alone, kept):
        pipe.set_progress_bar_config(disable=True)
    assert torch.equal(_call_pia(other), _call_pia(alone))
    assert torch.equal(_call_pia(other), _call_pia(kept))


# Whose normalisation; `tests/golden` compares it with PIA's own code


def predicted(unet, frames=3):
    noise = torch.Generator().manual_seed(4)
    sample, text = torch.randn(2, 9, frames, 8, 8, generator=noise), torch.randn(2 * frames, 4, 8, generator=noise)
    with torch.no_grad():
        return unet(sample, torch.tensor(500), encoder_hidden_states=text).sample


def test_the_arithmetic_is_chosen_and_taken_back(base, adapter):
    unet = assemble(base, adapter).unet
    assert "norms" not in unet.config
    ours, weights = predicted(unet), copy.deepcopy(unet.state_dict())
    copied = copy.deepcopy(unet)
    assert torch.equal(predicted(copied, 2), predicted(unet, 2))
    assert torch.equal(predicted(use_norms(use_norms(unet))), ours)
    theirs = predicted(use_norms(unet, "diffusers"))
    assert (theirs - ours).norm() > 1e-3 * ours.norm()
    assert (unet.config["norms"], len(unet._forward_pre_hooks)) == ("diffusers", 0)
    assert torch.equal(predicted(use_norms(unet)), theirs)  # the configuration remembers
    assert torch.equal(predicted(use_norms(unet, "pia")), ours)
    assert torch.equal(predicted(copied), ours)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unet.state_dict().items())
    with pytest.raises(ValueError, match="norms 'both': give one of pia, diffusers"):
        use_norms(unet, "both")


def test_a_clip_is_normalised_as_a_whole_in_the_residual_blocks(base, adapter):
    unet = assemble(base, adapter).unet
    norm = unet.down_blocks[0].resnets[0].norm1
    x = torch.randn(6, norm.num_channels, 8, 8)
    norm.frames = 3
    clips = torch.nn.functional.group_norm(
        x.reshape(2, 3, -1, 8, 8).transpose(1, 2), norm.num_groups, norm.weight, norm.bias, norm.eps
    )
    torch.testing.assert_close(norm(x), clips.transpose(1, 2).reshape(x.shape))


# The view


@torch.no_grad()
def test_what_the_network_is_told_is_what_the_pipeline_tells(base, adapter):
    """Also the clean prediction. The posterior is narrowed to its mode, which the pipeline samples from."""
    pipe = assemble(base, adapter)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        half = len(pipe.vae.quant_conv.bias) // 2
        pipe.vae.quant_conv.weight[half:], pipe.vae.quant_conv.bias[half:] = 0, -60
    clean = []
    step = pipe.scheduler.step

    def watched(*args, **kwargs):
        result = step(*args, **kwargs)
        clean.append(result.pred_original_sample)
        return result

    pipe.scheduler.step = watched
    seen = told(pipe, guidance_scale=1.0, motion_scale=1)
    view = PIAView(pipe, {"motion_scale": 1})
    image = torch.from_numpy(np.array(photo(16, 24))).permute(2, 0, 1)[None] / 127.5 - 1
    condition = view.encode_condition(image, ["a dog runs"], 3)
    x_t, strength, latents = seen["sample"].split([4, 1, 4], dim=1)
    torch.testing.assert_close(condition.latents[:, :, None].expand_as(latents), latents, rtol=1e-4, atol=1e-5)
    assert condition.strength.tolist() == strength[0, 0, :, 0, 0].tolist()
    torch.testing.assert_close(condition.text.repeat_interleave(3, 0), seen["encoder_hidden_states"])
    ours = view.predict_clean(x_t, view.levels_at(seen["timestep"][None]), condition)
    torch.testing.assert_close(ours, clean[0], rtol=1e-4, atol=1e-4)
