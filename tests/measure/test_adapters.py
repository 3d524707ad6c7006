"""Other people's packages, by stand-ins with their signatures; those that are installed are compared with these."""

import inspect
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unleak.data.video import write_video
from unleak.measure.adapters.cd_fvd import CDFVD
from unleak.measure.adapters.torch_fidelity import Frames, TorchFidelity
from unleak.measure.adapters.vbench import VBench
from unleak.measure.adapters.vbench_layout import vbench_layout
from unleak.measure.frechet import frechet_distance

STANDINS = Path(__file__).parents[1] / "standins"
MODULES = ("cdfvd", "torch_fidelity", "vbench", "vbench2_beta_i2v")
RNG = np.random.default_rng(0)


@pytest.fixture
def weights(tmp_path):
    torch.save({"gain": torch.tensor(2.0)}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.fixture
def videos(tmp_path):
    """Four MP4 files, the later the longer."""
    for k in range(4):
        frames = RNG.integers(0, 256, (2 + k, 16, 32, 3), dtype=np.uint8)
        write_video(frames, tmp_path / f"{k}.mp4", fps=8)
    return sorted(tmp_path.glob("*.mp4"))


def moment_distance(x, y):
    """Of samples with the covariance over n, as cd-fvd has it, in closed form for commuting covariances."""
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.square(x.std(0) - y.std(0)).sum())


def test_cd_fvd_is_asked_for_features_and_for_the_distance(packages, weights, capsys):
    network = CDFVD("i3d", weights)
    video = RNG.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(network(video), 2 * video.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(
        network(video), 2 * video.mean((0, 1, 2)), rtol=1e-6
    )  # one video does not add to another
    x, y = RNG.normal(size=(50, 1)), 3 * RNG.normal(size=(40, 1)) + 1
    assert network.distance(x, y) == pytest.approx(moment_distance(x, y), rel=1e-5)
    assert network.distance(x, y) == pytest.approx(frechet_distance(x, y), rel=0.05)
    assert network.name.startswith("cd-fvd 0.1.1, i3d, weights weights.pt ")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("model", "frames", "reason"), [("i3d", 8, "takes 9 or more"), ("videomae", 15, "takes 16 frames")]
)
def test_cd_fvd_says_how_many_frames_it_takes(packages, weights, model, frames, reason):
    with pytest.raises(ValueError, match=f"{reason}.*give --num-frames 16"):
        CDFVD(model, weights)(np.zeros((frames, 4, 4, 3), np.uint8))


def test_cd_fvd_downloads_nothing_and_takes_its_own_weights_only(packages, tmp_path, weights):
    with pytest.raises(ValueError, match="no such file"):
        CDFVD("i3d", tmp_path / "none.pt")
    torch.save({"other": 1}, weights)
    with pytest.raises(ValueError, match="not the weights of cd-fvd's i3d"):
        CDFVD("i3d", weights)
    weights.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not the weights of cd-fvd's i3d"):
        CDFVD("i3d", weights)


@pytest.mark.parametrize("make", [lambda file: CDFVD("i3d", file), TorchFidelity], ids=["cd-fvd", "torch-fidelity"])
def test_a_package_that_is_not_there_is_told_with_the_command(monkeypatch, weights, make):
    for name in ("cdfvd", "cdfvd.fvd", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"cannot be used here .*: pip install (cd-fvd|torch-fidelity)"):
        make(weights)


def test_torch_fidelity_sees_every_frame_once(packages, weights, videos):
    measure = TorchFidelity(weights)
    ours = Frames([(videos[0], 2, 16, 32), (videos[1], 2, 16, 32)])
    theirs = Frames([(videos[3], 5, 16, 32)])
    assert (len(ours), len(theirs)) == (4, 5)
    assert ours[3].shape == (3, 16, 32)
    colours = [
        torch.stack(list(map(frames.__getitem__, range(len(frames))))).float().mean((0, 2, 3))
        for frames in (ours, theirs)
    ]
    found = measure(ours, theirs)
    assert found["FID of frames"]["value"] == pytest.approx(float((colours[0] - colours[1]).square().sum()))
    assert found["KID of frames"]["error"] == 0.05
    assert {"precision of frames", "recall of frames", "inception score of frames"} <= set(found)
    assert set(measure(ours, None)) == {"inception score of frames"}
    assert measure.name.startswith("torch-fidelity 0.4.0, inception-v3-compat, weights weights.pt ")
    with pytest.raises(ValueError, match="2 sizes; give one for all with --size"):
        measure(Frames([(videos[0], 2, 16, 32), (videos[1], 2, 8, 8)]), theirs)


def test_torch_fidelity_is_given_no_program(packages, tmp_path, weights):
    """The package unpickles whatever it is given."""

    class Program:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"gain": Program()}, weights)
    with pytest.raises(ValueError, match="no file of tensors"):
        TorchFidelity(weights)
    assert not (tmp_path / "made").exists()


