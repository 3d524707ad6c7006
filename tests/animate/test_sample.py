import math

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.animate.noise import initial_noise
from unleak.animate.sample import sample
from unleak.animate.settings import Settings
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.image import fit_image
from unleak.zoo.hub import load
from unleak.zoo.registry import MODELS, find_model


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def spec(tiny_folder):
    return find_model(tiny_folder)


@pytest.fixture
def settings(spec):
    """Settings of the tiny model at its smallest size."""
    return lambda **given: Settings.for_model(spec, **{"height": 16, "width": 16, "steps": 1} | given)


PHOTO = Image.effect_noise((40, 30), 90).convert("RGB")


def test_full_start_is_the_plain_pipeline(pipe, settings):
    made = sample(pipe, PHOTO, settings(start="1.0T", steps=2, seed=3))
    plain = pipe(
        fit_image(PHOTO, 16, 16),
        height=16, width=16, num_frames=4, fps=7, num_inference_steps=2, decode_chunk_size=8,
        generator=torch.Generator().manual_seed(3), output_type="pt",
    ).frames[0]  # fmt: skip
    expected = (plain * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(made.frames, expected)
    assert made.record["settings"]["init"] == "standard"
    assert made.record["sigmas"][0] == pytest.approx(700)


def test_the_recommended_fix_is_the_default_and_recorded(pipe, spec, settings):
    seen = []
    made = sample(pipe, PHOTO, settings(steps=3), on_step=lambda done, of: seen.append((done, of)))
    assert made.frames.shape == (4, 16, 16, 3)
    assert made.record["start"]["asked"] == spec.start == "sigma=100"
    assert made.record["start"]["log_snr"] == pytest.approx(-2 * math.log(100))
    assert made.record["sigmas"][0] == pytest.approx(100)
    assert len(made.record["sigmas"]) == 4
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_same_seed_gives_the_same_video_and_leaves_the_global_generator(pipe, settings):
    state = torch.get_rng_state()
    first = sample(pipe, PHOTO, settings(seed=5)).frames
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert np.array_equal(sample(pipe, PHOTO, settings(seed=5)).frames, first)
    other = sample(pipe, PHOTO, settings(seed=6)).frames
    assert not np.array_equal(other, first)


def test_nan_is_told_and_not_written_as_black(pipe, settings, monkeypatch):
    monkeypatch.setattr(pipe, "decode_latents", lambda *args, **kwargs: torch.full((1, 3, 4, 16, 16), math.nan))
    with pytest.raises(ValueError, match=r"NaN in torch.float32; give a dtype"):
        sample(pipe, PHOTO, settings())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height": 17}, "size 64x17: tiny takes multiples of 16"),
        ({"start": "sigma=1e5"}, "outside"),
        ({"start": "0.94"}, "ambiguous"),
        ({"start": "soon"}, "not understood"),
        ({"start": "940", "motion": "low"}, "not both"),
    ],
)
def test_settings_are_checked_before_any_model_is_loaded(spec, given, message):
    with pytest.raises(ValueError, match=r"size|start|sigma") as caught:
        Settings.for_model(spec, **given)
    assert message in str(caught.value)


def test_initial_noise_by_name_file_and_model(tmp_path, spec):
    mean = torch.rand(4, 4, 8, 8).double()
    moments = LatentMoments(1, mean, mean.square() + 0.5, MomentsMeta("m", "v"))
    moments.save(tmp_path / "moments.safetensors")

    def noise(init, of=spec):
        return initial_noise(Settings.for_model(of, init=init, start="1.0T"), of)

    assert isinstance(noise(str(tmp_path / "moments.safetensors")), AnalyticInit)
    assert repr(noise("unit")) == "Unit()"
    with pytest.raises(ValueError, match="no moments for tiny yet; make them"):
        noise("analytic")
    with pytest.raises(ValueError, match="give standard, unit, analytic, or a file"):
        noise("analitic", MODELS["svd"])
