import numpy as np
import pytest
import torch
from PIL import Image

from unleak.core.process import Level
from unleak.families.svd.view import SVDView, precondition

SIGMAS = [0.002, 0.5, 30.0, 700.0]


def image_of(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_a_network_that_knows_v_gives_the_clean_video():
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, len(SIGMAS), 1000, dtype=torch.float64, generator=g)
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = (c[:, None] for c in precondition(sigma))
    x_t = x_0 + sigma[:, None] * eps
    v = (eps - sigma[:, None] * x_0) / (sigma[:, None] ** 2 + 1).sqrt()
    torch.testing.assert_close(c_skip * x_t + c_out * v, x_0)
    assert (c_in * x_t).std().item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(c_noise[:, 0], sigma.log() / 4)


@torch.no_grad()
def test_what_the_network_is_told_is_what_the_pipeline_tells(tiny_svd):
    """Also the clean prediction: the scheduler's pred_original_sample of the same call."""
    seen, predictions = {}, []
    image = image_of(32, 40)

    def spy(module, args, kwargs):
        seen.update(kwargs, sample=args[0])

    def step(model_output, timestep, sample):
        result = plain_step(model_output, timestep, sample)
        predictions.append((sample, tiny_svd.scheduler.sigmas[0], result.pred_original_sample))
        return result

    hook = tiny_svd.unet.register_forward_pre_hook(spy, with_kwargs=True)
    plain_step = tiny_svd.scheduler.step
    tiny_svd.scheduler.step = step
    try:
        tiny_svd(
            image,
            height=32,
            width=40,
            num_frames=3,
            num_inference_steps=1,
            max_guidance_scale=1.0,
            fps=7,
            motion_bucket_id=20,
            noise_aug_strength=0.1,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        )
    finally:
        hook.remove()
        del tiny_svd.scheduler.step
    view = SVDView(tiny_svd, {"fps": 7, "motion_bucket_id": 20, "noise_aug_strength": 0.1})
    condition = view.encode_condition(to_tensor(image), generator=torch.Generator().manual_seed(5))
    told = seen["sample"][0, :, 4:]
    torch.testing.assert_close(condition.latents.expand_as(told), told, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(condition.image_embeddings, seen["encoder_hidden_states"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(condition.added_time_ids, seen["added_time_ids"])

    (x_t, sigma, pred_original_sample) = predictions[0]
    ours = view.predict_clean(x_t.transpose(1, 2), Level(1.0, sigma.item()), condition)
    torch.testing.assert_close(ours.transpose(1, 2), pred_original_sample, rtol=1e-4, atol=1e-4)


def test_videos_are_encoded_frame_by_frame_in_pieces_and_scaled(tiny_svd):
    video = torch.rand(2, 3, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = SVDView(tiny_svd).encode_video(video)
    pieces = SVDView(tiny_svd, frames_at_once=4).encode_video(video)
    assert whole.shape == (2, 4, 3, 4, 5)
    torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)
    view = SVDView(tiny_svd)
    raw = view.encode_raw(video[1, 2][None])[0]
    torch.testing.assert_close(whole[1, :, 2], raw * tiny_svd.vae.config.scaling_factor, rtol=1e-4, atol=1e-5)
    mean, spread = view.encode_posterior(video)
    assert torch.equal(mean, whole)
    posterior = tiny_svd.vae.encode(video[1, 2][None]).latent_dist
    expected = posterior.std[0] * tiny_svd.vae.config.scaling_factor
    torch.testing.assert_close(spread[1, :, 2], expected, rtol=1e-4, atol=1e-5)


def test_a_half_precision_vae_is_left_as_it_was(tiny_svd):
    video = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = SVDView(tiny_svd).encode_video(video)
    before = {name: tensor.clone() for name, tensor in tiny_svd.vae.state_dict().items()}
    try:
        tiny_svd.vae.half()
        torch.testing.assert_close(SVDView(tiny_svd).encode_video(video), expected, rtol=0.02, atol=0.02)
        assert tiny_svd.vae.dtype == torch.float16
    finally:
        tiny_svd.vae.float().load_state_dict(before)
