"""The nodes that measure: the motion of a video, the moments of a model's latents. Needs ComfyUI (`comfy_api`)."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from unleak.comfyui.gather import clips_of_batch, clips_of_folder, gather
from unleak.comfyui.nodes.choices import FOLDER, chosen
from unleak.core.moments import LatentMoments, MomentsMeta

__all__ = ["MomentsNode", "MotionScoreNode"]

_EXISTING = ("refuse", "add", "replace")


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
        moved = f"{score.value / pairs:.2f} px between frames ({pairs} pairs, {score.estimator})"
        text = f"motion score {score.value:.1f}: {moved}"
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
        chosen("existing", existing, _EXISTING)
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
