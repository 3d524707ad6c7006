import numpy as np
import pytest
import torch

from unleak.attach.latent_space import latent_space
from unleak.data.image import MediaError
from unleak.data.video import read_video, write_video
from unleak.families.svd.denoiser import SVDDenoiser
from unleak.stats.estimate import estimate
from unleak.zoo.hub import load

CLIP = {"num_frames": 4, "height": 16, "width": 32, "fps": 5.0}


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load(tiny_folder, only=("vae",), device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos of moving noise, of several rates, sizes, lengths and containers."""
    folder = tmp_path_factory.mktemp("clips")
    shapes = [(4, 16, 32, 5), (9, 40, 24, 10), (30, 18, 64, 25), (6, 50, 50, 6)]
    for k, (count, height, width, fps) in enumerate(shapes):
        coarse = np.random.default_rng(k).integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        frames = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
        write_video(frames, folder / f"{k}.{'gif' if k == 3 else 'mp4'}", fps=fps)
    return sorted(folder.iterdir())


def direct_moments(pipe, paths, start):
    """The closed form: all latents at once, population moments in float64."""
    videos = np.stack([read_video(p, num_frames=4, fps=5, size=(16, 32), start=start(p)).frames for p in paths])
    pixels = torch.from_numpy(videos).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    latents = SVDDenoiser(pipe).encode_video(pixels).double()
    return latents.mean(0), latents.square().mean(0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_moments_are_those_of_all_latents_at_once(pipe, clips, batch_size, monkeypatch):
    monkeypatch.setattr("unleak.stats.estimate._starts", lambda *args: [0.0])
    done = estimate(pipe, clips, **CLIP, batch_size=batch_size, model="tiny", source="clips")
    mean, mean_square = direct_moments(pipe, clips, lambda path: 0.0)
    # float32 convolutions differ in the last bits with the batch they are in
    assert torch.allclose(done.moments.mean, mean, atol=2e-6)
    assert torch.allclose(done.moments.mean_square, mean_square, atol=2e-6)
    assert done.moments.shape == (4, 4, 2, 4)
    assert (done.clips, done.moments.count, done.skipped) == (4, 4, {})
    meta = done.moments.meta
    assert (meta.model, meta.vae, meta.fps, meta.height, meta.width) == ("tiny", latent_space(pipe.vae), 5.0, 16, 32)


def test_two_runs_merge_into_the_whole(pipe, clips):
    parts = [estimate(pipe, part, **CLIP, seed=3).moments for part in (clips[:1], clips[1:])]
    whole = estimate(pipe, clips, **CLIP, seed=3).moments
    merged = parts[0].merge(parts[1])
    assert merged.count == whole.count == 4
    assert torch.allclose(merged.mean, whole.mean, atol=1e-12)
    assert torch.allclose(merged.variance, whole.variance, atol=1e-12)


def test_the_seed_decides_which_clips_whatever_the_order(pipe, clips):
    first = estimate(pipe, clips, **CLIP, seed=1, clips_per_video=3).moments
    again = estimate(pipe, clips[::-1], **CLIP, seed=1, clips_per_video=3).moments
    other = estimate(pipe, clips, **CLIP, seed=2, clips_per_video=3).moments
    assert torch.equal(first.mean, again.mean)
    assert not torch.allclose(first.mean, other.mean)
    assert first.count == 1 + 3 + 3 + 3  # the first video has room for one clip only


def test_max_clips_stops(pipe, clips):
    chosen = [estimate(pipe, clips, **CLIP, seed=seed, max_clips=2).moments for seed in range(6)]
    assert {moments.count for moments in chosen} == {2}
    assert len({moments.mean.sum().item() for moments in chosen}) > 1


def test_a_bad_video_is_skipped_with_its_reason_up_to_the_share(pipe, clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 99)
    write_video(np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "short.mp4", fps=5)
    bad = [tmp_path / "broken.mp4", tmp_path / "short.mp4"]
    told = []
    done = estimate(pipe, [*clips, *bad], **CLIP, max_failures=0.34, on_video=told.append)
    assert set(done.skipped) == set(bad)
    assert "truncated or damaged" in done.skipped[bad[0]]
    assert "2 frames at 5 Hz" in done.skipped[bad[1]]
    assert sorted(filter(None, told)) == sorted(done.skipped.values())
    assert len(told) == 6
    assert done.moments.count == 4
    clean = estimate(pipe, clips, **CLIP).moments
    assert torch.allclose(done.moments.mean, clean.mean, atol=1e-12)
    with pytest.raises(MediaError, match=r"2 of \d videos cannot be used, more than the share of 0.2 allowed"):
        estimate(pipe, [*clips, *bad], **CLIP, max_failures=0.2)
    with pytest.raises(MediaError, match=r"1 of 1 videos cannot be used"):
        estimate(pipe, bad[:1], **CLIP, max_failures=1.0)
