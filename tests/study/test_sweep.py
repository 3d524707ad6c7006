import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from unleak.core.start import Start
from unleak.data.video import read_video
from unleak.measure.motion import ESTIMATOR, motion_score
from unleak.report.sweep_page import page
from unleak.report.sweep_sheet import CELL, GAP, HEAD, MARGIN, SIDE, contact_sheet
from unleak.study import sweep as module
from unleak.study.sweep import Run, Sweep, parse_starts

pytestmark = pytest.mark.filterwarnings("ignore:all 5 steps are run")  # so few, as from a distilled model

PHOTO = Image.effect_noise((32, 16), 90).convert("RGB")
CALL = {"image": PHOTO, "height": 16, "width": 32, "num_frames": 3, "num_inference_steps": 5}
KARRAS = ((0.002 ** (1 / 7) + 700 ** (1 / 7)) / 2) ** 7  # 0.5T
STARTS = ["1.0T", "sigma=100", "0.5T"]


@pytest.fixture
def calls(tiny_svd):
    """What the denoiser is given at the first step of each call: at any level eps itself, by SVD's input scaling."""
    seen = []

    def spy(unet, args, kwargs):
        if len(seen) == 0 or float(args[1]) > seen[-1][0]:
            seen.append((float(args[1]), args[0][-1, :, :4].clone()))
        else:
            seen[-1] = (float(args[1]), seen[-1][1])

    handle = tiny_svd.unet.register_forward_pre_hook(spy, with_kwargs=True)
    yield seen
    handle.remove()


# The function


def test_every_start_has_the_same_noise(tiny_svd, calls):
    unleak.sweep(tiny_svd, start=STARTS, seed=3, **CALL)
    unleak.sweep(tiny_svd, start="1.0T", seed=4, **CALL)
    first, second, third, other = (noise for _, noise in calls)
    for noise in (second, third):
        torch.testing.assert_close(noise, first, rtol=1e-5, atol=1e-5)
    assert first.std() == pytest.approx(1, abs=0.15)
    assert not torch.allclose(first, other, atol=0.1)


def test_a_run_is_the_video_of_its_start(tiny_svd):
    done = unleak.sweep(tiny_svd, start=STARTS, seed=3, mode="truncate", **CALL)
    assert [start["asked"] for start in done.starts] == ["1.0T", "sigma=100", "0.5T"]
    assert [start["sigma"] for start in done.starts] == pytest.approx([700, 100, KARRAS])
    assert [frames.shape for frames in done.frames] == [(3, 16, 32, 3)] * 3
    assert len({frames.tobytes() for frames in done.frames}) == 3
    for start, frames, score in zip(STARTS, done.frames, done.scores, strict=True):
        with unleak.applied(tiny_svd, start=start, mode="truncate"):
            plain = tiny_svd(**CALL, generator=torch.Generator().manual_seed(3), output_type="np").frames[0]
        assert np.array_equal(frames, (plain * 255).round().astype(np.uint8))
        assert score == motion_score(frames).value


