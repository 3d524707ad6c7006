import csv
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import animate_anything, lvdm, sd15, tiny_svd, wan
from tests.train.tiny_ltx import tiny_ltx
from tests.train.tiny_wan import tiny_wan
from unleak.core.process import VE, Level
from unleak.data.pixels import to_unit
from unleak.families.view import View, view_of
from unleak.measure.intervals import mean_of
from unleak.measure.motion import DIS
from unleak.study.diagnose.leakage import (
    Diagnosis,
    Row,
    Scenes,
    decoded,
    encoded,
    flows,
    judge,
    kept_motion,
    measure_leakage,
    oracle,
    sampled,
)
from unleak.study.diagnose.oracle import euler, posterior_mean
from unleak.study.diagnose.stillness import causes

G = torch.Generator().manual_seed(0)


# ---- the measure


def pans(speed, count=1, size=32, frames=4):
    """Textures that pan by `speed` px a frame."""
    clips = []
    for k in range(count):
        noise = np.random.default_rng(k).normal(size=(size // 4, size // 4 + 8, 3))
        wide = Image.fromarray((np.clip(noise * 60 + 128, 0, 255)).astype(np.uint8)).resize((size + 32, size), 3)
        clips.append(np.stack([np.asarray(wide)[:, 12 - speed * f :][:, :size] for f in range(frames)]))
    return np.stack(clips)


def test_kept_motion_in_closed_form():
    own = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    across = np.stack([-own[..., 1], own[..., 0]], -1)
    for video, kept, amount in ((own, 1, 1), (0.5 * own, 0.5, 0.5), (0 * own, 0, 0), (-own, -1, 1), (across, 0, 1)):
        assert kept_motion(video, own) == pytest.approx((kept, amount))


def test_kept_motion_of_videos():
    (fast,), (still,), (back,) = pans(2), pans(0), pans(-2)
    own = flows(fast, DIS())
    assert kept_motion(own, own) == pytest.approx((1, 1))
    assert kept_motion(flows(still, DIS()), own)[0] == pytest.approx(0, abs=0.02)
    assert kept_motion(flows(back, DIS()), own)[0] < -0.8
    flickering = np.clip(still + np.array([0, 40, 0, 40])[:, None, None, None], 0, 255).astype(np.uint8)
    assert abs(kept_motion(flows(flickering, DIS()), own)[0]) < 0.1


def test_mean_weighs_groups_and_its_interval_is_over_groups():
    assert mean_of({0: [1, 1, 1], 1: [0]}).value == 0.5
    wide, narrow = mean_of([0.0, 1.0] * 4), mean_of({k: [0.0, 1.0] * 10 for k in range(8)})
    assert wide.low < 0.3
    assert wide.high > 0.7
    assert (narrow.low, narrow.high) == (0.5, 0.5)
    assert mean_of([1.0]).record["low"] is None
    normal = np.random.default_rng(1).normal(size=(200, 25))
    covered = [mean.low < 0 < mean.high for mean in map(mean_of, normal.tolist())]
    assert 0.88 < np.mean(covered) < 0.98
    with pytest.raises(ValueError, match="finite"):
        mean_of([1.0, np.nan])


# ---- the sampler and the oracle


def test_on_ve_the_sampler_is_euler():
    clips, prior = torch.randn(2, 3, 2, 3, 2, 2, generator=G), torch.tensor([0.5, 0.3, 0.2])
    sigmas, x = torch.tensor([20.0, 5.0, 1.0, 0.1]), 20 * torch.randn(2, 2, 3, 2, 2, generator=G)
    expected = euler(posterior_mean(clips, prior), x, torch.cat([sigmas, torch.zeros(1)]))
    view = Toy(leaks=False)
    found = sampled(oracle(view, clips, prior), view.add_noise, x, [Level(1.0, float(s)) for s in sigmas])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Toy(View):
    """An ideal model in pixel space over the motions of its scenes; one that `leaks` sees only its image."""

    absent = "nothing"
    networks = None
    process = VE(0.01, 200.0)

    def __init__(self, *, leaks, blind=False):
        super().__init__(SimpleNamespace(vae=None))
        self.leaks, self.blind = leaks, blind

    def level(self, start):
        return self.process.level_at_sigma(float(start.removeprefix("sigma=")))

    def levels(self, start, steps):
        top = 200.0 if start == "1.0T" else float(start.removeprefix("sigma="))
        return tuple(Level(1.0, float(s)) for s in np.geomspace(top, 0.01, steps))

    device = torch.device("cpu")

    def encode_video(self, video):
        return video.transpose(1, 2)

    def decode(self, latents):
        return latents.transpose(1, 2)

    def encode_condition(self, images, prompts, num_frames):
        return images, True

    def without_image(self, images, prompts, num_frames):
        return images, False

    def predict_clean(self, x_t, level, condition):
        images, there = condition
        if self.leaks if there else self.blind:
            return images[:, :, None].expand(x_t.shape)
        return oracle(self, self.encode_all, torch.tensor([0.5, 0.5]))(x_t, level)


def toy(**how):
    """A diagnosis of the toy: five scenes that pan right or left."""
    alternatives = np.stack([pans(speed, count=5) for speed in (2, -2)], 1)
    view = Toy(**how)
    view.encode_all = torch.stack([encoded(view, scene) for scene in alternatives])
    scenes = Scenes(alternatives, np.array([0.5, 0.5]))
    starts = ["sigma=150", "sigma=2"]
    return measure_leakage(view, alternatives[:, 0], starts=starts, steps=4, batch_size=5, scenes=scenes)


@pytest.mark.parametrize(
    ("how", "label", "start"),
    [
        ({"leaks": False}, "no leak found", None),
        ({"leaks": True}, "leaks", "sigma=2"),
        ({"leaks": True, "blind": True}, "loses motion", "sigma=2"),
    ],
)
def test_the_verdict_on_models_that_are_known(how, label, start, tmp_path):
    found = toy(**how)
    verdict = found.verdict
    assert (verdict.label, verdict.start) == (label, start), verdict.sentences
    assert found.mean("restart", "oracle", "sigma=2").value > 0.95
    assert found.mean("autoencoder", "").value == pytest.approx(1)
    kept = found.mean("restart", "image", "sigma=2").value
    assert kept == pytest.approx(0, abs=0.02) if how["leaks"] else kept > 0.95
    saved = json.loads((found.save(tmp_path / "out").parent / "diagnosis.json").read_text())
    assert saved["verdict"]["label"] == label
    assert len(saved["rows"]) == 5 * (1 + 3 * 5)
    table = list(csv.DictReader((tmp_path / "out/curve.csv").open()))
    assert {row["test"] for row in table} == {"autoencoder", "one step", "restart", "fresh"}
    assert Image.open(tmp_path / "out/diagnosis.png").width > 900


def test_the_one_step_curve_falls_for_an_ideal_model_too():
    """So the verdict must not be made of it."""
    found = toy(leaks=False)
    assert found.mean("one step", "image", "sigma=150").value < 0.5
    assert found.verdict.label == "no leak found"


def table(*, image, none, clips=8, spread=0.02):
    units = {start: {"sigma": sigma} for start, sigma in (("a", 9.0), ("b", 5.0), ("c", 1.0))}
    noise = np.random.default_rng(0).normal(size=(clips, 6)) * spread
    rows = [Row("autoencoder", "", "", k, 0, 1.0, 1.0) for k in range(clips)]
    places = [("image", *pair) for pair in zip(units, image, strict=True)]
    places += [("no image", *pair) for pair in zip(units, none, strict=True)]
    for place, (who, start, value) in enumerate(places):
        rows += [Row("restart", who, start, k, 0, value + noise[k, place], 1.0) for k in range(clips)]
    return judge(Diagnosis(tuple(rows), units, (1.0,) * clips, {"seeds": 1}))


@pytest.mark.parametrize(
    ("how", "label", "start", "words"),
    [
        ({"image": (0, 0.2, 0.9), "none": (0, 0.8, 0.9)}, "leaks", "c", "lost above c"),
        ({"image": (0, 0.2, 0.3), "none": (0, 0.8, 0.9)}, "leaks", "c", "lower ones may be needed"),
        ({"image": (0, 0.8, 0.9), "none": (0, 0.8, 0.9)}, "no leak found", None, "no model keeps"),
        ({"image": (1, 1, 1), "none": (0, 0.6, 0.9)}, "no leak found", None, "at every start"),
        ({"image": (0, 0.2, 0.9), "none": (0, 0, 0.1)}, "undecided", None, "no yardstick"),
        ({"image": (-0.2, -0.2, 0.9), "none": (0, 0, 0.1)}, "undecided", None, "no yardstick"),
        ({"image": (0, 0.2, 0.9), "none": (0, 0.8, 0.9), "clips": 3}, "undecided", None, "3 clips"),
        ({"image": (0, 0.6, 0.9), "none": (0, 0.8, 0.5), "spread": 0.6}, "undecided", None, "too wide"),
    ],
)
def test_the_verdict_on_numbers(how, label, start, words):
    verdict = table(**how)
    assert (verdict.label, verdict.start) == (label, start), verdict.sentences
    assert words in " ".join(verdict.sentences)


def test_clips_that_stand_still_are_refused():
    with pytest.raises(ValueError, match="none of the 2 clips moves"):
        measure_leakage(Toy(leaks=False), pans(0, count=2), starts=["sigma=2"], steps=2)


# ---- every family

TINY = {one.name: one for family in (lvdm, sd15, wan) for one in family.TINY}


FAMILIES = {
    "svd": tiny_svd,
    "animate-anything": animate_anything.tiny_animate_anything,
    **{name: TINY[name].build for name in ("dynamicrafter", "videocrafter1", "pia")},
    **{f"wan {version}": partial(tiny_wan, version) for version in ("2.1", "2.2", "2.2-5b")},
    "ltx": tiny_ltx,
    "ltx since 0.9.5": partial(tiny_ltx, since_095=True),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_perfect_prediction_comes_back_from_every_level_of_every_family(name):
    pipe = FAMILIES[name]()
    frames = 5 if name.startswith(("wan", "ltx")) else 4
    told = {"num_frames": frames, "height": 32, "width": 32, "frame_rate": 24}  # they decide on the schedule of LTX
    view = view_of(pipe, {"decode_chunk_size": 4} | told)
    size = (16, 24) if name in ("dynamicrafter", "videocrafter1") else (32, 32)
    clip = np.random.default_rng(0).integers(0, 256, (1, frames, *size, 3), dtype=np.uint8)
    with torch.inference_mode():
        x_0 = encoded(view, clip)
        eps = torch.randn(x_0.shape, generator=G)
        levels = view.levels("0.8T", 10)  # fewer are taken for a distilled schedule
        states = []

        def perfect(x, level):
            states.append((x, level))
            return x_0

        back = sampled(perfect, view.add_noise, view.add_noise(x_0, eps, levels[0]), levels)
        torch.testing.assert_close(back, x_0)
        for x, level in states:
            torch.testing.assert_close(x, view.add_noise(x_0, eps, level), atol=1e-4, rtol=1e-4)
        assert levels[0].log_snr == pytest.approx(view.level("0.8T").log_snr, rel=1e-4)
        given = to_unit(torch.from_numpy(clip[:, 0])), [""], frames
        with_, without = (
            view.predict_clean(view.add_noise(x_0, eps, levels[0]), levels[0], condition(*given))
            for condition in (view.encode_condition, view.without_image)
        )
        assert with_.shape == x_0.shape
        assert with_.isfinite().all()
        assert not torch.equal(with_, without)
        back = decoded(view, x_0)
    assert (back.shape[0], back.shape[2:], back.dtype) == (1, (*size, 3), np.uint8)


# ---- other causes


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"motion": [0.0, 0.1, 2.0]}, "reference clips"),
        ({"fps": 30}, "fps"),
        ({"fps": 3}, "fps"),
        ({"motion_bucket_id": 20}, "motion_bucket_id"),
        ({"width": 1024, "height": 320}, "size"),
        ({"width": 256, "height": 256}, "size"),
        ({"max_guidance_scale": 9.0}, "guidance"),
        ({"num_inference_steps": 4}, "few steps"),
        ({"prompt": ""}, "prompt"),
    ],
)
def test_what_else_makes_a_video_stand_still(changed, name):
    usual = {"fps": 7, "motion_bucket_id": 127, "width": 1024, "height": 576, "max_guidance_scale": 3.0}
    settings = usual | {"num_inference_steps": 25, "prompt": "waves"}
    motion = changed.pop("motion", [1.0, 2.0])

    def suspects(of):
        return [
            one.name for one in causes(tiny_svd(), of, usual, motion=motion, still_below=0.3) if one.state != "fine"
        ]

    assert suspects(settings | changed) == [name]
    motion = [1.0, 2.0]
    assert suspects(settings) == []


