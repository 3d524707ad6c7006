"""What the autoencoder alone adds to the error of the camera's tracker: a video is measured after its decoder."""

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from unleak.data.pixels import to_unit
from unleak.data.synthetic import MotionRange, SyntheticClips
from unleak.measure.motion import camera_pan

CLIPS = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three textures with detail at every scale, as photos have it."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y, x = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)
        spectrum = np.fft.rfft2(rng.normal(size=(3, 256, 256))) / np.maximum(np.hypot(x, y), 1 / 256) ** 1.2
        picture = np.fft.irfft2(spectrum)
        picture = 128 + 50 * picture / picture.std((1, 2), keepdims=True)
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def through():
    """Clips through the autoencoder of the nano model and back."""
    vae = unleak.load("nano", only=("vae",), device="cpu").vae

    @torch.inference_mode()
    def round_trip(video):
        latents = vae.encode(to_unit(video)).latent_dist.mode()
        decoded = vae.decode(latents, num_frames=len(video)).sample
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    return round_trip


def test_the_camera_after_a_round_trip(photos, through):
    law = MotionRange(still=0.0, max_log_zoom=0.0, max_rotation=0.0)
    clips = [SyntheticClips(photos, seed=5, num_frames=8, length=CLIPS, motion=law).clip(i) for i in range(CLIPS)]
    for measured, most in ((lambda video: video.numpy(), 0.02), (through, 0.1)):
        pans = [camera_pan(measured(clip.video)) for clip in clips]
        errors = [np.hypot(p.dx - c.camera.dx, p.dy - c.camera.dy) for p, c in zip(pans, clips, strict=True)]
        assert max(errors) < most  # px/frame
        assert max(p.lost for p in pans) == 0
