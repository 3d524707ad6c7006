"""What was published for Animate-Anything (arXiv 2406.15735 and its scripts), and the starts of its presets."""

from collections.abc import Mapping
from typing import Any

from unleak.core.start import Start

__all__ = ["CALL", "FPS", "MOTION"]

CALL: Mapping[str, Any] = {
    "height": 320,
    "width": 512,
    "num_frames": 16,
    "num_inference_steps": 50,
    "guidance_scale": 9.0,
    "motion_strength": 5.0,
}
"""Arguments of the call."""

FPS = 8.0

MOTION: Mapping[str, Start] = {
    "low": Start.timestep(952),  # the noise that the published 900 starts at, with its betas spread anew
    "medium": Start.timestep(900),  # published, as a level of the model's own schedule
    "high": Start.timestep(850),  # ours: as far again
}
"""How much motion -> where to start."""