def test_vbench_measures_the_videos_by_an_interpreter_that_has_it(packages, videos, tmp_path):
    image = tmp_path / "photo.png"
    image.write_bytes(b"picture")
    bench = VBench(["dynamic_degree", "i2v_subject", "camera_motion"], python=sys.executable)
    assert bench.name == "vbench 0.1.5"
    prompts = ["a dog", "a cat, camera pans left", "a dog", "a cat, camera pans left"]
    found = bench(videos, prompts, [image] * 4)
    sizes = [video.stat().st_size for video in videos]
    assert found["vbench dynamic_degree"]["value"] == pytest.approx(np.mean(sizes))
    assert found["vbench dynamic_degree"]["low"] < np.mean(sizes) < found["vbench dynamic_degree"]["high"]
    assert found["vbench i2v_subject"]["groups"] == 4
    assert found["vbench camera_motion"]["value"] == pytest.approx(np.mean([sizes[1], sizes[3]]))
    assert not list(tmp_path.glob("unleak-vbench*"))
    with pytest.raises(ValueError, match="vbench failed: RuntimeError: no weights"):
        VBench(["imaging_quality"])(videos, prompts, [None] * 4)


@pytest.mark.parametrize(
    ("dimensions", "prompts", "images", "reason"),
    [
        (["i2v_subject"], ["a"], [None], "give --images"),
        (["camera_motion"], ["a"], [Path("x")], "no prompt says how the camera moves"),
        (["i2v_subject"], ["a"] * 6, [Path("x")] * 6, "VBench reads 5 videos of a prompt, and 'a' has 6"),
    ],
)
def test_what_vbench_cannot_measure_is_told_before(packages, dimensions, prompts, images, reason):
    with pytest.raises(ValueError, match=reason):
        VBench(dimensions).check(prompts, images)


def test_an_interpreter_without_vbench_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vbench.py").write_text("raise ImportError('no decord')")
    with pytest.raises(ValueError, match=r"cannot be used by .*no decord.*give --vbench-python PATH"):
        VBench(["dynamic_degree"])
    with pytest.raises(ValueError, match="cannot be run"):
        VBench(["dynamic_degree"], python=tmp_path / "none")
    with pytest.raises(ValueError, match="--vbench colour: give some of i2v_subject"):
        VBench(["colour"])


@pytest.mark.parametrize("answer", ["", "nonsense", "[]", "5", "[" * 100_000, '{"version": ' + "1" * 5000 + "}"])
def test_an_interpreter_that_answers_nonsense_is_told(tmp_path, answer):
    (tmp_path / "answer").write_text(answer)
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(ValueError, match=r"vbench failed: what .*python answers"):
        VBench(["dynamic_degree"], python=tmp_path / "python")


def test_the_layout_is_what_vbench_i2v_looks_for(videos, tmp_path):
    photo = tmp_path / "photo.PNG"
    photo.write_bytes(b"picture")
    prompts = ["a dog", "a dog, camera zooms in", "a cat", "a dog"]
    folder = vbench_layout(videos, prompts, tmp_path / "bench", images=[photo, photo, None, photo])
    entries = {entry["prompt_en"]: entry for entry in json.loads((folder / "full_info.json").read_text())}
    assert set(entries["a dog"]["dimension"]) > {"i2v_subject", "i2v_background", "temporal_flickering"}
    assert "camera_motion" not in entries["a dog"]["dimension"]  # VBench stops at a name that says no camera motion
    assert "camera_motion" in entries["a dog, camera zooms in"]["dimension"]
    assert "i2v_subject" not in entries["a cat"]["dimension"]  # it has no photo, and VBench would stop
    assert "image_name" not in entries["a cat"]
    for entry in (entries["a dog"], entries["a dog, camera zooms in"]):
        assert (folder / "vbench2_beta_i2v/data/crop/1-1" / entry["image_name"]).read_bytes() == b"picture"
    assert sorted(file.name for file in (folder / "videos").iterdir()) == [
        "a cat-0.mp4", "a dog, camera zooms in-0.mp4", "a dog-0.mp4", "a dog-1.mp4",
    ]  # fmt: skip
    other = tmp_path / "other.png"
    other.write_bytes(b"another")
    with pytest.raises(ValueError, match="one photo for a prompt"):
        vbench_layout(videos[:2], ["a", "a"], tmp_path / "more", images=[photo, other])


def test_the_stand_ins_have_the_signatures_of_the_packages(packages, monkeypatch):
    """Skipped where none of them is installed."""

    def shapes():
        found = {}
        for module, names in {
            "cdfvd.fvd": ("cdfvd.__init__", "cdfvd.add_fake_stats", "cdfvd.empty_fake_stats",
                          "cdfvd.compute_fvd_from_stats", "FeatureStats.__init__", "FeatureStats.append",
                          "FeatureStats.get_mean_cov"),
            "vbench": ("VBench.__init__", "VBench.evaluate"),
            "vbench2_beta_i2v": ("VBenchI2V.evaluate",),
        }.items():  # fmt: skip
            try:
                __import__(module)
            except ImportError:
                continue
            for name in names:
                one = sys.modules[module]
                for part in name.split("."):
                    one = getattr(one, part)
                parameters = inspect.signature(one).parameters.values()
                found[f"{module} {name}"] = [(p.name, str(p.kind), p.default) for p in parameters]
        try:
            from torch_fidelity.defaults import DEFAULTS
        except ImportError:
            return found
        return found | {"torch_fidelity": set(DEFAULTS)}

    standing = shapes()
    from torch_fidelity import KNOWN

    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place) != STANDINS])
    real = shapes()
    if not real:
        pytest.skip("none of the packages is installed")
    if "torch_fidelity" in real:
        assert real.pop("torch_fidelity") >= KNOWN
    for name, parameters in real.items():
        assert standing[name] == parameters, name