def moved(guided, unguided):
    return {"pipeline_amount": guided, "unguided_amount": unguided}


@pytest.mark.parametrize(
    ("settings", "usual", "told", "name", "state"),
    [
        ({"frame_rate": 60}, {"frame_rate": 25}, {}, "fps", "suspect"),
        ({"fps": 7}, {"fps": 7}, {"fps": 25.0}, "fps", "suspect"),  # the clips move less from frame to frame
        ({"fps": 7}, {"fps": 7}, {"fps": 8.0}, "fps", "fine"),
        ({"motion_strength": 2.0}, {"motion_strength": 5.0}, {}, "motion_strength", "suspect"),
        ({"motion_strength": 10.0}, {"motion_strength": 5.0}, {}, "motion_strength", "fine"),
        ({"width": 512, "height": 288}, {}, {}, "size", "unknown"),
        ({"width": 1024, "height": 576}, {"width": 1024, "height": 576}, {}, "size", "fine"),
        # Measured, it is what it is, whatever is usual.
        ({"guidance_scale": 9.0}, {"guidance_scale": 3.0}, moved(1.0, 1.1), "guidance", "fine"),
        ({"guidance_scale": 3.0}, {"guidance_scale": 3.0}, moved(0.3, 1.1), "guidance", "suspect"),
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}, moved(0.3, 1.1), "guidance", "fine"),
        ({"num_inference_steps": 25}, {}, {"steps": 6}, "few steps", "suspect"),  # what the schedule really has
        ({"num_inference_steps": 9}, {}, {}, "few steps", "fine"),
        ({"prompt": None}, {}, {}, "prompt", "suspect"),
    ],
)  # fmt: skip
def test_where_a_cause_begins(settings, usual, told, name, state):
    found = causes(tiny_svd(), settings, usual, motion=[1.0], still_below=0.3, **told)
    assert [one.state for one in found if one.name == name] == [state]


