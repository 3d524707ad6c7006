"""Eight noises of two photos, plain above fixed, as one sheet: python examples/demo.py OUT [PHOTO ...]

Nothing is picked: the noises are those of the seeds 0 to 7. Writes OUT/demo.webp, which plays, and OUT/demo.png, its
last frame, and prints how many of the videos move. A green border marks a video that moves.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import unleak
from unleak.study.verdict import verdict

SEEDS = range(8)
PHOTOS = [Path(__file__).with_name(name) for name in ("photo.jpg", "dandelion.jpg")]
TILE, GAP, FPS = 128, 6, 7
MOVES, STILL = (46, 160, 67), (150, 150, 150)
HEADER = 30


def animate(pipe, photo, side):
    """Return the videos of `photo` from all seeds, each [f h w 3] uint8."""
    videos = []
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        frames = pipe(photo, height=side, width=side, generator=generator, output_type="np").frames[0]
        videos.append((frames * 255).round().astype(np.uint8))
        print(".", end="", flush=True)
    return videos


def row(videos, moving, frame):
    """Draw one frame of every video; a green border marks a video that moves."""
    sheet = Image.new("RGB", (len(videos) * (TILE + GAP) + GAP, TILE + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (video, moves) in enumerate(zip(videos, moving, strict=True)):
        x = GAP + place * (TILE + GAP)
        sheet.paste(Image.fromarray(video[frame]).resize((TILE, TILE), Image.Resampling.BICUBIC), (x, GAP // 2))
        draw.rectangle(
            [x - 2, GAP // 2 - 2, x + TILE + 1, GAP // 2 + TILE + 1], outline=MOVES if moves else STILL, width=2
        )
    return sheet


def sheet(rows, titles, frame):
    """Stack the rows under their titles."""
    images = [row(videos, moving, frame) for videos, moving in rows]
    height = sum(image.height + HEADER for image in images) + GAP
    whole = Image.new("RGB", (images[0].width, height), "white")
    draw, y = ImageDraw.Draw(whole), 0
    for image, title in zip(images, titles, strict=True):
        draw.text((GAP, y + 8), title, "black", font=ImageFont.load_default(16))
        whole.paste(image, (0, y + HEADER))
        y += HEADER + image.height
    return whole


def main(out, photos):
    """Animate, draw and count."""
    pipe = unleak.load("nano")
    pipe.set_progress_bar_config(disable=True)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    rows, titles, counts = [], [], {"plain": 0, "fixed": 0}
    for path in photos:
        photo = Image.open(path).convert("RGB")
        for name, settings in (("plain", {"start": "1.0T"}), ("fixed", {"motion": "medium"})):
            with unleak.applied(pipe, **settings):
                videos = animate(pipe, photo, side)
            moving = [not verdict(video, photo, fps=FPS).still for video in videos]
            counts[name] += sum(moving)
            rows.append((videos, moving))
            titles.append(f"{path.stem}, {name}: {sum(moving)} of {len(moving)} move")
            print(f" {titles[-1]}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    frames = [sheet(rows, titles, frame) for frame in range(len(rows[0][0][0]))]
    frames[0].save(out / "demo.webp", save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0, quality=80)
    frames[-1].save(out / "demo.png")
    total = len(photos) * len(SEEDS)
    print(f"plain: {counts['plain']} of {total} videos move; fixed: {counts['fixed']} of {total}")
    print(f"{out / 'demo.webp'}: all of them, from the seeds 0 to {SEEDS[-1]}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]] or PHOTOS)
