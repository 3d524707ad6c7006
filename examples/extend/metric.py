"""A metric of your own in one file, without a fork of unleak:

    unleak evaluate --videos out/ --extend examples/extend/metric.py
    unleak compare photo.jpg --extend examples/extend/metric.py

An installed package registers the same function for every command: it names this module as an entry point.

    [project.entry-points."unleak.plugins"]
    mine = "my_package.metric"
"""

import numpy as np

import unleak


@unleak.metric("loop_gap", label="loop gap", unit="grey levels", better="lower")
def loop_gap(video):
    """Root mean square difference of the last frame and the first: how visible the jump is when the video loops."""
    first, last = video.frames[0].astype(float), video.frames[-1].astype(float)
    return np.sqrt(np.square(last - first).mean())