def test_schedulers_of_distilled_models_and_quantised_parts_are_seen(monkeypatch):
    from diffusers import LCMScheduler

    pipe = tiny_svd()

    def suspects():
        found = causes(pipe, {"num_inference_steps": 25}, {}, motion=[1.0], still_below=0.3)
        return [one.name for one in found if one.state == "suspect"]

    assert suspects() == []
    monkeypatch.setattr(pipe, "scheduler", LCMScheduler())
    assert suspects() == ["few steps"]
    monkeypatch.setattr(pipe.unet, "hf_quantizer", object(), raising=False)
    assert suspects() == ["few steps", "quantisation"]


def test_a_step_cache_that_is_on_is_seen():
    from diffusers import (
        FasterCacheConfig,
        FirstBlockCacheConfig,
        MagCacheConfig,
        PyramidAttentionBroadcastConfig,
        TaylorSeerCacheConfig,
        TextKVCacheConfig,
    )

    pipe = TINY[next(key for key in TINY if key.startswith("wan"))].build()

    def state():
        found = causes(pipe, {}, {}, motion=[1.0], still_below=0.3)
        return next(one.state for one in found if one.name == "step cache")

    assert state() == "fine"
    for config in (
        FirstBlockCacheConfig(threshold=0.1),
        PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500),
        FasterCacheConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500),
        MagCacheConfig(num_inference_steps=4, mag_ratios=[1.0] * 4),
        TaylorSeerCacheConfig(),
    ):
        pipe.transformer.enable_cache(config)
        assert state() == "suspect", config
        pipe.transformer.disable_cache()
        assert state() == "fine", config
    pipe.transformer.enable_cache(TextKVCacheConfig())
    assert state() == "fine"  # it keeps what no step changes


