import re

from tests.golden.case import CLOSED_FORM, Case
from unleak.core.timenoise import TimeNoise, logit_normal, mu

SIGMA_OF_ONE = 700  # the reference's t of SVD is sigma / 700, elsewhere timestep / 1000


def run(case: Case) -> None:
    t = case["in.sigma"] / SIGMA_OF_ONE if "in.sigma" in case else case["in.timesteps"] / 1000
    y, mu_max = case["in.normals"], case.config["mu_max"]
    for output in case.outputs:
        kind, _, settings = output.partition(".")
        number = {name: float(value) for name, value in re.findall(r"(mu|bm|a|s)(-?[\d.]*\d)", settings)}
        if kind == "mu":
            ours = mu(t, a=number["a"], mu_max=mu_max)
        elif kind == "beta_s":
            noise = TimeNoise(number["bm"], number["a"], mu_max=mu_max)
            ours = logit_normal(y, noise.mu(t), beta_m=noise.beta_m, spread=noise.spread)
        else:
            ours = logit_normal(y, t.new_full(y.shape, number["mu"]), beta_m=number["bm"], spread=number["s"])
        case.compare(output, ours, share=CLOSED_FORM)


CASES = {"timenoise_": run}
