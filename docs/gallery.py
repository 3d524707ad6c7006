"""The pictures of docs/gallery.md, by its own commands: python docs/gallery.py, from the repository's root.

Commands whose results are there are not run again (`rm -r out/gallery` to begin anew). Needs the extra `dev`, Chromium.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from unleak.data.video import read_video

PAGE = Path("docs/gallery.md")
MADE, PICTURES = Path("out/gallery"), Path("docs/gallery")
TILE, FPS = 96, 6
SHOTS = {
    "compare": "h2 >> text=Means",
    "sweep": "h1",
    "tune": "h1",
}  # below MADE -> where its picture begins
HEIGHT = 1150  # pixels at most


def run_commands() -> None:
    """Each command of the page that has not been run."""
    for line in re.findall(r"^ {4}unleak (.+)$", PAGE.read_text(), re.MULTILINE):
        words = shlex.split(line)
        if not Path(words[words.index("--out") + 1]).is_dir():
            print(f"unleak {line}", flush=True)
            subprocess.run([sys.executable, "-m", "unleak", *words], check=True)


def write_grid() -> None:
    """Photos and cases down, noises across, as one animation."""
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    for path in sorted((MADE / "compare").glob("*.mp4")):
        photo, _, case = path.stem.split("-", 2)
        rows.setdefault((photo, case), []).append(read_video(path).frames)
    frames = np.concatenate([np.concatenate(row, axis=2) for row in rows.values()], axis=1)
    size = (len(next(iter(rows.values()))) * TILE, len(rows) * TILE)
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    pictures[0].save(
        PICTURES / "noises.webp", save_all=True, append_images=pictures[1:], duration=1000 // FPS, loop=0, quality=80
    )


def take_screenshots() -> None:
    """Of the pages that commands wrote."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        view = browser.new_page(viewport={"width": 1100, "height": 800}, color_scheme="light", bypass_csp=True)
        view.set_default_timeout(300_000)
        for name, begins in SHOTS.items():
            page = next((MADE / name).rglob("*.html"))
            view.goto(page.resolve().as_uri())
            view.add_style_tag(content=".bar { display: none !important }")  # it would lie over the middle
            view.wait_for_timeout(1500)  # until the videos play
            box = view.locator(begins).first.bounding_box()
            assert box is not None, f"{page} has no {begins}"
            top = max(0, box["y"] - 30)
            whole = view.evaluate("document.documentElement.scrollHeight")
            clip = {"x": 0, "y": top, "width": 1100, "height": min(HEIGHT, whole - top)}
            view.screenshot(path=PICTURES / f"{name}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    run_commands()
    write_grid()
    take_screenshots()
    shutil.copy(MADE / "diagnosis" / "diagnosis.png", PICTURES / "diagnosis.png")
