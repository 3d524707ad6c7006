"""The tiny pipelines that command lines are tried on: built as a folder, and the options that make them small."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from tests.tiny.animate_anything import tiny_animate_anything
from tests.tiny.lvdm import build_dynamicrafter, build_videocrafter1
from tests.tiny.svd import tiny_svd
from tests.tiny.text import CLIP_DIM, t5, words

__all__ = ["FOLDERS", "Folder", "save"]


@dataclass(frozen=True)
class Folder:
    """A pipeline that a command can be given, with every part it needs."""

    build: Callable[[], Any]
    size: tuple[int, int] = (32, 16)
    """Width and height in pixels."""
    frames: int = 5
    options: tuple[str, ...] = ()
    """More that a command which makes videos needs."""
    prompt: bool = True
    view: bool = True
    """Whether the family has a view, which statistics, diagnosis and training stand on."""
    trains: bool = True


def _pia() -> Any:
    from tests.tiny.sd15 import TINY

    (tiny,) = (tiny for tiny in TINY if tiny.name == "pia")
    return tiny.build()


def _wan() -> Any:
    from tests.train.tiny_wan import tiny_wan

    return tiny_wan("2.2")


def _ltx() -> Any:
    from tests.train.tiny_ltx import tiny_ltx

    return tiny_ltx()


def _cogvideox() -> Any:
    from tests.tiny.cogvideox import TINY

    pipe = next(tiny for tiny in TINY if tiny.name == "cogvideox-ddim").build()
    pipe.register_modules(tokenizer=words(), text_encoder=t5().eval())
    return pipe


def _hunyuan() -> Any:
    from tests.tiny.hunyuan import TINY

    pipe = next(tiny for tiny in TINY if tiny.name == "hunyuan-skyreels").build()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    llama = LlamaModel(LlamaConfig(vocab_size=8, **sizes)).eval()
    pipe.register_modules(tokenizer=words(max_length=512), text_encoder=llama)
    sizes = {"hidden_size": CLIP_DIM, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    pooled = CLIPTextModel(CLIPTextConfig(vocab_size=8, max_position_embeddings=77, **sizes, **ids)).eval()
    pipe.register_modules(tokenizer_2=words(max_length=77), text_encoder_2=pooled)
    return pipe


FOLDERS = {
    "dynamicrafter": Folder(build_dynamicrafter, (24, 16), 4),
    "videocrafter1": Folder(build_videocrafter1, (24, 16), 4),
    "svd": Folder(tiny_svd, frames=3, prompt=False),
    "animate-anything": Folder(tiny_animate_anything, (24, 16), 3, trains=False),
    "pia": Folder(_pia, (24, 16), 3, trains=False),
    "wan": Folder(_wan, options=("--set", "max_sequence_length=8")),
    "ltx": Folder(_ltx, (64, 32), options=("--set", "max_sequence_length=8")),
    "cogvideox": Folder(_cogvideox, (16, 32), 9, options=("--set", "max_sequence_length=8"), view=False, trains=False),
    "hunyuan": Folder(_hunyuan, frames=9, view=False, trains=False),
}


def save(name: str, folder: Path) -> Path:
    """Write a pipeline with `save_pretrained`."""
    FOLDERS[name].build().save_pretrained(folder)
    return folder
