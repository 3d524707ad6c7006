"""The noise processes that the tests of `core` go through."""

import torch

from unleak.core.process import RF, VE, VP

__all__ = ["BETAS", "PROCESSES"]

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
PROCESSES = {
    "vp": VP.from_betas(BETAS),
    "vp-zero-snr": VP.from_betas(BETAS, zero_terminal_snr=True),
    "ve": VE(0.002, 700),
    "rf": RF(),
}
