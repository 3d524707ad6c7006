"""What is asked of a video against what its model is made for."""

import pytest

from unleak.animate.knobs import knobs
from unleak.animate.settings import Settings
from unleak.families.family import Argument
from unleak.zoo.registry import find_model


def test_more_frames_than_the_model_is_made_for_are_told():
    spec = find_model("svd-xt")
    made_for = spec.defaults["num_frames"]
    assert Settings.for_model(spec).caution(spec) is None
    assert Settings.for_model(spec, num_frames=made_for - 5).caution(spec) is None
    said = Settings.for_model(spec, num_frames=made_for + 5).caution(spec)
    assert said.startswith(f"{made_for + 5} frames: svd-xt is made for {made_for};")


def test_a_model_has_the_arguments_of_its_family_and_the_common_ones():
    found = {one.name: one.default for one in knobs(find_model("svd"))}
    assert {"motion_bucket_id", "fps", "noise_aug_strength"} <= found.keys()
    assert not {"motion_strength", "motion_scale", "frame_stride"} & found.keys()
    assert "frame_stride" in {one.name for one in knobs(find_model("dynamicrafter-256"))} | {
        one.name for one in knobs(find_model("dynamicrafter-512"))
    }


@pytest.mark.parametrize("value", [-1, 9, 8.5])
def test_a_value_outside_the_bounds_of_an_argument_is_refused(value):
    bounded = Argument("speed", "0 is still, 8 is fast", 0, 8)
    bounded.check(8)
    bounded.check(None)
    Argument("speed", "any").check(value)
    with pytest.raises(ValueError, match=rf"--set speed={value}: give 0 to 8: 0 is still"):
        bounded.check(value)
