import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from tests.families import lvdm_original as original


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each family, their configurations, and a tokenizer."""
    folder = tmp_path_factory.mktemp("original")
    for family in ("dynamicrafter", "videocrafter1"):
        params = original.params(family)
        torch.save(
            {"state_dict": original.checkpoint(params), "epoch": 1, "optimizer_states": []}, folder / f"{family}.ckpt"
        )
        (folder / f"{family}.yaml").write_text(yaml.safe_dump({"model": {"params": params}}))
    words = ["!", "a", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "deep.yaml").write_text("[" * 100_000)
    os.mkfifo(folder / "pipe.ckpt")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder / "words")
    return folder


@pytest.mark.parametrize("family", ["dynamicrafter", "videocrafter1"])
def test_there_and_back(family: str, files: Path, tmp_path: Path, unleak: Any) -> None:
    out, back = tmp_path / "out", tmp_path / "back.safetensors"
    options = ["--config", files / f"{family}.yaml", "--tokenizer", files / "words"]
    result = unleak("convert", family, files / f"{family}.ckpt", out, *options)
    assert result.status == 0
    assert result.out.startswith(f"{out}: a {family} pipeline (custom), ")
    assert "left behind, of training only: optimizer_states" in result.err
    assert "tensors that nothing uses are kept in" in result.err
    assert len(result.err.splitlines()) == 3  # and the tokenizer; no bars of the libraries
    again = unleak("convert", family, files / f"{family}.ckpt", out, *options)
    assert (again.status, again.out) == (2, "")
    assert f"{out} exists; give --overwrite or another name" in again.err
    told = json.loads(unleak("convert", family, out, back, "--json").out)
    expected = torch.load(files / f"{family}.ckpt", weights_only=True)["state_dict"]
    ours = load_file(back)
    assert told == {"out": str(back), "family": family, "tensors": len(expected)}
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


BAD = {
    "family": (["wan", "{f}/dynamicrafter.ckpt"], "family wan is unknown: give one of dynamicrafter, "),
    "missing": (["dynamicrafter", "{f}/none.ckpt"], "none.ckpt"),
    "other family": (
        ["videocrafter1", "{f}/dynamicrafter.ckpt"],
        "its network takes 8 channels, not 4; give dynamicrafter",
    ),
    "option": (["svd", "{f}/dynamicrafter.ckpt", "--variant", "512"], "--variant: a svd checkpoint takes --base"),
    "variant": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--variant", "300"],
        "--variant 300: dynamicrafter has 256, 512, 1024",
    ),
    "both": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--variant", "512", "--config", "{f}/dynamicrafter.yaml"],
        "--variant and --config: give one of them",
    ),
    "no configuration": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--config", "{f}/vocab.json", "--dtype", "int8"],
        "--dtype int8: give float32, float16 or bfloat16",
    ),
    "tokenizer": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--config", "{f}/dynamicrafter.yaml", "--tokenizer", "{f}/none"],
        "none: no such file or folder; give --tokenizer with the folder",
    ),
    "pipe": (["svd", "{f}/pipe.ckpt"], "pipe.ckpt: a pipe; give a regular file"),
    "device": (["dynamicrafter", "/dev/zero"], "/dev/zero: a device; give a regular file"),
    "deep configuration": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--config", "{f}/deep.yaml"],
        "deep.yaml: no YAML file that is read: nested too deeply",
    ),
    "endless configuration": (
        ["dynamicrafter", "{f}/dynamicrafter.ckpt", "--config", "/dev/zero"],
        "/dev/zero: a device; give a regular file",
    ),
    "not svd": (["svd", "{f}/dynamicrafter.ckpt"], "not a UNet of Stable Video Diffusion"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_converted_is_said_in_a_line(case: str, files: Path, tmp_path: Path, unleak: Any) -> None:
    arguments, message = BAD[case]
    family, source, *options = (argument.format(f=files) for argument in arguments)
    result = unleak("convert", family, source, tmp_path / "out", *options)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
