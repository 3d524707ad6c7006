"""Starts for DynamiCrafter (arXiv 2406.15735, section 5, and the released scripts)."""

from collections.abc import Mapping

from unleak.attach.seams.presets import VP
from unleak.core.start import Start

__all__ = ["MOTION"]

MOTION: Mapping[str, Start] = VP
"""How much motion -> where to start: 0.96T (published, UCF101), 0.94T (released scripts), 0.92T (published, open
images). The paper's fine-tunes of it start at 1.0T: after TimeNoise a lower start adds little."""
