"""The protocol for nano 2: within its bounds, and run end to end on a tiny model."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.evidence2.__main__ import PROTOCOL, asked, main
from benchmarks.evidence2.report import BEGIN, END, page, readme, write
from benchmarks.evidence2.scenes import Scene
from benchmarks.evidence2.videos import measure, summarize


@pytest.fixture
def protocol():
    return yaml.safe_load(PROTOCOL.read_text())


def test_the_protocol_keeps_to_what_was_announced(protocol):
    assert len(protocol["methods"]) <= 12
    assert len(protocol["readme"]) == 6
    assert set(protocol["readme"]) <= set(protocol["methods"])
    assert protocol["clips"] >= 200
    assert protocol["noises"] >= 2
    assert all(len(names) == 2 for names in protocol["models"].values())  # training seeds
    assert sum(one["probability"] for one in protocol["law"]) == pytest.approx(1)
    assert len({name for name, _, _ in asked(protocol)}) == len(list(asked(protocol)))


def still(side=64, frames=4):
    rng = np.random.default_rng(0)
    wide = np.asarray(
        Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)).resize((side + 40, side), Image.BICUBIC)
    )
    rests = np.stack([wide[:, 20 : 20 + side]] * frames)
    pans = np.stack([wide[:, 20 - 2 * k : 20 - 2 * k + side] for k in range(frames)])
    return Scene(0, "a.png", np.stack([rests, pans]), np.array([0.5, 0.5]))


def test_what_moves_rests_and_breaks(protocol):
    scene = still()
    rests, pans = (measure(video, scene, protocol) for video in scene.videos)
    assert (rests["moves"], rests["broken"], rests["first_frame"]) == (False, False, 60)
    assert (pans["moves"], pans["broken"], pans["fidelity"]) == (True, False, 60)
    noise = np.random.default_rng(1).integers(0, 256, scene.videos[0].shape, dtype=np.uint8)
    broken = measure(noise, scene, protocol)
    assert (broken["moves"], broken["broken"]) == (False, True)


def row(method, photo, seed, moves):
    return {"method": method, "photo": photo, "training_seed": seed, "clip": int(photo), "noise": 0, "moves": moves,
            "broken": False, "first_frame": 30.0, "fidelity": 25.0, "sharpness": 1.0, "seconds": 2.0}  # fmt: skip


def test_seeds_count_the_same(protocol, tmp_path):
    rows = [row("plain", str(k), 0, k < 2) for k in range(8)] + [row("plain", "0", 1, True)]
    one = summarize(rows)["moves"]
    assert one["each"] == [0.25, 1.0]
    assert one["value"] == pytest.approx(0.625)
    rows += [row("start 10", str(k), 0, True) | {"seconds": 1.0} for k in range(8)]
    rows += [row("curve start 0", str(k), 0, True) for k in range(8)]
    found = {"plain": summarize(rows[:9]), "start 10": summarize(rows[9:17])}
    assert "| start 10 | 100% (100% to 100%) | 0% | 30.0 dB | 0.5x |" in readme(protocol, found)
    assert "| plain | " in page(protocol, found)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(protocol, rows, tmp_path, into=tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "curve start 0" not in text
    assert "| start | plain | 100% (100% to 100%) | 25.0 | 8 |" in (tmp_path / "docs/evidence.md").read_text()
    assert (tmp_path / "docs/evidence-curve.png").exists()


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(protocol, tiny_folder, tmp_path, monkeypatch):
    """One clip of the real law, on a tiny model of the same family."""
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((400, 400), Image.Resampling.BICUBIC).save(photos / "a.png")
    small = protocol | {"clips": 1, "noises": 1, "curve_clips": 1, "steps": 2, "num_frames": 4}
    small["models"] = {"naive": [str(tiny_folder), str(tmp_path / "none")], "timenoise": [str(tiny_folder)]}
    small["law"] = [{"motion": [0, 0, 0], "probability": 0.5}, {"motion": [1.0, 0, 0], "probability": 0.5}]
    small["methods"] = {name: protocol["methods"][name] for name in ("plain", "start 10", "TimeNoise, start 10")}
    small["readme"] = ["plain", "start 10"]
    small["curve"] = {"start": [{}, {"start": "sigma=40"}], "low-pass": [{"fixes": ["low-pass=0.5:0.1"]}]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    words = [str(photos), "--protocol", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")]
    main(words)
    file = tmp_path / "out/rows-0.jsonl"
    before = file.read_text()
    methods = [json.loads(line)["method"] for line in before.splitlines()]
    assert methods == ["real clips", "oracle", *small["methods"], "curve start 0", "curve start 1", "curve low-pass 0"]
    main(words)
    assert file.read_text() == before
    assert "| plain |" in (tmp_path / "out/readme.md").read_text()
