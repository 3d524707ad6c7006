"""LTX-Video with every part that training asks for, its text encoder too."""

from typing import Any

from diffusers import LTXConditionPipeline, LTXImageToVideoPipeline

from tests.tiny.ltx import _condition, _image_to_video
from tests.tiny.model import seeded
from tests.tiny.text import t5, words

__all__ = ["tiny_ltx"]


@seeded
def tiny_ltx(*, since_095: bool = False) -> LTXImageToVideoPipeline | LTXConditionPipeline:
    """Of the models since 0.9.5 the pipeline that takes conditions."""
    pipe: Any = _condition() if since_095 else _image_to_video()
    pipe.register_modules(text_encoder=t5(), tokenizer=words(max_length=128))
    return pipe
