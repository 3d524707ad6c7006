"""AnyFlow, distilled to any number of steps, chunk after chunk."""

from typing import Any

from diffusers import AnyFlowFARPipeline, AnyFlowFARTransformer3DModel, FlowMapEulerDiscreteScheduler
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, seeded
from tests.tiny.text import T5_DIM, umt5, words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


@seeded
def _build_anyflow() -> AnyFlowFARPipeline:
    transformer = AnyFlowFARTransformer3DModel(
        in_channels=16,
        compressed_patch_size=(1, 4, 4),
        full_chunk_limit=3,
        rope_max_seq_len=32,
        gate_value=0.25,
        num_attention_heads=2,
        attention_head_dim=12,
        out_channels=16,
        text_dim=T5_DIM,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
    )
    return AnyFlowFARPipeline(
        tokenizer=words(),
        text_encoder=umt5(),
        transformer=transformer,
        vae=wan_vae(),
        scheduler=FlowMapEulerDiscreteScheduler(shift=5.0),
    )


def _call_anyflow(pipe: Any, **changes: Any) -> Tensor:
    # The image is a video of one frame, and the first of three chunks.
    settings = {
        "prompt": "a dog runs",
        "video": embeds(1, 1, 3, 32, 64).sigmoid(),
        "height": 32,
        "width": 64,
        "num_frames": 17,
        "num_inference_steps": 4,
        "chunk_partition": [1, 2, 2],
        "max_sequence_length": 8,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


TINY = [Tiny("anyflow-far", _build_anyflow, _call_anyflow, pair=lambda: {"prompt": ["a dog runs", "a dog"]})]
