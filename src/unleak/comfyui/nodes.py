"""ComfyUI's view of unleak: what each node takes, gives and says. Needs ComfyUI (`comfy_api`) to be imported."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io, ui

from unleak.attach.strategies.compress import Compress, compressed
from unleak.attach.strategies.condition_noise import ConditionNoise
from unleak.attach.strategies.guidance_interval import GuidanceInterval
from unleak.attach.strategies.low_pass import LowPass
from unleak.attach.strategies.motion_amplitude import MotionAmplitude
from unleak.attach.strategies.reference_bias import ReferenceBias
from unleak.comfyui.gather import clips_of_batch, clips_of_folder, gather
from unleak.comfyui.hooks import Plan, attach_start
from unleak.comfyui.motion import MOTIONS, starts_of
from unleak.comfyui.nano import latent_shape, load_nano, video_size, weights_folder
from unleak.comfyui.noise import INITS
from unleak.comfyui.sampling import MODES, Sampling, moved
from unleak.comfyui.strategies import (
    attach_condition_noise,
    attach_guidance_interval,
    attach_low_pass,
    attach_motion_amplitude,
    attach_reference_bias,
)
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.core.start import Start

__all__ = ["UnleakExtension"]

FOLDER = "unleak"
_START = (
    "Where sampling starts: 0.94T (a fraction), 940 (a timestep), sigma=0.9, logsnr=-5.3, step:1 (leave the first step"
    " out). 1.0T is full. Lower: more motion, less likeness to the image."
)
_MODE = (
    "What becomes of the steps above the start. rescale spaces all steps anew below it. truncate leaves them out."
    " auto rescales; with 8 steps or fewer of Wan, HunyuanVideo or LTX it leaves steps out, because few-step LoRAs know"
    " no other noise levels."
)


def _chosen(name: str, value: str, choices: Any) -> str:
    """Return `value`; ComfyUI's server does not check the choices of a combo."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown: choose {', '.join(choices)}.")
    return value


def _moments_files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")]


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
        if _chosen("motion", motion, MOTIONS) == "off":
            return io.NodeOutput(model)
        sampling = Sampling.of(model.get_model_object("model_sampling"))
        start = starts_of(model, sampling)[motion]
        return io.NodeOutput(attach_start(model, Plan(start, mode="nearest")))


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
                    options=["none", *_moments_files()],
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
        how: Any = _chosen("mode", mode, MODES)
        _chosen("init", init, INITS)
        held = None
        if _chosen("moments", moments, ["none", *_moments_files()]) != "none" and init == "analytic":
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
        how: Any = _chosen("mode", mode, MODES)
        sampling = Sampling.of(model.get_model_object("model_sampling"))
        parsed = Start.parse(start)
        if len(sigmas) < 2:
            return io.NodeOutput(sigmas)
        result = moved(sigmas, parsed, how, sampling)
        return io.NodeOutput(result.sigmas, ui=ui.PreviewText("; ".join(result.remarks)) if result.remarks else None)


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
                io.Float.Input(
                    "share",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of this sampler's steps, from the first on, in which it acts; the authors use 0.04"
                    " to 0.2.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this fix.")],
        )

    @classmethod
    def execute(cls, model: Any, factor: float, share: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach_low_pass(model, LowPass(factor, (0.0, share))))


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
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of this sampler's steps, from the first on, in which it acts.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, tooltip="Seed of this noise alone."),
            ],
            outputs=[io.Model.Output(tooltip="The model with this fix.")],
        )

    @classmethod
    def execute(cls, model: Any, beta: float, share: float, seed: int) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach_condition_noise(model, ConditionNoise(beta, (0.0, share), seed)))


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
                io.Float.Input(
                    "share",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of this sampler's steps, from the first on, in which it acts.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this fix.")],
        )

    @classmethod
    def execute(cls, model: Any, gamma: float, share: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach_reference_bias(model, ReferenceBias(gamma, share)))


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
            outputs=[io.Model.Output(tooltip="The model with this fix.")],
        )

    @classmethod
    def execute(cls, model: Any, amount: float) -> io.NodeOutput:
        """Attach the fix."""
        return io.NodeOutput(attach_motion_amplitude(model, MotionAmplitude(amount)))


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
            outputs=[io.Model.Output(tooltip="The model with this fix.")],
        )

    @classmethod
    def execute(cls, model: Any, low: str, high: str) -> io.NodeOutput:
        """Attach the fix."""
        strategy = GuidanceInterval(high=high.strip() or None, low=low.strip() or None)
        return io.NodeOutput(attach_guidance_interval(model, strategy))


