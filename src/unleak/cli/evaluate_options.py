"""The options of `unleak evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unleak.cli.options import BASIC, MEMORY, Group, number, option, to_size, to_text, whole
from unleak.cli.studies import Spoken

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.study.evaluate.networks import Networks

__all__ = ["Estimators", "EvaluateOutput", "Measured", "Packages"]


@dataclass(frozen=True)
class Measured(Group):
    """What is measured, and how videos are read."""

    panel = BASIC

    videos: Annotated[
        list[str] | None, option("SOURCE", "Folder, file or pattern of videos to measure; repeatable.")
    ] = None
    reference: Annotated[
        list[str] | None, option("SOURCE", "Real videos to compare with, given the same way; repeatable.")
    ] = None
    images: Annotated[
        Path | None,
        option("FOLDER", "The photo that each video was made of, by the name of the video without its ending."),
    ] = None
    prompts: Annotated[
        Path | None, option("FILE", "A list as for `unleak generate`, JSON {name: prompt}, or a file of lines.")
    ] = None
    target_motion: Annotated[
        str | None, option("SCORE|FILE", "Motion score that was asked for, or JSON {name: score}: MS-Err.")
    ] = None
    preset: Annotated[
        Literal["ucf101"] | None, option(None, "The paper's: 16 frames at 3 Hz, 2,048 and 10,000 samples.")
    ] = None
    num_frames: Annotated[
        int | None, option("N", "Number of frames to take of each video.", parse=whole(2, 10_000))
    ] = None
    fps: Annotated[float | None, option("HZ", "Rate at which to take them.", parse=number(0.1, 240))] = None
    size: Annotated[
        "tuple[int, int] | None", option("WxH", "Scale and crop the videos to this size first.", parse=to_size)
    ] = None
    metrics: Annotated[
        str | None, option("NAME,...", "Measure these only, such as motion_score,flicker.", parse=to_text)
    ] = None
    extend: Annotated[
        list[Path] | None, option("FILE", "A Python file that registers metrics of your own; it is run. Repeatable.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return these options as arguments of `unleak.evaluate`."""
        return {
            "videos": self.videos or (),
            "reference": self.reference or (),
            "images": self.images,
            "prompts": self.prompts,
            "target_motion": self.target_motion,
            "preset": self.preset,
            "num_frames": self.num_frames,
            "fps": self.fps,
            "size": self.size and (self.size[1], self.size[0]),
            "metrics": self.metrics and [one.strip() for one in self.metrics.split(",") if one.strip()],
        }


@dataclass(frozen=True)
class Estimators(Group):
    """The networks that measure."""

    panel = "Estimators"

    flow: Annotated[str, option("NAME|FILE", "dis, raft, or a file with the weights of RAFT.", parse=to_text)] = "dis"
    features: Annotated[
        str | None,
        option("SOURCE", "CLIP or DINO: folder or Hub id, such as openai/clip-vit-base-patch32.", parse=to_text),
    ] = None
    i3d: Annotated[Path | None, option("FILE", "i3d_torchscript.pt: FVD.")] = None
    i3d_sha256: Annotated[
        str | None,
        option("HASH", "SHA-256 of another file in its place, a program; then the distance is not called FVD."),
    ] = None
    c3d: Annotated[Path | None, option("FILE", "C3D as torchscript, with --c3d-sha256: IS.")] = None
    c3d_sha256: Annotated[str | None, option("HASH", "SHA-256 of that file: it is a program.")] = None
    videomae: Annotated[
        str | None, option("SOURCE", "VideoMAE: folder or Hub id; a Frechet distance.", parse=to_text)
    ] = None
    device: Annotated[
        str | None,
        option("NAME", "cpu, cuda, cuda:1 or mps; by default the accelerator, if there is one.", panel=MEMORY),
    ] = None

    def networks(self, packages: "Packages") -> "Networks":
        """Return the networks as `unleak.evaluate` takes them."""
        from unleak.study.evaluate.networks import Networks

        named = ("flow", "features", "i3d", "i3d_sha256", "c3d", "c3d_sha256", "videomae")
        return Networks(
            **{name: getattr(self, name) for name in named},
            cd_fvd=tuple(packages.cd_fvd or ()),
            torch_fidelity=packages.torch_fidelity,
            vbench=packages.vbench,
            vbench_python=packages.vbench_python,
        )


@dataclass(frozen=True)
class Packages(Group):
    """Other packages that measure, where they are installed."""

    panel = "Other packages"

    cd_fvd: Annotated[
        list[str] | None,
        option("MODEL=FILE", "i3d or videomae and its weights: a distance by cd-fvd; repeatable."),
    ] = None
    torch_fidelity: Annotated[
        Path | None, option("FILE", "Inception's weights: FID, KID, ... of frames by torch-fidelity.")
    ] = None
    vbench: Annotated[
        str | None, option("DIMENSION,...", "dynamic_degree, i2v_subject, ... by vbench.", parse=to_text)
    ] = None
    vbench_python: Annotated[
        Path | None, option("FILE", "Python of the environment that has vbench; by default this one.")
    ] = None


@dataclass(frozen=True)
class EvaluateOutput(Spoken):
    """Where the results go."""

    out: Annotated[
        Path, option("FOLDER", "Folder for the page, the table and the JSON file; a stopped run goes on there.")
    ] = Path("out/evaluation")
    overwrite: Annotated[bool, option("", "Forget what an earlier run measured.", "--overwrite")] = False
    export: Annotated[Path | None, option("FOLDER", "Lay the videos out as VBench-I2V reads them, by --prompts.")] = (
        None
    )
    prepare: Annotated[
        Path | None,
        option("FOLDER", "With the preset: write photos and a list for `unleak generate`, and no more."),
    ] = None
