"""The pictures and the verdict of docs/gallery.md, by its own commands, and docs/ui.png, the page in a browser.

    python docs/gallery.py      from the repository's root; `make figures` runs it

Commands whose results are there are not run again (`rm -r out/gallery` to begin anew). Needs the extra `dev`, Chromium.
"""

import json
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
VERDICT = "<!-- verdict: written by docs/gallery.py -->"
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


def write_verdict() -> None:
    """Put the diagnosis, in its own words, below its picture in the gallery."""
    sentences = json.loads((MADE / "diagnosis/diagnosis.json").read_text())["verdict"]["sentences"]
    said = "> " + " ".join(one for one in sentences if not one.startswith("Limits:"))
    text = re.sub(
        f"{VERDICT}.*?<!-- /verdict -->", f"{VERDICT}\n{said}\n<!-- /verdict -->", PAGE.read_text(), flags=re.DOTALL
    )
    PAGE.write_text(text)


def take_page() -> None:
    """Animate the example photo on the page, as a visitor does, and take a picture of both videos."""
    from playwright.sync_api import sync_playwright

    from unleak.ui.serve import serving

    with serving(["nano"], device="cpu") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        view = browser.new_page(viewport={"width": 1280, "height": 1120}, color_scheme="light")
        view.set_default_timeout(600_000)
        view.goto(address)
        view.wait_for_selector("#videos .unleak-empty")
        view.set_input_files("input[type=file]", "examples/photo.jpg")
        view.wait_for_selector("img[src*='gradio_api/file=']")
        view.get_by_role("button", name="Animate").click()
        view.wait_for_selector("#videos video")
        view.wait_for_timeout(2000)
        view.screenshot(path="docs/ui.png")
        browser.close()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    run_commands()
    write_grid()
    take_screenshots()
    shutil.copy(MADE / "diagnosis" / "diagnosis.png", PICTURES / "diagnosis.png")
    write_verdict()
    take_page()
