import tracemalloc
from random import Random

import numpy as np
import pytest
import torch

from unleak.attach.latent_space import latent_space
from unleak.data.decode_worker import Decoding
from unleak.data.image import MediaError
from unleak.data.video import read_video, write_video
from unleak.families.svd.view import SVDView
from unleak.stats.estimate import estimate
from unleak.stats.gathered import merged
from unleak.stats.shards import Shard
from unleak.zoo.hub import load

CLIP = {"num_frames": 4, "height": 16, "width": 32, "fps": 5.0, "decoding": Decoding(0)}


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
    latents = SVDView(pipe).encode_video(pixels).double()
    return latents.mean(0), latents.square().mean(0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_moments_are_those_of_all_latents_at_once(pipe, clips, batch_size, monkeypatch):
    monkeypatch.setattr("unleak.stats.estimate._draws", lambda *args: Random(0))
    monkeypatch.setattr(Random, "random", lambda self: 0.0)
    done = estimate(pipe, clips, **CLIP, batch_size=batch_size, model="tiny", source="clips")
    mean, mean_square = direct_moments(pipe, clips, lambda path: 0.0)
    # float32 convolutions differ in the last bits with the batch they are in
    assert torch.allclose(done.moments.mean, mean, atol=2e-6)
    assert torch.allclose(done.moments.mean_square, mean_square, atol=2e-6)
    assert done.moments.shape == (4, 4, 2, 4)
    assert (done.moments.count, done.skipped) == (4, {})
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


def test_no_more_than_max_clips(pipe, clips):
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
    with pytest.raises(MediaError, match=r"none of 1 videos can be used; the first: .*broken.mp4: truncated"):
        estimate(pipe, bad[:1], **CLIP, max_failures=1.0)


def close(ours, theirs):
    """Equal up to rounding in float64, relative to the size of the latents."""
    size = theirs.mean_square.mean().sqrt().item()
    return (
        ours.count == theirs.count
        and torch.allclose(ours.mean, theirs.mean, rtol=0, atol=1e-12 * size)
        and torch.allclose(ours.mean_square, theirs.mean_square, rtol=0, atol=1e-12 * size**2)
    )


@pytest.fixture(scope="module")
def many(clips, tmp_path_factory):
    """Eleven videos, one of them broken; two of one name."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "deep").mkdir()
    for k in range(9):
        (folder / f"{k}{clips[k % 4].suffix}").symlink_to(clips[k % 4])
    (folder / "deep/0.mp4").symlink_to(clips[1])
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 99)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize("max_clips", [None, 14])
def test_shards_in_any_order_are_the_run(pipe, many, count, max_clips):
    run = CLIP | {"clips_per_video": 2, "max_clips": max_clips, "max_failures": 0.15, "seed": 4}
    whole = estimate(pipe, many, **run)
    parts = [estimate(pipe, many[::-1], **run, shard=Shard(k + 1, count)) for k in range(count)]
    skipped = {path: reason for part in parts for path, reason in part.skipped.items()}
    assert skipped == whole.skipped
    together = [
        merged([part.gathered for part in some], max_failures=0.15)
        for some in (parts, parts[::-1], parts[1::2] + parts[::2])
    ]
    halves = [merged([part.gathered for part in some], max_failures=0.15) for some in (parts[:2], parts[2:]) if some]
    for total in (*together, merged(halves, max_failures=0.15)):
        assert close(total.moments, whole.moments)
        assert total.parts == whole.gathered.parts


def test_a_shard_with_its_share_of_failures_counts_those_of_the_run(pipe, many):
    for k in range(11):  # one shard has nothing but the broken video
        part = estimate(pipe, many, **CLIP, max_failures=0.1, shard=Shard(k + 1, 11))
        assert part.moments.count == 1 - len(part.skipped)
    with pytest.raises(MediaError, match=r"1 of 11 videos cannot be used, more than the share of 0.05"):
        [estimate(pipe, many, **CLIP, max_failures=0.05, shard=Shard(k + 1, 11)) for k in range(11)]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_stopped_again_and_again_gives_the_same_bits(pipe, many, tmp_path, batch_size, workers):
    run = CLIP | {"clips_per_video": 3, "max_failures": 1.0, "batch_size": batch_size, "decoding": Decoding(workers)}
    whole = estimate(pipe, many, **run)
    progress, told = tmp_path / "m.progress", []

    def stop_after(videos):
        def tell(reason):
            told.append(reason)
            if len(told) == videos:
                raise KeyboardInterrupt

        told.clear()
        return tell

    for videos in range(3 if workers == 0 else len(many), len(many) + 1):
        with pytest.raises(KeyboardInterrupt):
            estimate(pipe, many, **run, progress=progress, save_every=0, on_video=stop_after(videos))
    done = estimate(pipe, many, **run, progress=progress, save_every=0, on_video=stop_after(None))
    assert torch.equal(done.moments.mean, whole.moments.mean)
    assert torch.equal(done.moments.mean_square, whole.moments.mean_square)
    assert done.gathered.parts == whole.gathered.parts
    assert (done.moments.count, done.skipped) == (whole.moments.count, whole.skipped)
    assert len(told) == len(many)


def test_another_run_does_not_go_on_from_its_progress(pipe, clips, tmp_path):
    progress = tmp_path / "m.progress"
    estimate(pipe, clips, **CLIP, progress=progress, save_every=0)
    before = progress.read_bytes()
    for other, reason in (
        ({"seed": 1}, "seed 0 and 1"),
        ({"batch_size": 2}, "batch_size 1 and 2"),
        ({"fps": 4.0}, "fps 5.0 and 4.0"),
        ({"shard": Shard(1, 2)}, "shard 1/1 and 1/2"),
    ):
        with pytest.raises(
            ValueError, match=rf"begun otherwise \({reason}\); give its settings to go on, or delete it"
        ):
            estimate(pipe, clips, **CLIP | other, progress=progress)
    with pytest.raises(ValueError, match=r"videos 4 and 3, other videos"):
        estimate(pipe, clips[1:], **CLIP, progress=progress)
    assert progress.read_bytes() == before
    for damaged in (before[:-9], b"", b"mine"):
        progress.write_bytes(damaged)
        with pytest.raises(ValueError, match="not the progress of a run, or damaged; move or delete it"):
            estimate(pipe, clips, **CLIP, progress=progress)


def test_memory_does_not_grow_with_the_number_of_clips(pipe, clips):
    large = {"height": 64, "width": 64}

    def peak(clips_per_video):
        tracemalloc.start()
        try:
            estimate(pipe, clips[1:], **CLIP | large, clips_per_video=clips_per_video)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = max(peak(2), peak(2))
    assert peak(16) - few < 4 * (4 * 64 * 64 * 3)  # bytes of four clips; there are 42 more
