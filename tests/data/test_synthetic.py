"""Clips show exactly the motion that they say they have."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.data.image import MediaError
from unleak.data.synthetic import Motion, MotionRange, SyntheticClips
from unleak.measure.motion import camera_motion


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two smooth random textures as photos."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a", "b"):
        noise = torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(ord(name)))
        texture = torch.nn.functional.interpolate(noise, scale_factor=8, mode="bicubic")[0]
        pixels = (128 + 50 * texture).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


class Fixed(MotionRange):
    """A law that always draws the same motion."""

    def draw(self, rng):
        return FIXED[self.still]


FIXED = {
    0.0: Motion(),
    0.1: Motion(dx=1.0),
    0.2: Motion(dy=-0.6),
    0.3: Motion(log_zoom=0.02),
    0.4: Motion(rotation=0.02),
    0.5: Motion(dx=-0.8, dy=0.5, log_zoom=0.01, rotation=-0.01),
}


@pytest.mark.parametrize("case", list(FIXED))
def test_camera_motion_seen_is_the_motion_stated(photos, case):
    clips = SyntheticClips(photos, num_frames=6, length=3, motion=Fixed(still=case))
    for index in range(3):
        clip = clips.clip(index)
        seen = np.median(camera_motion(clip.video.numpy()), axis=0)
        truth = FIXED[case]
        assert clip.camera == truth
        assert np.abs(seen[:2] - [truth.dx, truth.dy]).max() < 0.08  # px per frame
        assert np.abs(seen[2:] - [truth.log_zoom, truth.rotation]).max() < 0.003


def test_still_clip_is_one_frame_repeated(photos):
    video = SyntheticClips(photos, num_frames=4, motion=Fixed(still=0.0)).clip(0).video
    assert torch.equal(video, video[:1].expand_as(video))
    assert video.float().std() > 10  # and it shows something


def test_cut_out_moves_by_its_own_velocity(photos):
    class OneObject(MotionRange):
        def draw(self, rng):
            return Motion(dx=1.5, dy=0.5) if self.count(rng) else Motion()

        calls: list[int] = []  # noqa: RUF012

        def count(self, rng):
            self.calls.append(1)
            return len(self.calls) % 2 == 0  # camera first, then the object

    clip = SyntheticClips(photos, num_frames=7, motion=OneObject(object_share=1.0)).clip(0)
    (cut_out,) = clip.objects
    assert (cut_out.motion.dx, cut_out.motion.dy) == (1.5, 0.5)
    changed = (clip.video[0].float() - clip.video[6].float()).abs().sum(-1) > 12
    rows, columns = torch.nonzero(changed, as_tuple=True)
    # What changed lies within the outline's reach (radius plus its waves) of the object's path, and nowhere else.
    ends = [(cut_out.x + k * 1.5, cut_out.y + k * 0.5) for k in (0, 6)]
    nearest = torch.stack([torch.hypot(columns + 0.5 - x, rows + 0.5 - y) for x, y in ends]).min(0).values
    assert len(rows) > 20
    assert nearest.max() < 1.7 * cut_out.radius


def test_clips_depend_on_seed_and_index_alone(photos):
    one, two = (SyntheticClips(photos, seed=3, length=20) for _ in range(2))
    two.clip(0)
    assert torch.equal(one.clip(7).video, two.clip(7).video)
    assert not torch.equal(one.clip(7).video, one.clip(8).video)
    assert not torch.equal(one.clip(7).video, SyntheticClips(photos, seed=4, length=20).clip(7).video)


def test_law_of_motion(photos):
    law = MotionRange(max_speed=2.0, still=0.25, still_speed=0.05)
    rng = np.random.default_rng(0)
    speeds = np.array([law.draw(rng).speed for _ in range(4000)])
    assert speeds.max() <= 2.0
    # 25 % still, and 2.5 % of the others below 0.05 by chance.
    assert np.mean(speeds <= 0.05) == pytest.approx(0.25 + 0.75 * 0.025, abs=0.02)
    assert speeds[speeds > 0.05].mean() == pytest.approx((2.0 + 0.05) / 2, abs=0.04)


def test_two_directions_are_right_and_left():
    rng = np.random.default_rng(0)
    law = MotionRange(directions=2, min_speed=0.8, max_speed=1.2, max_log_zoom=0.0, max_rotation=0.0, still=0.0)
    motions = [law.draw(rng) for _ in range(400)]
    assert max(abs(m.dy) for m in motions) < 1e-12
    assert {m.log_zoom for m in motions} | {m.rotation for m in motions} == {0.0}
    right = [m.dx for m in motions if m.dx > 0]
    assert len(right) == pytest.approx(200, abs=40)
    assert 0.8 <= min(right) < 0.85 < 1.15 < max(right) <= 1.2
    assert -1.2 <= min(m.dx for m in motions) < -1.15


def test_a_share_of_the_moving_clips_zooms_and_the_others_pan():
    rng = np.random.default_rng(0)
    law = MotionRange(1.5, 0.0, 0.0, min_speed=1.5, directions=4, zoom_share=1 / 3, zoom=0.02, still=0.4)
    motions = [law.draw(rng) for _ in range(3000)]
    kinds = Counter((round(m.dx, 9), round(m.dy, 9), m.log_zoom) for m in motions if m.speed > 0.05 or m.log_zoom)
    pans = {(1.5, 0.0, 0.0), (-1.5, 0.0, 0.0), (0.0, 1.5, 0.0), (0.0, -1.5, 0.0)}
    assert set(kinds) == pans | {(0.0, 0.0, 0.02), (0.0, 0.0, -0.02)}
    assert all(count == pytest.approx(300, abs=60) for count in kinds.values())


def test_items_do_not_tell_the_motion(photos):
    clips = SyntheticClips(photos, length=5)
    items = [clips[i] for i in range(5)]
    assert {(item["fps"], item["motion_bucket_id"]) for item in items} == {(6.0, 127.0)}
    assert items[0]["video"].shape == (12, 64, 64, 3)


def test_folder_without_photos(tmp_path):
    with pytest.raises(ValueError, match="no photo in"):
        SyntheticClips(tmp_path)


def test_index_out_of_range(photos):
    with pytest.raises(IndexError, match="clip 5 of 5"):
        SyntheticClips(photos, length=5).clip(5)


def test_alternatives_part_from_one_first_frame(photos):
    clips = SyntheticClips(photos, num_frames=6, length=3)
    cameras = [FIXED[case] for case in (0.0, 0.1, 0.5)]
    videos = clips.alternatives(2, cameras)
    assert videos.shape == (3, 6, 64, 64, 3)
    assert all(torch.equal(video[0], videos[0, 0]) for video in videos)
    for video, camera in zip(videos, cameras, strict=True):
        seen = np.median(camera_motion(video.numpy()), axis=0)
        assert np.abs(seen[:2] - [camera.dx, camera.dy]).max() < 0.08
    with pytest.raises(IndexError, match="clip 3 of 3"):
        clips.alternatives(3, cameras)


@pytest.mark.parametrize("content", [b"", b"no photo", b"\x89PNG\r\n\x1a\n", "cut"])
def test_a_damaged_photo_is_one_line(photos, tmp_path, content):
    content = (photos / "a.png").read_bytes()[:900] if content == "cut" else content
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png: not a photo that can be read \(.*export it again or move it away$"):
        SyntheticClips(tmp_path, size=16, num_frames=2)[0]


def test_what_is_no_file_is_no_photo(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no photo in"):
        SyntheticClips(tmp_path)
