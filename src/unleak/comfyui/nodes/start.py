"""The nodes that start sampling lower, and nano, which they can be tried on. Needs ComfyUI (`comfy_api`)."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from unleak.comfyui.hooks import Plan, attach_start
from unleak.comfyui.motion import MOTIONS, plan_of
from unleak.comfyui.nano import latent_shape, load_nano, video_size, weights_folder
from unleak.comfyui.nodes.choices import FOLDER, chosen, moments_files
from unleak.comfyui.noise import INITS
from unleak.comfyui.sampling import MODES, Sampling, moved
from unleak.core.moments import LatentMoments
from unleak.core.start import Start

__all__ = ["Motion", "Nano", "StartNode", "StartSigmas"]

_START = (
    "Where sampling starts: 0.94T (a fraction), 940 (a timestep), sigma=0.9, logsnr=-5.3, step:1 (leave the first step"
    " out). 1.0T is full. Lower: more motion, less likeness to the image."
)
_MODE = (
    "What becomes of the steps above the start. rescale spaces all steps anew below it. truncate leaves them out."
    " auto rescales; with 8 steps or fewer of Wan, HunyuanVideo or LTX it leaves steps out, because few-step LoRAs know"
    " no other noise levels."
)


class Motion(io.ComfyNode):
    """unleak Motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakMotion",
            display_name="unleak Motion",
            category="unleak",
            description="Makes an image-to-video model move more. Put it between the model loader (and its LoRAs) and"
            " the sampler; with two experts, on the high-noise one.",
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model: Wan, HunyuanVideo, LTX, SVD, Cosmos, nano."),
                io.Combo.Input(
                    "motion",
                    options=list(MOTIONS),
                    default="medium",
                    tooltip="How much motion. off leaves the model exactly as it is; high costs some likeness to the"
                    " image.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, which now starts lower; the loaded one is not changed.")],
        )

    @classmethod
    def execute(cls, model: Any, motion: str) -> io.NodeOutput:
        """Attach the preset."""
        if chosen("motion", motion, MOTIONS) == "off":
            return io.NodeOutput(model)
        return io.NodeOutput(attach_start(model, plan_of(model, motion)))


class StartNode(io.ComfyNode):
    """unleak Start."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakStart",
            display_name="unleak Start",
            category="unleak",
            description="Starts sampling at a lower noise level, from noise that fits that level (arXiv 2406.15735).",
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model; with two experts, the high-noise one."),
                io.String.Input("start", default="0.94T", tooltip=_START),
                io.Combo.Input("mode", options=list(MODES), default="auto", tooltip=_MODE),
                io.Combo.Input(
                    "init",
                    options=list(INITS),
                    default="unit",
                    tooltip="The noise that sampling starts from: unit is right for latents of variance 1; standard is"
                    " that of a full start; analytic fits the moments below.",
                ),
                io.Combo.Input(
                    "moments",
                    options=["none", *moments_files()],
                    default="none",
                    tooltip="Moments of this model's latents, from models/unleak, for init analytic: made by `unleak"
                    " stats` or by the node unleak Moments.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, which now starts there; the loaded one is not changed.")],
        )

    @classmethod
    def fingerprint_inputs(cls, moments: str = "none", **inputs: Any) -> Any:
        """Run again when the moments file has changed."""
        del inputs
        path = folder_paths.get_full_path(FOLDER, moments) if isinstance(moments, str) and moments != "none" else None
        return Path(path).stat().st_mtime_ns if path else 0

    @classmethod
    def execute(cls, model: Any, start: str, mode: str, init: str, moments: str = "none") -> io.NodeOutput:
        """Attach the start."""
        how: Any = chosen("mode", mode, MODES)
        chosen("init", init, INITS)
        held = None
        if chosen("moments", moments, ["none", *moments_files()]) != "none" and init == "analytic":
            held = LatentMoments.load(folder_paths.get_full_path_or_raise(FOLDER, moments))
        return io.NodeOutput(attach_start(model, Plan(Start.parse(start), how, init, held)))


class StartSigmas(io.ComfyNode):
    """unleak Start Sigmas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakStartSigmas",
            display_name="unleak Start Sigmas",
            category="unleak",
            description="Moves the sigmas of a scheduler to a lower start, for samplers that take SIGMAS, those of"
            " other packs included. The noise is not changed: add unleak Start where the sampler takes a MODEL.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the sigmas are for."),
                io.Sigmas.Input("sigmas", tooltip="The sigmas of any scheduler."),
                io.String.Input("start", default="0.94T", tooltip=_START),
                io.Combo.Input("mode", options=list(MODES), default="auto", tooltip=_MODE),
            ],
            outputs=[io.Sigmas.Output(tooltip="The sigmas from the start down.")],
        )

    @classmethod
    def execute(cls, model: Any, sigmas: Any, start: str, mode: str) -> io.NodeOutput:
        """Move the sigmas."""
        how: Any = chosen("mode", mode, MODES)
        sampling = Sampling.of(model.get_model_object("model_sampling"))
        parsed = Start.parse(start)
        if len(sigmas) < 2:
            return io.NodeOutput(sigmas)
        result = moved(sigmas, parsed, how, sampling)
        return io.NodeOutput(result.sigmas, ui=ui.PreviewText("; ".join(result.remarks)) if result.remarks else None)


class Nano(io.ComfyNode):
    """unleak Nano."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakNano",
            display_name="unleak Nano Model",
            category="unleak",
            description="Loads the tiny image-to-video model that comes with unleak, of the kind of SVD: it makes small"
            " videos in seconds on a CPU, and shows what a start does.",
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="For unleak Motion and a sampler."),
                io.ClipVision.Output(tooltip="For SVD_img2vid_Conditioning."),
                io.Vae.Output(tooltip="For SVD_img2vid_Conditioning and VAE Decode."),
                io.Latent.Output(
                    tooltip="An empty video of the size and length that nano was trained on, for the sampler."
                ),
                io.Int.Output(display_name="width", tooltip="Width of nano's videos, pixels."),
                io.Int.Output(display_name="height", tooltip="Height of nano's videos, pixels."),
                io.Int.Output(display_name="num_frames", tooltip="Number of frames of nano's videos."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load it."""
        folder = weights_folder()
        empty = {"samples": torch.zeros(latent_shape(folder))}
        return io.NodeOutput(*load_nano(), empty, *video_size(folder))
