"""A loaded pipeline that is called without a size renders at its model's own."""

import copy
import pickle
from inspect import signature

import pytest
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

import unleak
from unleak.attach.plan import UnleakWarning
from unleak.zoo.registry import find_model

PHOTO = Image.new("RGB", (40, 30), (90, 120, 60))


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    pipe = unleak.load(tiny_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def shape(pipe, **inputs):
    # A whole denoising at the published size, 576x1024, would take minutes.
    return pipe(PHOTO, num_inference_steps=1, output_type="latent", **inputs).frames.shape[-4:]


def test_its_own_size_without_being_told(pipe, tiny_folder):
    own = find_model(tiny_folder).defaults
    frames, _, height, width = shape(pipe)
    scale = pipe.vae_scale_factor
    assert (frames, height * scale, width * scale) == (own["num_frames"], own["height"], own["width"])
    assert type(pipe).__name__ == "StableVideoDiffusionPipeline"
    assert signature(StableVideoDiffusionPipeline.__call__).parameters["width"].default == 1024  # nobody else's


def test_what_is_given_is_what_it_gets(pipe):
    assert shape(pipe, height=16, width=32, num_frames=2) == (
        2,
        4,
        16 // pipe.vae_scale_factor,
        32 // pipe.vae_scale_factor,
    )
    assert shape(pipe, height=16)[2] == 16 // pipe.vae_scale_factor


def test_with_a_fix_and_after_it(pipe):
    plain = shape(pipe)
    with unleak.applied(pipe, start="sigma=20"):
        with pytest.warns(UnleakWarning, match="1 steps") as caught:
            assert shape(pipe) == plain
        ours = [one.filename for one in caught if one.category is UnleakWarning]
        assert ours == [__file__]  # the caller's line, not one of unleak's
    assert shape(pipe) == plain


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("made_again", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_copies_and_pickles_keep_it(tiny_folder, applied, made_again):
    pipe = unleak.load(tiny_folder, device="cpu")
    if applied:
        unleak.apply(pipe, start="sigma=20")
    other = made_again(pipe)
    default = signature(type(other).__call__).parameters["num_frames"].default
    assert default == find_model(tiny_folder).defaults["num_frames"]
    assert str(unleak.summary(other)) == str(unleak.summary(pipe))


def test_a_saved_pipeline_is_one_of_diffusers(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert type(StableVideoDiffusionPipeline.from_pretrained(tmp_path)) is StableVideoDiffusionPipeline


def test_nano_knows_its_size_from_its_own_configuration():
    spec = find_model("nano")
    pipe = unleak.load("nano", device="cpu", only=("unet", "vae"))
    unet, vae = pipe.unet.config, pipe.vae.config
    side = unet.sample_size * 2 ** (len(vae.block_out_channels) - 1)
    assert (spec.defaults["height"], spec.defaults["width"]) == (side, side)
    assert spec.defaults["num_frames"] == unet.num_frames
    assert f"{unet.num_frames} frames of {side}x{side}" in spec.summary
    assert signature(type(pipe).__call__).parameters["height"].default == side
