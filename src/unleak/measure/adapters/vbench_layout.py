"""A folder as VBench-I2V reads it: videos named after their prompts, their photos where it looks, and the list."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from unleak.data.atomic import folder_written_whole

__all__ = ["CAMERA", "IMAGES", "INFO", "MOST", "VIDEOS", "vbench_layout"]

VIDEOS, INFO = "videos", "full_info.json"
IMAGES = "vbench2_beta_i2v/data/crop/1-1"
"""VBench-I2V looks for photos there, from the folder that it is run in; `1-1` is its default ratio."""
MOST = 5
"""Videos of a prompt that it reads."""
CAMERA = tuple(f"camera {move}" for move in ("pans left", "pans right", "tilts up", "tilts down", "zooms in",
                                             "zooms out", "static"))  # fmt: skip
"""What a prompt has to say for VBench's camera motion."""

_QUALITY = ("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
            "dynamic_degree", "aesthetic_quality", "imaging_quality")  # fmt: skip


def vbench_layout(
    videos: Sequence[Path], prompts: Sequence[str], folder: Path, *, images: Sequence[Path | None] | None = None
) -> Path:
    """Copy `videos` to `folder`/videos/PROMPT-INDEX.mp4 and photos to where `IMAGES` says, with a full_info.json.

    Videos of one prompt are numbered in their order; VBench-I2V asks for five of each, and reads no more. An entry of
    the list names the dimensions that can be measured of it: those of the photo where there is one, camera motion where
    the prompt says how the camera moves. `folder` is made, and must not exist. Raises ValueError for a prompt that can
    name no file, for videos that are no MP4, and for two photos of one prompt.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; choose another folder to export to")
    photos: dict[str, Path] = {}
    for k, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
        if not prompt.strip() or "/" in prompt or "\0" in prompt or len(prompt.encode()) > 200:
            raise ValueError(f"{video}: its prompt {prompt[:60]!r} can name no file, as VBench has it; shorten it")
        if video.suffix.lower() != ".mp4":
            raise ValueError(f"{video}: VBench reads MP4 files; write the videos as such")
        photo = images[k] if images else None
        if photo is not None and not _same(photos.setdefault(prompt, photo), photo):
            raise ValueError(f"{video}: VBench has one photo for a prompt, and {prompt[:60]!r} comes with two")
    info: dict[str, dict[str, object]] = {}
    with folder_written_whole(folder) as temporary:
        for name in (VIDEOS, IMAGES):
            (temporary / name).mkdir(parents=True)
        numbers: dict[str, int] = {}
        for video, prompt in zip(videos, prompts, strict=True):
            number = numbers.get(prompt, 0)
            numbers[prompt] = number + 1
            shutil.copyfile(video, temporary / VIDEOS / f"{prompt}-{number}.mp4")
            if prompt in info:
                continue
            image = photos.get(prompt)
            seen = [] if image is None else ["i2v_subject", "i2v_background"]
            told = ["camera_motion"] if any(move in prompt for move in CAMERA) else []
            info[prompt] = {"prompt_en": prompt, "dimension": [*seen, *told, *_QUALITY]}
            if image is not None:
                info[prompt]["image_name"] = f"{prompt}{image.suffix.lower()}"
                shutil.copyfile(image, temporary / IMAGES / f"{prompt}{image.suffix.lower()}")
        (temporary / INFO).write_text(json.dumps(list(info.values()), indent=2) + "\n", encoding="utf-8")
    return folder


def _same(a: Path, b: Path) -> bool:
    return a == b or a.read_bytes() == b.read_bytes()
