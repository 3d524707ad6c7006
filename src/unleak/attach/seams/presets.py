"""Presets of `motion=`: how much motion -> where to start, and where each value comes from.

Only three families have published starts (arXiv 2406.15735, section 5 and the released scripts). The others take over
the signal-to-noise ratios of those, the one number that means the same for every model; nobody has tuned them.
"""

from collections.abc import Mapping

from unleak.core.start import Start

__all__ = ["EQUAL_SNR", "SVD", "SVD_FIXES", "VP"]

SVD: Mapping[str, Start] = {
    "low": Start.sigma(250),  # ours: a step of 2.5 above the published one
    "medium": Start.sigma(100),  # published for SVD, whose training has sigma_max 700
    "high": Start.sigma(40),  # ours: a step of 2.5 below; below some 20 the picture suffers
}

SVD_FIXES: Mapping[str, tuple[str, ...]] = {
    # Measured on nano (docs/evidence.md): guidance from sigma 10 down alone makes 10 % more of the videos move, and no
    # guidance beside a start 7 % more than that start alone. For full-size SVD nobody has measured it.
    "high": ("guidance-interval=..sigma=10",),
}

VP: Mapping[str, Start] = {
    "low": Start.fraction(0.96),  # published for VideoCrafter1 and DynamiCrafter on UCF101
    "medium": Start.fraction(0.94),  # 940 in the released scripts of both
    "high": Start.fraction(0.92),  # published for both on images of all kinds
}

EQUAL_SNR: Mapping[str, Start] = {
    # Betas of Stable Diffusion, for DynamiCrafter at zero terminal SNR. As a flow sigma: 0.981, 0.959, 0.902.
    "low": Start.log_snr(-7.89),  # the SNR of 0.96T in DynamiCrafter
    "medium": Start.log_snr(-6.33),  # the SNR of 0.92T in DynamiCrafter
    "high": Start.log_snr(-4.45),  # the SNR of 0.92T in VideoCrafter1
}
