import torch
from diffusers import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor

import unleak
from tests.attach.watch import Watched, all_tiny
from unleak.attach.draws import First, with_globals
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments


def prepare(shape: tuple[int, ...], *, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * randn_tensor(shape, generator=generator), randn_tensor(shape, generator=generator)


def test_only_the_first_draw_of_a_copy_is_changed() -> None:
    plain = prepare((3,))
    changed = with_globals(prepare, randn_tensor=First(randn_tensor, lambda eps: 10 + eps))((3,))
    torch.testing.assert_close(changed[0], plain[0] + 20)
    assert torch.equal(changed[1], plain[1])
    assert torch.equal(prepare((3,))[0], plain[0])  # the module's own function sees its own globals


def test_noise_is_drawn_in_the_latents_own_variables() -> None:
    # Euler over betas keeps x_t / alpha: the mean is not scaled down, the noise is alpha times larger.
    tiny = next(tiny for tiny in all_tiny() if tiny.name == "pia")
    pipe = tiny.build()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    plain = Watched(tiny, pipe)
    mean = torch.full((4, 1, 1, 1), 0.7, dtype=torch.float64)
    moments = LatentMoments(3, mean, torch.ones_like(mean))
    seen = Watched(tiny, unleak.apply(pipe, start="500", init=AnalyticInit(moments)))
    sigma = float(((1 - pipe.scheduler.alphas_cumprod[499]) / pipe.scheduler.alphas_cumprod[499]) ** 0.5)
    std = (sigma**2 + moments.isotropic_variance) ** 0.5
    torch.testing.assert_close(seen.latents, 0.7 + std * plain.eps, rtol=1e-5, atol=1e-5)
