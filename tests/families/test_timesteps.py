from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler

from unleak.families.timesteps import TimestepView
from unleak.families.view import Levels

T = torch.tensor([0, 300, 999])
VAE = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)


class Knowing(TimestepView):
    """A network that knows the answer."""

    absent = "nothing"

    def predict(self, x_t, level, condition):
        return self.target(*condition, level)

    def encode_condition(self, image, prompts, num_frames):
        raise NotImplementedError

    without_image = encode_condition


def view_of(kind):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
    return Knowing(SimpleNamespace(unet=None, vae=VAE, scheduler=scheduler))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_knows_its_target_gives_the_clean_video(kind):
    x_0, eps = torch.randn(2, 3, 4, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    knowing = view_of(kind)
    levels = knowing.levels_at(T)
    assert torch.equal(knowing.timesteps(levels), T)
    x_t = knowing.add_noise(x_0, eps, levels)
    torch.testing.assert_close(x_t, knowing.pipe.scheduler.add_noise(x_0, eps, T), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(knowing.predict_clean(x_t, levels, (x_0, eps)), x_0)


def test_another_kind_of_prediction_is_refused():
    knowing = view_of("epsilon")
    knowing.pipe.scheduler.register_to_config(prediction_type="flow")
    levels = knowing.levels_at(T)
    with pytest.raises(ValueError, match="prediction_type 'flow' is unknown: choose epsilon"):
        knowing.target(torch.zeros(3, 4, 1, 2, 2), torch.zeros(3, 4, 1, 2, 2), levels)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_a_level_names_its_timestep_and_one_between_two_the_nearer(zero_terminal_snr):
    every = torch.arange(1000)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=zero_terminal_snr)
    view = Knowing(SimpleNamespace(unet=None, vae=VAE, scheduler=scheduler))
    assert torch.equal(view.timesteps(view.levels_at(every)), every)
    low, high = (view.levels_at(torch.tensor([t])) for t in (500, 501))
    for share, t in ((0.4, 500), (0.6, 501)):
        between = Levels(*(torch.lerp(getattr(low, n), getattr(high, n), share) for n in ("alpha", "sigma")))
        assert view.timesteps(between).item() == t
