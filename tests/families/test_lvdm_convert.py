import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tests.families import lvdm_original as original
from unleak.families.dynamicrafter.convert import FAMILY as DYNAMICRAFTER
from unleak.families.lvdm.convert import from_original, to_original
from unleak.families.lvdm.folder import components, convert, restore
from unleak.families.lvdm.original import unet_config
from unleak.families.lvdm.unet import LVDMUNet
from unleak.families.videocrafter1.convert import FAMILY as VIDEOCRAFTER1

FAMILIES = {"dynamicrafter": DYNAMICRAFTER, "videocrafter1": VIDEOCRAFTER1}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a CLIP tokenizer that knows letters only."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [chr(ord("a") + i) for i in range(10)]
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a
    )


WRAPPINGS: dict[str, Any] = {
    "lightning": lambda state: {"epoch": 3, "state_dict": state, "global_step": 20000, "optimizer_states": [{}]},
    "bare": lambda state: state,
    "deepspeed": lambda state: {"module": {f"_forward_module.{key}": value for key, value in state.items()}},
    "data parallel": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "older names": lambda state: {
        "state_dict": {
            key.replace("fps_embedding", "framestride_embed").replace("temopral", "temporal"): value
            for key, value in state.items()
        }
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_checkpoint_goes_there_and_back(wrapping: str, tmp_path: Path, tokenizer: Path) -> None:
    content = WRAPPINGS[wrapping](original.checkpoint(params := original.params()))
    torch.save(content, tmp_path / "model.ckpt")
    done = convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "out", config=params, tokenizer=tokenizer)
    assert done.dropped == (("optimizer_states",) if wrapping == "lightning" else ())
    kept = {
        "betas",
        "scale_arr",
        "scale_factor",
        "embedder.model.logit_scale",
        "cond_stage_model.model.text_projection",
    }
    assert kept < set(done.leftovers)
    assert not [key for key in done.leftovers if "diffusion_model" in key or "visual" in key]
    restore(tmp_path / "out", tmp_path / "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)
    entry = {"bare": None, "deepspeed": "module"}.get(wrapping, "state_dict")
    assert same(back if entry is None else back[entry], content if entry is None else content[entry])
    kept = {key: value for key, value in content.items() if key != "optimizer_states"}
    assert list(back) == list(kept)
    if entry is not None:
        assert list(back[entry]) == list(content[entry])
        assert {key: back[key] for key in kept if key != entry} == {k: v for k, v in kept.items() if k != entry}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_is_a_pipeline(family: str, tmp_path: Path, tokenizer: Path) -> None:
    state = original.checkpoint(params := original.params(family))
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    convert(FAMILIES[family], tmp_path / "model.ckpt", tmp_path / "out", config=params, tokenizer=tokenizer)
    pipe = FAMILIES[family].pipeline().from_pretrained(tmp_path / "out", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    encoded = []
    hook = pipe.text_encoder.register_forward_pre_hook(lambda module, given: encoded.append(given[0]))
    pipe.encode_prompt("a")
    hook.remove()
    assert encoded[0][0, :4].tolist() == [*pipe.tokenizer("a").input_ids, 0]  # padded as OpenCLIP pads
    text, vision = original.clips()
    ids, pixels = torch.randint(0, 40, (2, 77)), torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(pipe.text_encoder(ids)[0], text(ids), atol=2e-5, rtol=1e-4)
        patches, pooled = vision(pixels)
        encoded = pipe.image_encoder(pixels)
        torch.testing.assert_close(encoded.last_hidden_state, patches, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(encoded.image_embeds, pooled, atol=1e-4, rtol=1e-4)
    settings = {"num_inference_steps": 2, "height": 16, "width": 32, "num_frames": 4, "output_type": "latent"}
    video = pipe(torch.rand(1, 3, 16, 32), "a b", **settings).frames
    assert video.shape == (1, 4, 4, 8, 16)
    assert video.isfinite().all()


def test_a_pruned_half_precision_file_takes_the_rest_from_a_pipeline(tmp_path: Path, tokenizer: Path) -> None:
    params = original.params()
    whole = original.checkpoint(params)
    torch.save(whole, tmp_path / "model.ckpt")
    convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "base", config=params, tokenizer=tokenizer)
    heads = ("model.diffusion_model.", "image_proj_model.", "first_stage_model.")
    pruned = {key: value.half() for key, value in whole.items() if key.startswith(heads)}
    save_file(pruned, tmp_path / "pruned.safetensors")
    options: Any = {"config": params, "tokenizer": tokenizer}
    with pytest.raises(ValueError, match=r"pruned.safetensors: pruned, it has no text_encoder .*give --base FOLDER"):
        convert(DYNAMICRAFTER, tmp_path / "pruned.safetensors", tmp_path / "out", **options)
    convert(DYNAMICRAFTER, tmp_path / "pruned.safetensors", tmp_path / "out", base=tmp_path / "base", **options)
    unet, ours = (
        load_file(tmp_path / folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in ("base", "out")
    )
    assert same(ours, {key: value.half() for key, value in unet.items()})
    restore(tmp_path / "out", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert same({key: value for key, value in back.items() if key in pruned}, pruned)


SPOILT = {
    "no description": {},
    "no JSON": {"layout": "{", "wrapping": "{}"},
    "deep": {"layout": "[" * 100_000, "wrapping": "{}"},
    "a list": {"layout": "[1]", "wrapping": "{}"},
    "an unknown word": {"layout": '{"aliases": ["mine"]}', "wrapping": "{}"},
    "a wrong shape": {"layout": '{"shapes": {"model.diffusion_model.out.2.bias": [7, 7]}}', "wrapping": "{}"},
    "a name of a number": {"layout": "{}", "wrapping": '{"entry": 5}'},
}


def test_leftovers_that_convert_did_not_write_are_refused_in_a_line(tmp_path: Path, tokenizer: Path) -> None:
    params = original.params()
    torch.save(original.checkpoint(params), tmp_path / "model.ckpt")
    convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "out", config=params, tokenizer=tokenizer)
    for what, about in SPOILT.items():
        save_file({"x": torch.ones(1)}, tmp_path / "out" / "original.safetensors", metadata=about)
        with pytest.raises(ValueError, match=r"original\.safetensors: .*; convert the checkpoint again$"):
            restore(tmp_path / "out", tmp_path / "back.ckpt")
        assert not (tmp_path / "back.ckpt").exists(), what


def test_dtype_and_convolutional_projections(tmp_path: Path, tokenizer: Path) -> None:
    params = original.params()
    state = original.checkpoint(params)
    for key, value in state.items():
        if re.search(r"blocks\.\d+\.[12]\.proj_(in|out)\.weight|middle_block\.[12]\.proj_(in|out)\.weight", key):
            state[key] = value[..., None] if ".2.proj" in key else value[..., None, None]
    params["unet_config"]["params"]["use_linear"] = False
    torch.save(state, tmp_path / "model.ckpt")
    options: Any = {"config": params, "tokenizer": tokenizer}
    convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "out", **options)
    restore(tmp_path / "out", tmp_path / "back.ckpt")
    assert same(torch.load(tmp_path / "back.ckpt", weights_only=True), state)
    convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "half", dtype=torch.float16, **options)
    half = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}


class _Hostile:
    def __reduce__(self) -> Any:
        return print, ("run",)


BAD: dict[str, tuple[Any, str]] = {
    "hostile": (lambda s: {"state_dict": s, "x": _Hostile()}, r"asks for \S*print, more than plain tensors: refused"),
    "no tensors": (lambda s: {"epoch": 3}, r"no weights: a dictionary of tensors is expected"),
    "a list": (lambda s: [1, 2], r"holds a list, not a dictionary"),
    "other channels": (
        lambda s: s | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)},
        r"not a checkpoint of dynamicrafter: its network takes 4 channels, not 8; give videocrafter1",
    ),
    "svd": (
        lambda s: {"down_blocks.0.attentions.0.temporal_transformer_blocks.0.norm_in.bias": torch.zeros(3)},
        r"it looks like Stable Video Diffusion: give svd",
    ),
    "missing": (
        lambda s: {key: value for key, value in s.items() if "out.2.bias" not in key},
        r"model.diffusion_model.out.2.bias is missing",
    ),
    "unknown": (
        lambda s: s | {f"model.diffusion_model.extra.{i}": torch.zeros(1) for i in range(5)},
        r"model.diffusion_model.extra.0, .* and 2 more are not known",
    ),
    "shape": (
        lambda s: s | {"model.diffusion_model.out.2.weight": torch.zeros(4, 32, 5, 5)},
        r"model.diffusion_model.out.2.weight is \[4, 32, 5, 5\], expected \[4, 32, 3, 3\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_this_checkpoint_is_refused_in_a_line(case: str, tmp_path: Path, tokenizer: Path) -> None:
    change, message = BAD[case]
    params = original.params()
    torch.save(change(original.checkpoint(params)), tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=message) as caught:
        convert(DYNAMICRAFTER, tmp_path / "model.ckpt", tmp_path / "out", config=params, tokenizer=tokenizer)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_said_to_be_one(name: str, share: float, tmp_path: Path) -> None:
    path, state = tmp_path / name, {"a": torch.randn(1000), "b": torch.randn(1000)}
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model.\w+: (not whole|damaged|no checkpoint).*download or copy it again"):
        convert(DYNAMICRAFTER, path, tmp_path / "out")


def test_variants_are_told_apart_by_what_the_file_holds() -> None:
    scale = {value: {"scale_arr": torch.full((1400,), value)} for value in (0.7, 0.3, 0.5)}
    assert DYNAMICRAFTER.variant_of(scale[0.7]) == "512"
    assert DYNAMICRAFTER.variant_of(scale[0.3]) == "1024"
    alpha = {"model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.alpha": torch.tensor(0.1)}
    assert DYNAMICRAFTER.variant_of(alpha) == "256"
    with pytest.raises(ValueError, match=r"rescaled by 0\.5, which no published variant does"):
        DYNAMICRAFTER.variant_of(scale[0.5])
    with pytest.raises(ValueError, match="give --variant 512 or --variant 1024"):
        DYNAMICRAFTER.variant_of({})


FULL = [(family, variant) for family, spec in FAMILIES.items() for variant in spec.variants]


@pytest.mark.parametrize(("family", "variant"), FULL)
def test_full_size_networks_have_the_original_names_and_shapes(family: str, variant: str) -> None:
    params = FAMILIES[family].variants[variant]["unet_config"]["params"]
    with torch.device("meta"):
        unet = LVDMUNet(**unet_config(params))
    ours = {k: tuple(v.shape) for k, v in to_original({"unet": unet.state_dict()}).items()}
    assert ours == {f"model.diffusion_model.{k}": v for k, v in original.unet_shapes(params).items()}
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(1438.85, abs=0.02)


def test_full_size_encoders_are_those_of_openclip() -> None:
    """ViT-H/14: 632 M parameters of vision and 354 M of text, as published, less the last text layer and projection."""
    parts = components(DYNAMICRAFTER, DYNAMICRAFTER.variants["512"])
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    layer, projection = 12 * 1024**2 + 13 * 1024, 1024**2
    assert count["image_encoder"] == 632_076_800
    assert count["text_encoder"] + layer + projection + 1 == 986_109_441 - 632_076_800
    assert count["vae"] == 83_653_863
    meta = {name: {k: v.shape for k, v in part.state_dict().items()} for name, part in parts.items()}
    state = to_original({name: part.state_dict() for name, part in parts.items()})
    _, left, layout = from_original(state, meta)
    assert not left
    assert not layout.shapes


# Memory: a checkpoint is read by mapping it, so at most its size and one component's worth of copies.

# In a process of its own: what earlier tests freed would be used again, and not be seen.
MEASURE = """
import json, re, sys
from pathlib import Path

import torch

from unleak.families.dynamicrafter.convert import FAMILY
from unleak.families.lvdm.folder import convert, restore

folder, tokenizer = map(Path, sys.argv[1:])
status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", status.read_text())[1]) * 1024


def growth(run):
    reset.write_text("5")  # the peak is now what there is
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def made(name, out):
    config = json.loads((folder / f"{name}.json").read_text())
    convert(FAMILY, folder / f"{name}.ckpt", folder / out, config=config, tokenizer=tokenizer)


def twice():
    held = [torch.ones(size // 4) for _ in range(2)]


size = (folder / "large.ckpt").stat().st_size
made("small", "first")
print(json.dumps([
    growth(lambda: made("large", "out")) / size,
    growth(lambda: restore(folder / "out", folder / "back.ckpt")) / size,
    growth(twice) / size,
]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_converting_takes_no_more_memory_than_the_file(tmp_path: Path, tokenizer: Path) -> None:
    for name, params in (("small", original.params()), ("large", original.params(model_channels=160, context_dim=32))):
        torch.save({"state_dict": original.checkpoint(params)}, tmp_path / f"{name}.ckpt")
        (tmp_path / f"{name}.json").write_text(json.dumps(params))
    assert (tmp_path / "large.ckpt").stat().st_size > 100e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(tokenizer)]
    there, back, two_copies = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert there < 1.2
    assert back < 1.2
    assert two_copies > 1.9, "the measure sees a copy"