class MotionScoreNode(io.ComfyNode):
    """unleak Motion Score."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakMotionScore",
            display_name="unleak Motion Score",
            category="unleak/measure",
            description="Measures how much a video moves: optical flow between frames, in pixels at 800x450, summed. It"
            " needs OpenCV (pip install opencv-python-headless).",
            is_output_node=True,
            inputs=[io.Image.Input("image", tooltip="The frames of one video, in order, two or more.")],
            outputs=[
                io.Float.Output(
                    display_name="score", tooltip="The motion score of the paper: the sum over pairs of frames."
                ),
                io.String.Output(display_name="text", tooltip="The score in words."),
            ],
        )

    @classmethod
    def execute(cls, image: Any) -> io.NodeOutput:
        """Measure."""
        from unleak.measure.motion import motion_score

        if len(image) < 2:
            raise ValueError("one frame does not move: give the frames of a video, two or more.")
        try:
            score = motion_score((image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
        except ModuleNotFoundError as error:
            raise ValueError(f"unleak Motion Score needs {error.name}: pip install opencv-python-headless") from None
        pairs = len(score.per_pair)
        text = f"motion score {score.value:.1f}: {score.value / pairs:.2f} px between frames ({pairs} pairs,"
        f" {score.estimator})"
        return io.NodeOutput(score.value, text, ui=ui.PreviewText(text))


class MomentsNode(io.ComfyNode):
    """unleak Moments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="UnleakMoments",
            display_name="unleak Moments",
            category="unleak/measure",
            description="Gathers the moments of a model's latents over videos and saves them in models/unleak, for init"
            " analytic of unleak Start. One video is in memory at a time.",
            is_output_node=True,
            not_idempotent=True,
            inputs=[
                io.Model.Input("model", tooltip="The model whose latents these are: it says how it scales them."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.String.Input(
                    "name", default="moments", tooltip="Name of the file in models/unleak, without ending."
                ),
                io.Int.Input("num_frames", default=25, min=1, max=4096, tooltip="Frames of each video."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder of videos inside ComfyUI's input folder; empty: images is used.",
                ),
                io.Int.Input(
                    "width", default=832, min=16, max=16384, step=8, tooltip="Width for videos of the folder, pixels."
                ),
                io.Int.Input(
                    "height", default=480, min=16, max=16384, step=8, tooltip="Height for videos of the folder, pixels."
                ),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, tooltip="Frames a second to take; 0: every frame."
                ),
                io.Combo.Input(
                    "existing",
                    options=list(_EXISTING),
                    default="refuse",
                    tooltip="What to do with a file of that name: refuse, add to it (of the same model and size), or"
                    " replace it.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Frames of one or more videos, one video after the other, num_frames each.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Name of the file, as unleak Start lists it.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        name: str,
        num_frames: int,
        folder: str,
        width: int,
        height: int,
        fps: float,
        existing: str,
        images: Any = None,
    ) -> io.NodeOutput:
        """Gather and save."""
        path = _moments_path(name)
        _chosen("existing", existing, _EXISTING)
        if path.exists() and existing == "refuse":
            raise ValueError(
                f"models/unleak has a {path.name} already: choose another name, or add to it, or replace it."
            )
        if (images is None) == (not folder.strip()):
            raise ValueError("give either images or a folder inside ComfyUI's input folder, not both and not neither.")
        skipped: list[str] = []
        if images is not None:
            height, width = images.shape[1:3]
            clips = clips_of_batch(images, num_frames)
            source = "images"
        else:
            clips = clips_of_folder(
                _input_folder(folder), num_frames, height=height, width=width, fps=fps, skipped=skipped
            )
            source = folder.strip()
        before = LatentMoments.load(path) if path.exists() and existing == "add" else None
        meta = MomentsMeta(type(model.model).__name__, "", fps or None, height, width, source)
        moments = gather(model, vae, clips, meta, before)
        moments.save(path)
        text = f"{path.name}: {moments.count} clips of {list(moments.shape)} [c, f, h, w]"
        return io.NodeOutput(
            path.name, ui=ui.PreviewText("\n".join([text, *(f"left out: {reason}" for reason in skipped)]))
        )


_EXISTING = ("refuse", "add", "replace")


def _moments_path(name: str) -> Path:
    """Return the file in models/unleak; ValueError for a name that would lie elsewhere."""
    stem = name.strip().removesuffix(".safetensors")
    if not stem or Path(stem).name != stem or stem.startswith("."):
        raise ValueError(f"name {name!r} is no plain file name: give one such as wan-480p.")
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{stem}.safetensors"


def _input_folder(name: str) -> Path:
    """Return a folder inside ComfyUI's input folder; ValueError for any other."""
    root = Path(folder_paths.get_input_directory()).resolve()
    folder = (root / name.strip()).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise ValueError(f"folder {name!r} is not a folder inside ComfyUI's input folder ({root}).")
    return folder


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


class UnleakExtension(ComfyExtension):
    """The nodes of unleak."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return them, in the order of the menu, and make models/unleak a folder that ComfyUI lists."""
        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
        return [
            Motion,
            StartNode,
            StartSigmas,
            Nano,
            LowPassNode,
            ConditionNoiseNode,
            GuidanceIntervalNode,
            MotionAmplitudeNode,
            ReferenceBiasNode,
            CompressNode,
            MotionScoreNode,
            MomentsNode,
        ]