def test_the_pipeline_is_left_as_it_was_found(tiny_svd):
    plain = type(tiny_svd)
    unleak.sweep(tiny_svd, start="sigma=50", **CALL)
    assert type(tiny_svd) is plain
    attached = type(unleak.apply(tiny_svd, start="sigma=20"))
    unleak.sweep(tiny_svd, start="sigma=50", **CALL)
    assert type(tiny_svd) is attached


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": ["1.0T", "sigma=1e5"]}, "outside this VE process"),
        ({"start": ["1.0T", "0.94"]}, "ambiguous"),
        ({"start": "1.0T,soon"}, "not understood"),
        ({"start": " , "}, "one start or more"),
        ({"start": ["1.0T", "sigma=700"]}, "starts 1.0T and sigma=700 are the same level"),
        ({"start": "1.0T", "mode": "halve"}, "mode 'halve' is unknown"),
        ({"start": "1.0T", "generator": torch.Generator()}, "see seed"),
        ({"start": "1.0T", "sigmas": [1.0, 0.0]}, "see start"),
        ({"start": "1.0T", "promt": "a dog"}, "StableVideoDiffusionPipeline takes no promt: its arguments are image"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_run(tiny_svd, calls, given, message):
    with pytest.raises(ValueError, match=r"start|mode|leave it out|takes no") as caught:
        unleak.sweep(tiny_svd, **{**CALL, **given})
    assert message in str(caught.value)
    assert calls == []


def test_two_images_are_refused(tiny_svd):
    with pytest.raises(ValueError, match="of one input, not of 2"):
        unleak.sweep(tiny_svd, start="1.0T", **CALL | {"image": [PHOTO, PHOTO]})


def test_starts_are_read_from_text_and_sequence():
    assert parse_starts("1.00T, sigma=20,") == (Start.fraction(1), Start.sigma(20))
    assert parse_starts([Start.sigma(20), "0.5T"]) == (Start.sigma(20), Start.fraction(0.5))


def test_what_a_function_call_leaves_to_reproduce_it(tiny_svd):
    about = unleak.sweep(tiny_svd, start="sigma=20", seed=5, fps=9, **CALL).about
    assert about["reproduce"] == (
        "unleak.sweep(pipe, start=['sigma=20'], init='standard', mode='auto', seed=5, fps=9, image=..., height=16,"
        " width=32, num_frames=3, num_inference_steps=5)"
    )
    assert about["settings"]["fps"] == 9
    assert about["settings"]["image"]["image"] == "32x16 RGB"
    assert re.fullmatch("[0-9a-f]{64}", about["settings"]["image"]["sha256"])
    assert json.loads(json.dumps(about)) == about


# What is measured


def moving(speed: float, size: tuple[int, int] = (48, 64), count: int = 5) -> np.ndarray:
    """A smooth texture that moves `speed` px per frame to the right."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    frames = []
    for k in range(count):
        u = x - speed * k
        waves = [np.sin(u / 5 + y / 9), np.cos(u / 8 - y / 6), np.sin(u / 13 + y / 21)]
        frames.append(np.stack([127 + 90 * (waves[0] + waves[1] + waves[2]) / 3] * 3, -1))
    return np.stack(frames).round().astype(np.uint8)


@pytest.mark.parametrize(("speed", "size"), [(1.0, (48, 64)), (3.0, (390, 580))])
def test_the_pan_of_small_and_of_large_frames(speed, size):
    run = Run.measured({}, None, moving(speed, size))
    assert run.pan == pytest.approx(speed, abs=0.02)


def test_no_camera_motion_is_none_and_said():
    noise = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    run = Run.measured(start(0.5), (2.0, 0.0), noise)
    assert run.pan is None
    assert run.record["camera"]["explained"] == 0
    text = page(Sweep((run,), 7.0, {"seed": 0}).record, [b""])
    assert "no camera motion found" in text


# What is saved


def start(fraction: float, asked: str | None = None) -> dict:
    units = {"timestep": 1000 * fraction, "fraction": fraction, "sigma": 10 * fraction, "log_snr": -fraction}
    return {"asked": asked or f"{fraction:g}T", "process": "VP", **units, "edm_sigma": 1.0, "flow_sigma": 0.5}


@pytest.fixture(scope="module")
def done():
    runs = [Run.measured(start(f), (2.0, 1.0, 0.0), moving(v)) for f, v in ((1.0, 0.2), (0.9, 1.0), (0.8, 2.0))]
    return Sweep(tuple(runs), 7.0, {"seed": 0, "settings": {"prompt": "<script>alert(1)</script>"}, "versions": {}})


@pytest.fixture(scope="module")
def folder(done, tmp_path_factory):
    return done.save(tmp_path_factory.mktemp("sweeps") / "deep" / "s").parent


def test_the_files(done, folder):
    names = {"index.html", "sheet.png", "sweep.json", "start-1T.mp4", "start-0.9T.mp4", "start-0.8T.mp4"}
    assert {path.name for path in folder.iterdir()} == names
    record = json.loads((folder / "sweep.json").read_text())
    assert set(record["files"]) == names
    assert record["video"] == {"num_frames": 5, "height": 48, "width": 64, "fps": 7.0}
    assert ESTIMATOR in record["metric"]["motion"]
    assert record["unleak"] == unleak.__version__
    for run, told in zip(done.runs, record["runs"], strict=True):
        assert told["start"] == run.start
        assert told["sigmas"] == [2.0, 1.0, 0.0]
        assert sum(told["motion"]["per_pair"]) == pytest.approx(told["motion"]["score"])
        assert len(told["camera"]["per_pair"]) == 4
        assert told["camera"]["explained"] == 4
    assert [run["camera"]["pan"] for run in record["runs"]] == pytest.approx([0.2, 1, 2], abs=0.03)


def test_the_videos_in_the_page_decode_to_the_frames(done, folder, tmp_path):
    text = (folder / "index.html").read_text(encoding="utf-8")
    found = re.findall(r'<video [^>]*src="data:video/mp4;base64,([^"]+)"', text)
    assert len(found) == 3
    for run, encoded in zip(done.runs, found, strict=True):
        (tmp_path / "video.mp4").write_bytes(base64.b64decode(encoded))
        clip = read_video(tmp_path / "video.mp4")
        assert clip.fps == 7
        assert clip.frames.shape == run.frames.shape
        assert np.abs(clip.frames.astype(int) - run.frames).mean() < 3


def test_the_page_needs_nothing_from_outside(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[\w.-]+\.\w|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "default-src 'none'" in text
    assert "{{" not in text


def test_the_page_shows_what_was_given_as_text(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == 1


def test_the_chart_goes_from_noise_to_less_and_its_points_lead_to_the_videos(folder, done):
    text = (folder / "index.html").read_text(encoding="utf-8")
    pattern = r'<a xlink:href="#start-(\d+)">\s*<use [^>]*x="([\d.]+)" y="([\d.]+)"'
    found = [(int(k), float(x), float(y)) for k, x, y in re.findall(pattern, text.split("Camera speed")[0])]
    order, x, y = zip(*found, strict=True)
    assert order == (0, 1, 2)
    assert x[2] - x[1] == pytest.approx(x[1] - x[0], abs=0.2)  # equal distances in fraction, noisiest first
    assert x[0] < x[1]
    # Heights are linear in the scores, and higher is more.
    slope = (y[2] - y[0]) / (done.scores[2] - done.scores[0])
    assert slope < 0
    assert y[1] == pytest.approx(y[0] + slope * (done.scores[1] - done.scores[0]), abs=0.2)
    for score in done.scores:
        assert f">{score:.1f}</text>" in text


def test_one_start_makes_a_page_too(done):
    alone = Sweep(done.runs[:1], 7.0, {"seed": 0})
    assert "One photo, animated from one noise level" in page(alone.record, [b""])


def test_pure_noise_has_infinite_units(done):
    pure = Run.measured(start(1.0) | {"sigma": None, "log_snr": None, "edm_sigma": None}, None, moving(1))
    text = page(Sweep((pure, done.runs[1]), 7.0, {"seed": 0}).record, [b"", b""])
    cells = re.findall(r"<td>([^<]+)</td>", text)
    assert [cell for cell in cells if not cell.isascii()] == [
        "\u221e",
        "\u2212\u221e",
        "\u221e",
        "\u2013",
    ]  # no steps known
    assert "-" in repr(Sweep((pure,), 7.0, {})).splitlines()[-1].split()


def test_the_contact_sheet_has_a_row_for_each_start_and_a_column_for_each_frame():
    videos = [np.full((20, 8, 16, 3), 0, np.uint8) for _ in range(2)]
    for row, video in enumerate(videos):
        for k, frame in enumerate(video):
            frame[:] = (100 * row, 10 * k, 7)
    sheet = contact_sheet(videos, [("1.0T", "motion 3"), ("0.9T", "motion 4")], columns=5)
    cell = 2 * CELL
    width, height = SIDE + 5 * cell + 4 * GAP, HEAD + 2 * CELL + GAP
    assert sheet.size == (width + 2 * MARGIN, height + 2 * MARGIN)
    pixels = np.asarray(sheet)
    for row in range(2):
        for column, k in enumerate((0, 5, 10, 14, 19)):
            top, left = MARGIN + HEAD + row * (CELL + GAP), MARGIN + SIDE + column * (cell + GAP)
            block = pixels[top : top + CELL, left : left + cell]
            assert (block == (100 * row, 10 * k, 7)).all()
        assert pixels[top : top + CELL, MARGIN : MARGIN + SIDE - GAP].min() < 128  # its label
    assert pixels[:MARGIN].min() == 255
    assert len(contact_sheet([videos[0][:2]], [("1.0T",)]).getbbox()) == 4


def test_it_says_what_it_is(done):
    first, head, *rows = repr(done).splitlines()
    assert first == f"Sweep of 3 starts from the same noise; {ESTIMATOR}"
    assert head.split() == ["start", "sigma", "log-SNR", "motion", "camera", "px/frame"]
    assert [row.split()[0] for row in rows] == ["1T", "0.9T", "0.8T"]


def test_a_folder_is_replaced_only_if_asked_and_all_of_it_is_a_sweep(done, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    done.save(folder)  # an empty folder is as good as none
    one = Sweep(done.runs[:1], 7.0, {"seed": 0})
    with pytest.raises(ValueError, match="exists; give --overwrite"):
        one.save(folder)
    assert (folder / "start-0.8T.mp4").exists()
    one.save(folder, overwrite=True)
    assert not (folder / "start-0.8T.mp4").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"files of others \(notes.txt\)"):
        one.save(folder, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="not a folder"):
        one.save(file, overwrite=True)
    assert ((folder / "notes.txt").read_text(), file.read_text()) == ("mine", "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "s"]


@pytest.mark.parametrize("before", [False, True])
def test_a_folder_appears_whole_or_not_at_all(done, tmp_path, monkeypatch, before):
    folder = tmp_path / "s"
    if before:
        done.save(folder)
    old = {path.name: path.read_bytes() for path in folder.iterdir()} if before else None

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "page", fail)
    with pytest.raises(KeyboardInterrupt):
        done.save(folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["s"] * before
    assert not before or {path.name: path.read_bytes() for path in Path(folder).iterdir()} == old
