"""Moments gathered clip by clip: the arithmetic, one clip in memory at a time, and what is refused."""

import weakref
from types import SimpleNamespace

import pytest
import torch

from unleak.comfyui.gather import clips_of_batch, clips_of_folder, gather
from unleak.core.moments import LatentMoments, MomentsMeta

META = MomentsMeta("test")


def model(channels=4):
    inner = SimpleNamespace(process_latent_in=lambda latents: 0.5 * latents)
    objects = {"latent_format": SimpleNamespace(latent_channels=channels)}
    return SimpleNamespace(model=inner, get_model_object=objects.__getitem__)


class Encoder:
    """A VAE of images: the mean of each 8x8 block of a colour, and of all three."""

    def encode(self, frames):
        blocks = torch.nn.functional.avg_pool2d(frames.movedim(-1, 1), 8)
        return torch.cat([blocks, blocks.mean(1, keepdim=True)], 1)


def clips(count, frames=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((frames, 16, 24, 3), generator=generator) for _ in range(count)]


def test_moments_are_those_of_the_latents_that_the_denoiser_sees():
    given = clips(4)
    held = gather(model(), Encoder(), given, META)
    latents = torch.stack([0.5 * Encoder().encode(clip).transpose(0, 1) for clip in given]).double()
    assert held.count == 4
    assert held.shape == (4, 3, 2, 3)
    assert torch.allclose(held.mean, latents.mean(0), atol=1e-6)
    assert torch.allclose(held.mean_square, latents.square().mean(0), atol=1e-6)
    more = gather(model(), Encoder(), given[:1], META, before=held)
    assert more.count == 5


def test_one_clip_is_in_memory_at_a_time():
    earlier = []

    def stream():
        for _ in range(5):
            assert all(clip() is None for clip in earlier[:-1])
            clip = torch.rand(2, 8, 8, 3)
            earlier.append(weakref.ref(clip))
            yield clip
            del clip

    assert gather(model(), Encoder(), stream(), META).count == 5
    assert len(earlier) == 5


def test_a_vae_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"latents of 4 channels, and the model has 16: give the VAE of the model"):
        gather(model(16), Encoder(), clips(1), META)


def test_nothing_to_gather_is_refused():
    with pytest.raises(ValueError, match="no video could be used"):
        gather(model(), Encoder(), [], META)


def test_frames_that_are_no_whole_number_of_videos_are_refused():
    with pytest.raises(ValueError, match=r"holds 7 frames, which is not a whole number of videos of 3 frames"):
        list(clips_of_batch(torch.zeros(7, 8, 8, 3), 3))


def test_a_folder_without_a_video_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(ValueError, match=r"holds no video: put some there \(.*\.mp4"):
        list(clips_of_folder(tmp_path, 3, height=16, width=16, fps=0, skipped=[]))


def test_moments_of_another_size_are_not_added():
    other = LatentMoments.empty((4, 9, 2, 3), META).update(torch.zeros(1, 4, 9, 2, 3))
    with pytest.raises(ValueError, match="shape"):
        gather(model(), Encoder(), clips(1), META, before=other)
