"""Tokens that are kept on disk."""

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unleak.train.texts import Texts


def encode(captions):
    return torch.stack([torch.full((3, 2), float(len(caption))) for caption in captions])


def pipe(file):
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-4]),
    "empty": lambda file: file.write_bytes(b""),
    "other": lambda file: save_file({"other": torch.zeros(2, 3, 2)}, file),
    "short": lambda file: save_file({"tokens": torch.zeros(1, 3, 2)}, file),
    "flat": lambda file: save_file({"tokens": torch.zeros(2, 3)}, file),
    "pipe": pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tokens_are_one_line(tmp_path, damage):
    texts = Texts(encode, torch.device("cpu"))
    encoder = nn.Linear(1, 1)
    encoder.config = SimpleNamespace(to_dict=dict)
    texts.keep(tmp_path, ["rain"], encoder)
    torch.testing.assert_close(texts(["rain"]), encode(["", "rain"]))
    (file,) = tmp_path.rglob("*.safetensors")
    DAMAGES[damage](file)
    with pytest.raises(ValueError, match=r"safetensors is damaged; delete .* to have the captions encoded again$"):
        texts(["rain"])
