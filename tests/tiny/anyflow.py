"""AnyFlow, distilled to any number of steps: the whole video at once, or chunk after chunk."""

from functools import partial
from typing import Any

from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
)
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, seeded
from tests.tiny.text import T5_DIM, umt5, words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


@seeded
def _build(pipeline: type, transformer: type, **config: Any) -> Any:
    return pipeline(
        tokenizer=words(),
        text_encoder=umt5(),
        transformer=transformer(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=T5_DIM,
            freq_dim=16,
            ffn_dim=16,
            num_layers=2,
            rope_max_seq_len=32,
            **config,
        ),
        vae=wan_vae(),
        scheduler=FlowMapEulerDiscreteScheduler(shift=5.0),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    # The image is a video of one frame.
    settings = {
        "prompt": "a dog runs",
        "video": embeds(1, 1, 3, 32, 64).sigmoid(),
        "height": 32,
        "width": 64,
        "num_frames": 17,
        "num_inference_steps": 4,
        "max_sequence_length": 8,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _call_far(pipe: Any, **changes: Any) -> Tensor:
    # The image is the first chunk, two more are made.
    return _call(pipe, **{"chunk_partition": [1, 2, 2]} | changes)


def _pair() -> dict[str, Any]:
    return {"prompt": ["a dog runs", "a dog"]}


_whole = partial(_build, AnyFlowPipeline, AnyFlowTransformer3DModel)
_far = partial(
    _build, AnyFlowFARPipeline, AnyFlowFARTransformer3DModel, compressed_patch_size=(1, 4, 4), full_chunk_limit=3
)

TINY = [Tiny("anyflow", _whole, _call, pair=_pair), Tiny("anyflow-far", _far, _call_far, pair=_pair)]
