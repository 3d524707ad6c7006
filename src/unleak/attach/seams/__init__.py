"""What must be known of a pipeline class to attach to it: facts as data, keyed by class name.

A pipeline that is not listed gets a seam of its own in a dozen lines. Read its `prepare_latents` and say what is true:

    import unleak
    from unleak.attach.seams import Seam, register_seam

    register_seam(
        "MyVideoPipeline",
        Seam(
            layout="b c f h w",  # axes of the first randn_tensor in prepare_latents
            factor=lambda scheduler: 1.0,  # what that noise is multiplied by there
            own_schedule=("sigmas",),  # arguments of the call by which a user brings a schedule
            motion={"high": unleak.Start.sigma(0.9)},  # presets, if any are known
        ),
    )
    unleak.apply(pipe, start="sigma=0.9")

A pipeline class of one's own may carry its seam instead, as the attribute `unleak_seam`.
"""

from unleak.attach.seams.find import refusal_of, register_seam, seam_of, seam_of_class
from unleak.attach.seams.seam import Condition, Seam, init_noise_sigma
from unleak.attach.seams.table import REFUSED, SEAMS

__all__ = [
    "REFUSED",
    "SEAMS",
    "Condition",
    "Seam",
    "init_noise_sigma",
    "refusal_of",
    "register_seam",
    "seam_of",
    "seam_of_class",
]
