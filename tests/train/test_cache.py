import errno
import os
import resource
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unleak.data.pixels import to_unit
from unleak.families.svd.view import SVDView
from unleak.train.cache import LatentCache, build_cache, cache_key, check_cache
from unleak.train.data import open_dataset


def test_a_stopped_cache_goes_on_and_holds_the_latents(tmp_path, recipe, tiny_svd):
    dataset, denoiser = open_dataset(recipe().data), SVDView(tiny_svd)
    encoded = []

    def encode(video):
        if len(encoded) == 1:
            encoded.append("stopped")
            raise KeyboardInterrupt
        encoded.append(len(video))
        return denoiser.encode_video(video)

    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path, dataset, encode, batch=2)
    cache = build_cache(tmp_path, dataset, encode, batch=2)
    assert encoded == [2, "stopped", 2, 1]
    build_cache(tmp_path, dataset, encode, batch=2)
    assert len(encoded) == 4

    assert len(cache) == len(dataset) == 5
    for item, clip in ((cache[i], dataset[i]) for i in range(5)):
        exact = denoiser.encode_video(to_unit(clip["video"][None]))[0]
        torch.testing.assert_close(item["latents"], exact, rtol=2**-10, atol=1e-4)
        assert torch.equal(item["image"], clip["video"][0])
        assert (item["fps"], item["motion_bucket_id"]) == (clip["fps"], clip["motion_bucket_id"])


def test_the_key_follows_data_pixels_and_weights(recipe, tiny_svd):
    dataset = open_dataset(recipe().data)
    key = cache_key({"size": 32}, dataset, tiny_svd.vae)
    assert key == cache_key({"size": 32}, dataset, tiny_svd.vae)
    assert key != cache_key({"size": 64}, dataset, tiny_svd.vae)
    other = open_dataset(recipe().data.model_copy(update={"seed": 1}))
    assert key != cache_key({"size": 32}, other, tiny_svd.vae)
    weight = tiny_svd.vae.quant_conv.bias
    with torch.no_grad():
        weight[0] += 1
        changed = cache_key({"size": 32}, dataset, tiny_svd.vae)
        weight[0] -= 1
    assert key != changed


def test_the_key_follows_the_files(tmp_path, recipe, tiny_svd):
    video = tmp_path / "a.mp4"
    dataset = open_dataset(recipe().data)
    dataset.entries = [SimpleNamespace(path=Path(video))]
    keys = set()
    for content in (b"one", b"another"):
        video.write_bytes(content)
        keys.add(cache_key({}, dataset, tiny_svd.vae))
    assert len(keys) == 2


def test_of_two_runs_one_fills_a_cache_and_the_other_waits(tmp_path, recipe, tiny_svd):
    dataset, denoiser = open_dataset(recipe().data), SVDView(tiny_svd)
    seen, second = [], []
    other = Thread(target=lambda: second.append(build_cache(tmp_path, dataset, lambda video: seen.append("other"))))

    def encode(video):
        if not seen:
            other.start()
        seen.append(len(video))
        return denoiser.encode_video(video)

    first = build_cache(tmp_path, dataset, encode, batch=2)
    other.join()
    assert seen == [2, 2, 1]
    assert torch.equal(first[4]["latents"], second[0][4]["latents"])


def test_a_full_disk_names_the_file_and_the_cache_goes_on(tmp_path, recipe, tiny_svd):
    dataset, denoiser = open_dataset(recipe().data), SVDView(tiny_svd)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refusal:
            build_cache(tmp_path, dataset, denoiser.encode_video, batch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refusal.value.errno == errno.EFBIG
    assert Path(refusal.value.filename).parent == tmp_path
    assert not (tmp_path / "done.json").exists()
    assert len(build_cache(tmp_path, dataset, denoiser.encode_video, batch=2)) == 5


def test_of_groups_the_count_goes_on(tmp_path, recipe, tiny_svd):
    """Of a bucketed cache every group would else begin at 1 of its own."""
    dataset, denoiser = open_dataset(recipe().data), SVDView(tiny_svd)
    dataset.groups = [[0, 1], [2, 3, 4]]
    told = []
    build_cache(tmp_path, dataset, denoiser.encode_video, batch=2, progress=lambda *count: told.append(count))
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("content", ["9", "-1", '"many"', "[" * 10_000, "1" * 5000, ""])
def test_a_count_that_cannot_be_is_one_line(tmp_path, recipe, tiny_svd, content):
    dataset = open_dataset(recipe().data)
    (tmp_path / "done.json").write_text(content)
    with pytest.raises(ValueError, match=r"done.json is damaged: .* delete") as refusal:
        build_cache(tmp_path, dataset, SVDView(tiny_svd).encode_video)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["done.json", "latents.npy"])
def test_a_pipe_in_a_cache_is_not_waited_for(tmp_path, recipe, tiny_svd, name):
    build_cache(tmp_path, open_dataset(recipe().data), SVDView(tiny_svd).encode_video)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}(: a pipe; give a regular file| is damaged; delete)"):
        build_cache(tmp_path, open_dataset(recipe().data), SVDView(tiny_svd).encode_video)


def test_a_cache_of_other_shapes_is_one_line(tmp_path, recipe, tiny_svd):
    build_cache(tmp_path, open_dataset(recipe().data), SVDView(tiny_svd).encode_video)
    dataset, encode = open_dataset(recipe().data), SVDView(tiny_svd).encode_video
    check_cache(tmp_path, LatentCache(tmp_path), dataset, encode)
    np.save(tmp_path / "latents.npy", np.load(tmp_path / "latents.npy")[:, :1])
    with pytest.raises(ValueError, match=r"is damaged: latents of a clip have the shape .* delete it") as refusal:
        check_cache(tmp_path, LatentCache(tmp_path), dataset, encode)
    assert "\n" not in str(refusal.value)


def test_a_cache_whose_files_do_not_agree_is_one_line(tmp_path, recipe, tiny_svd):
    build_cache(tmp_path, open_dataset(recipe().data), SVDView(tiny_svd).encode_video)
    np.save(tmp_path / "latents.npy", np.load(tmp_path / "latents.npy")[:3])
    with pytest.raises(ValueError, match=r"is damaged: its files have .* delete it to have it encoded again"):
        LatentCache(tmp_path)
