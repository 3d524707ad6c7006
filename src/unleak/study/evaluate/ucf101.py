"""The paper's protocol on UCF101: the photos and prompts for the model, and the real clips to compare with."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from unleak.data.atomic import check_writable, written_whole
from unleak.data.folder import find_videos
from unleak.data.image import MediaError
from unleak.data.video import read_video, video_duration
from unleak.study.evaluate.videos import UCF101
from unleak.study.listener import Listener

__all__ = ["LIST", "PHOTOS", "category", "long_enough", "prepare", "prepare_dataset", "shuffled"]

LIST, PHOTOS = "list.jsonl", "photos"

_NAME = re.compile(r"v_([A-Za-z]+)_g[0-9]+_c[0-9]+")


def category(video: Path) -> str:
    """Return what happens in a clip, in words: `v_ApplyEyeMakeup_g01_c01.avi` shows "apply eye makeup".

    Where the folder and the file spell the class differently (HandstandPushups), the folder follows the official list
    of classes. Raises MediaError for a file that is not named like those of UCF101.
    """
    match = _NAME.fullmatch(video.stem)
    if match is None:
        raise MediaError(f"{video}: not named as clips of UCF101 are, such as v_ApplyEyeMakeup_g01_c01.avi")
    name = video.parent.name if video.parent.name.lower() == match[1].lower() else match[1]
    return " ".join(re.findall(r"[A-Z][a-z]*|[a-z]+", name)).lower()


def shuffled(videos: Iterable[Path]) -> list[Path]:
    """Return the videos in an order that depends on their names alone: the first ones have all classes anywhere."""
    return sorted(videos, key=lambda video: (hashlib.sha256(video.stem.encode()).digest(), video))


def long_enough(videos: Sequence[Path], *, seconds: float, most: int | None) -> tuple[list[Path], int]:
    """Return the first `most` of `videos` that last `seconds`, and how many shorter ones were passed over.

    A video whose header cannot be read, or does not say how long it is, is kept: reading it will tell.
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
    """Write the first frame of each video to `folder`/photos, and `folder`/list.jsonl for `unleak generate`.

    A line of the list has a photo, its category as the prompt, the name of the clip as the name of the video, and a
    seed of its own, because samples have to be independent. Photos that exist already are kept. `on_skipped` hears why
    a clip was left out. Returns the path of the list; raises ValueError if no clip can be read.
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


def prepare_dataset(
    reference: Sequence[str | Path], folder: Path, *, listener: Listener
) -> tuple[Path, int, list[str]]:
    """Prepare as many clips of the dataset `reference` as the protocol asks for (`prepare`).

    Returns the path of the list, the number of photos, and why clips were left out, which `listener` hears too. Raises
    ValueError, before anything is written, for a folder that cannot be written to or that holds no clips of UCF101.
    """
    chosen = shuffled(find_videos(reference))[: UCF101.inception_samples]
    category(chosen[0])
    check_writable(folder)
    failed, done = list[str](), 0

    def skip(reason: str) -> None:
        failed.append(reason)
        listener.failure(f"skipped {reason}")

    def advance() -> None:
        nonlocal done
        done += 1
        listener.progress(done, len(chosen), "photos")

    listener.progress(0, len(chosen), "photos")
    made = prepare(chosen, folder, on_photo=advance, on_skipped=skip)
    return made, len(chosen) - len(failed), failed
