"""The nodes of the fixes beside a start. Needs ComfyUI (`comfy_api`)."""

from typing import Any

import torch
from comfy_api.latest import io

from unleak.attach.strategies.compress import Compress, compressed
from unleak.attach.strategies.condition_noise import ConditionNoise
from unleak.attach.strategies.guidance_interval import GuidanceInterval
from unleak.attach.strategies.low_pass import LowPass
from unleak.attach.strategies.motion_amplitude import MotionAmplitude
from unleak.attach.strategies.reference_bias import ReferenceBias
from unleak.comfyui.strategies import attach

__all__ = [
    "CompressNode",
    "ConditionNoiseNode",
    "GuidanceIntervalNode",
    "LowPassNode",
    "MotionAmplitudeNode",
    "ReferenceBiasNode",
]


def _share(default: float, more: str = "") -> Any:
    """Return the input that says in which of the first steps a fix acts."""
    acts = f"Share of this sampler's steps, from the first on, in which it acts{more}."
    return io.Float.Input("share", default=default, min=0.0, max=1.0, step=0.01, tooltip=acts)


def _fixed() -> Any:
    """Return the output of every node that attaches a fix."""
    return io.Model.Output(tooltip="The model with this fix.")


class LowPassNode(io.ComfyNode):
    """unleak Low-Pass."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakLowPass",
            display_name="unleak Low-Pass",
            category="unleak/fixes",
            description="In the first steps the model sees the image without its fine detail (ALG, arXiv 2506.08456)."
            " For Wan, HunyuanVideo and SVD. With guidance, each of those steps takes half as long again.",
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model that takes the image beside the noise."),
                io.Float.Input(
                    "factor",
                    default=0.4,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip="Size that the image's latents shrink to before they are enlarged again; the authors use"
                    " 0.4 for Wan 2.1.",
                ),
                _share(0.2, "; the authors use 0.04 to 0.2"),
            ],
            outputs=[_fixed()],
        )

    @classmethod
    def execute(cls, model: Any, factor: float, share: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach(model, LowPass(factor, (0.0, share))))


class ConditionNoiseNode(io.ComfyNode):
    """unleak Condition Noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakConditionNoise",
            display_name="unleak Condition Noise",
            category="unleak/fixes",
            description="The model sees the image's latents with noise on them, so that it copies less. For Wan,"
            " HunyuanVideo and SVD.",
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model that takes the image beside the noise."),
                io.Float.Input(
                    "beta",
                    default=0.1,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Strength of the noise, in the units of the image's latents as the model sees them; 0:"
                    " none.",
                ),
                _share(1.0),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, tooltip="Seed of this noise alone."),
            ],
            outputs=[_fixed()],
        )

    @classmethod
    def execute(cls, model: Any, beta: float, share: float, seed: int) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach(model, ConditionNoise(beta, (0.0, share), seed)))


class ReferenceBiasNode(io.ComfyNode):
    """unleak Reference Bias."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakReferenceBias",
            display_name="unleak Reference Bias",
            category="unleak/fixes",
            description="In the first steps the model attends less to the image (DyMoS, arXiv 2605.19398). For Wan,"
            " HunyuanVideo and LTX; it costs next to no time.",
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model that is a transformer; not SVD."),
                io.Float.Input(
                    "gamma",
                    default=0.6,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How much less: the image's weight in the attention is multiplied by e^-gamma. 0 changes"
                    " nothing.",
                ),
                _share(0.2),
            ],
            outputs=[_fixed()],
        )

    @classmethod
    def execute(cls, model: Any, gamma: float, share: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach(model, ReferenceBias(gamma, share)))


class MotionAmplitudeNode(io.ComfyNode):
    """unleak Motion Amplitude."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakMotionAmplitude",
            display_name="unleak Motion Amplitude",
            category="unleak/fixes",
            description="Makes the blank frames after the image differ more from it (PainterI2V's idea). For Wan; the"
            " schedule stays, so it serves 4-step LoRAs.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Wan image-to-video model; with two experts, both or the high-noise one."
                ),
                io.Float.Input(
                    "amount",
                    default=1.15,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="1 changes nothing; 1.15 is usual; above some 1.2 colours drift.",
                ),
            ],
            outputs=[_fixed()],
        )

    @classmethod
    def execute(cls, model: Any, amount: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach(model, MotionAmplitude(amount)))


class CompressNode(io.ComfyNode):
    """unleak Compress."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakCompress",
            display_name="unleak Compress",
            category="unleak/fixes",
            description="Passes the image through H.264, as the frames of training videos were: models take a sharp"
            " photo for a still. Put it between Load Image and the node that takes the start image, at the size of the"
            " video.",
            inputs=[
                io.Image.Input("image", tooltip="The conditioning image, or several; each is compressed on its own."),
                io.Int.Input(
                    "crf",
                    default=33,
                    min=0,
                    max=51,
                    tooltip="Strength of the compression; 33 is what LTX-2 was trained with. 0 changes nothing. The LTX"
                    " nodes that compress by themselves (LTXVPreprocess) need no second time.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The image as a video codec leaves it, of the same size.")],
        )

    @classmethod
    def execute(cls, image: Any, crf: int) -> io.NodeOutput:
        """Compress."""
        Compress(crf)
        if crf == 0:
            return io.NodeOutput(image)
        frames = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        done = torch.stack([torch.from_numpy(compressed(frame, crf)) for frame in frames])
        return io.NodeOutput((done / 255).to(image))


class GuidanceIntervalNode(io.ComfyNode):
    """unleak Guidance Interval."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakGuidanceInterval",
            display_name="unleak Guidance Interval",
            category="unleak/fixes",
            description="Guidance only between two noise levels (arXiv 2404.07724); outside them the second evaluation"
            " is saved.",
            inputs=[
                io.Model.Input("model", tooltip="Any model that is sampled with guidance."),
                io.String.Input(
                    "low", default="", tooltip="No guidance at and below this level, such as 0.1T; empty: no limit."
                ),
                io.String.Input(
                    "high", default="0.9T", tooltip="No guidance above this level, such as 0.9T; empty: no limit."
                ),
            ],
            outputs=[_fixed()],
        )

    @classmethod
    def execute(cls, model: Any, low: str, high: str) -> io.NodeOutput:
        """Attach the fix."""
        strategy = GuidanceInterval(high=high.strip() or None, low=low.strip() or None)
        return io.NodeOutput(attach(model, strategy))
