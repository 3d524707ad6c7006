"""Videos side by side, in one picture and in numbers: python examples/compare.py strip.png a/photo.mp4 b/photo.mp4"""

import sys
from pathlib import Path

import numpy as np

from unleak.data.video import read_video, save_strip
from unleak.measure.motion import camera_motion, motion_score

strip, *paths = map(Path, sys.argv[1:])
videos = [read_video(path).frames for path in paths]
for path, frames in zip(paths, videos, strict=True):
    pairs = camera_motion(frames)
    dx, dy, log_zoom, rotation = np.nanmean(pairs, axis=0) if np.isfinite(pairs).any() else pairs[0]
    print(f"{path}: motion score {motion_score(frames).value:.0f}; the camera moves, per frame,", end=" ")
    print(f"{dx:+.2f}, {dy:+.2f} px, zooms {np.expm1(log_zoom):+.1%} and turns {np.degrees(rotation):+.2f} degrees")
save_strip(videos, [path.parent.name for path in paths], strip)
print(f"{strip}: the frames side by side")
