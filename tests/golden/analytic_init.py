import math
import re

import torch
from einops import rearrange
from torch import Tensor

from tests.golden.case import CLOSED_FORM, Case
from unleak.core.initial import AnalyticInit, InitialNoise, Standard
from unleak.core.moments import LatentMoments
from unleak.core.process import VP, Level
from unleak.core.start import Start


def moments_of(mean: Tensor, variance: Tensor) -> LatentMoments:
    mean = mean.double()
    return LatentMoments(None, mean, mean.square() + variance.double())


def run_vp(case: Case) -> None:
    (note,) = (note for note in case.config["notes"] if "linear-in-sqrt betas" in note)
    first, last = map(float, re.search(r"betas ([\d.]+)\.\.([\d.]+)", note).groups())
    betas = torch.linspace(first**0.5, last**0.5, 1000, dtype=torch.float64) ** 2
    init = AnalyticInit(moments_of(case["in.Expectation_X0"][0], case["in.Tr_Cov_d"]))
    for run in case.config["values"]:
        schedule, M = run.split(".M")
        level = Start.parse(M).resolve(VP.from_betas(betas, zero_terminal_snr=schedule == "zero_snr"))
        case.compare(f"{run}.sqrt_alpha_bar", level.alpha, share=CLOSED_FORM)
        case.compare(f"{run}.init", init.sample(case["in.eps"], level), share=CLOSED_FORM)


def run_ve(case: Case) -> None:
    mean = rearrange(case["in.Expectation_x_0"], "f c h w -> c f h w")
    analytic = AnalyticInit(moments_of(mean, case["in.trCov_d"]), reference=True)

    def sample(init: InitialNoise, eps: Tensor, level: Level) -> Tensor:
        x = init.sample(rearrange(eps, "b f c h w -> b c f h w"), level)
        return rearrange(x, "b c f h w -> b f c h w")

    for run in case.config["values"]:
        sigma = float(run.removeprefix("smax"))
        level, standard = Level(1.0, sigma), Standard(math.hypot(sigma, 1))
        case.compare(f"{run}.init", sample(analytic, case["in.noise"], level), share=CLOSED_FORM)
        case.compare(f"{run}.init_no_stats", sample(standard, case["in.noise"], level), share=CLOSED_FORM)
        given = sample(standard, case["in.given_latents"], level)
        case.compare(f"{run}.init_given_latents", given, share=CLOSED_FORM)
        case.defect(f"{run}.init_arguments_swapped")


def run_estimator(case: Case) -> None:
    latents = rearrange(case["in.latents"], "n f c h w -> n c f h w")
    moments = LatentMoments.empty(latents.shape[1:])
    for part in latents.split(4):
        moments = moments.update(part)
    case.compare("Expectation_x_0", rearrange(moments.mean, "c f h w -> f c h w"), share=CLOSED_FORM)
    case.compare("trCov_d", moments.isotropic_variance, share=CLOSED_FORM)


CASES = {"analytic_init_vp": run_vp, "analytic_init_ve": run_ve, "init_stats_": run_estimator}
