"""A folder as VBench-I2V reads it: videos named after their prompts, and the list of them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from unleak.data.atomic import folder_written_whole

__all__ = ["vbench_layout"]

DIMENSIONS = ("i2v_subject", "i2v_background", "camera_motion", "subject_consistency", "background_consistency",
              "motion_smoothness", "dynamic_degree", "aesthetic_quality", "imaging_quality")  # fmt: skip


def vbench_layout(
    videos: Sequence[Path], prompts: Sequence[str], folder: Path, *, images: Sequence[Path | None] | None = None
) -> Path:
    """Copy `videos` to `folder`/videos/PROMPT-INDEX.mp4, images to `folder`/images/PROMPT.EXT, with a full_info.json.

    Videos of one prompt are numbered in their order; VBench-I2V asks for five of each. `folder` is made, and must not
    exist. Raises ValueError for a prompt that can name no file, and for videos that are no MP4.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; choose another folder to export to")
    for video, prompt in zip(videos, prompts, strict=True):
        if not prompt.strip() or "/" in prompt or "\0" in prompt or len(prompt.encode()) > 200:
            raise ValueError(f"{video}: its prompt {prompt[:60]!r} can name no file, as VBench has it; shorten it")
        if video.suffix.lower() != ".mp4":
            raise ValueError(f"{video}: VBench reads MP4 files; write the videos as such")
    info: dict[str, dict[str, object]] = {}
    with folder_written_whole(folder) as temporary:
        for name in ("videos", "images"):
            (temporary / name).mkdir()
        numbers: dict[str, int] = {}
        for k, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
            number = numbers.get(prompt, 0)
            numbers[prompt] = number + 1
            shutil.copyfile(video, temporary / "videos" / f"{prompt}-{number}.mp4")
            image = images[k] if images else None
            entry = info.setdefault(prompt, {"prompt_en": prompt, "dimension": list(DIMENSIONS)})
            if image is not None and "image_name" not in entry:
                entry["image_name"] = f"{prompt}{image.suffix.lower()}"
                shutil.copyfile(image, temporary / "images" / str(entry["image_name"]))
        (temporary / "full_info.json").write_text(json.dumps(list(info.values()), indent=2) + "\n", encoding="utf-8")
    return folder
