"""The paper's protocol on UCF101: what is asked of the model, and which real clips its videos are compared with."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from unleak.data.atomic import written_whole
from unleak.data.image import MediaError
from unleak.data.video import read_video, video_duration

__all__ = ["LIST", "PHOTOS", "category", "long_enough", "prepare", "shuffled"]

LIST, PHOTOS = "list.jsonl", "photos"

_NAME = re.compile(r"v_([A-Za-z]+)_g[0-9]+_c[0-9]+")


def category(video: Path) -> str:
    """What happens in a clip, in words: `v_ApplyEyeMakeup_g01_c01.avi` shows "apply eye makeup".

    Where the folder and the file write the class in two ways (HandstandPushups), the folder has it as the official list
    of classes does. Raises MediaError for a file that is not named as those of UCF101 are.
    """
    match = _NAME.fullmatch(video.stem)
    if match is None:
        raise MediaError(f"{video}: not named as clips of UCF101 are, such as v_ApplyEyeMakeup_g01_c01.avi")
    name = video.parent.name if video.parent.name.lower() == match[1].lower() else match[1]
    return " ".join(re.findall(r"[A-Z][a-z]*|[a-z]+", name)).lower()


def shuffled(videos: Iterable[Path]) -> list[Path]:
    """In an order that depends on their names alone, so that the first ones are of all categories, on any machine."""
    return sorted(videos, key=lambda video: (hashlib.sha256(video.stem.encode()).digest(), video))


def long_enough(videos: Sequence[Path], *, seconds: float, most: int | None) -> tuple[list[Path], int]:
    """The first `most` of `videos` that last `seconds`, and how many before them were shorter.

    Those whose header cannot be read, or does not say, are among them: reading them tells.
    """
    found, shorter = list[Path](), 0
    for video in videos:
        if len(found) == most:
            break
        try:
            duration = video_duration(video)
        except MediaError:
            duration = None
        if duration is not None and duration < seconds - 1e-3:
            shorter += 1
        else:
            found.append(video)
    return found, shorter


def prepare(
    videos: Sequence[Path],
    folder: Path,
    *,
    on_photo: Callable[[], None] | None = None,
    on_skipped: Callable[[str], None] | None = None,
) -> Path:
    """Write the first frame of each of `videos` to `folder`/photos, and `folder`/list.jsonl for `unleak generate`.

    A line of the list has a photo, its category as the prompt, the clip's name as the video's, and a seed of its own:
    samples have to be independent. Photos that are there stay. `on_skipped` is told why a clip was left out. Returns
    the list's path; raises ValueError if no clip can be read.
    """
    lines = []
    for k, video in enumerate(videos):
        photo = folder / PHOTOS / f"{video.stem}.png"
        try:
            prompt = category(video)
            if not photo.exists():
                frame = read_video(video, num_frames=1).frames[0]
                with written_whole(photo) as temporary:
                    Image.fromarray(frame).save(temporary, "PNG")
        except MediaError as error:
            if on_skipped is not None:
                on_skipped(str(error))
        else:
            entry = {"dir": f"{PHOTOS}/{photo.name}", "text": prompt, "id": video.stem, "seed": k}
            lines.append(json.dumps(entry))
        if on_photo is not None:
            on_photo()
    if not lines:
        raise ValueError("none of the clips can be used; see the reasons above")
    with written_whole(folder / LIST) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / LIST