def test_what_a_view_is_told_reaches_the_network():
    """The noise on SVD's photo and Animate-Anything's mask, as the pipeline's own call has them."""
    images = to_unit(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)))
    pipe = tiny_svd()
    plain, noisy = (view_of(pipe, {"noise_aug_strength": s}).encode_condition(images, ["", ""], 3) for s in (0.0, 0.1))
    again = view_of(pipe, {"noise_aug_strength": 0.1}).encode_condition(images, ["", ""], 3)
    assert not torch.equal(plain.latents, noisy.latents)
    assert torch.equal(again.latents, noisy.latents)
    assert not torch.equal(plain.added_time_ids, noisy.added_time_ids)
    pipe = animate_anything.tiny_animate_anything()
    half = Image.new("L", (32, 32), 0)
    half.paste(255, (16, 0, 32, 32))
    everywhere, told = (view_of(pipe, given).encode_condition(images, ["", ""], 3) for given in ({}, {"mask": half}))
    assert everywhere.mask.mean() == 1
    assert told.mask.mean() == pytest.approx(0.5)
    assert told.mask[..., 0].max() == 0


def test_a_vae_that_waits_off_the_accelerator_is_brought_to_it_first(monkeypatch):
    pipe, called = tiny_svd(), []

    class Hook:
        def pre_forward(self, module, *args, **kwargs):
            called.append(module)
            return args, kwargs

    monkeypatch.setattr(pipe.vae, "_hf_hook", Hook(), raising=False)
    encoded(view_of(pipe), np.zeros((1, 3, 32, 32, 3), np.uint8))
    assert called[0] is pipe.vae
