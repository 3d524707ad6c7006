from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler

from unleak.families.timesteps import TimestepDenoiser

T = torch.tensor([0, 300, 999])
VAE = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)


class Knowing(TimestepDenoiser):
    """A network that knows the answer."""

    def predict(self, x_t, t, condition):
        return self.target(*condition, t)


def denoiser(kind):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
    return Knowing(SimpleNamespace(unet=None, vae=VAE, scheduler=scheduler))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_knows_its_target_gives_the_clean_video(kind):
    x_0, eps = torch.randn(2, 3, 4, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    knowing = denoiser(kind)
    x_t = knowing.add_noise(x_0, eps, T)
    torch.testing.assert_close(x_t, knowing.pipe.scheduler.add_noise(x_0, eps, T), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(knowing.predict_clean(x_t, T, (x_0, eps)), x_0)


def test_another_kind_of_prediction_is_refused():
    knowing = denoiser("epsilon")
    knowing.pipe.scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(ValueError, match="prediction_type 'flow' is unknown: choose epsilon"):
        knowing.target(torch.zeros(3, 4, 1, 2, 2), torch.zeros(3, 4, 1, 2, 2), T)
