"""RAFT without torchvision: a stand-in with its interface, whose flow is known."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unleak.measure.motion import DIS, Flow, motion_score
from unleak.measure.raft import WEIGHTS, Raft


class Known(torch.nn.Module):
    """Says that all content moves by `weight` pixels, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.seen = []

    def forward(self, image1, image2, num_flow_updates=12):
        assert image1.shape[-2] % 8 == image1.shape[-1] % 8 == 0, "what the real one refuses"
        self.seen.append((image1, image2, num_flow_updates))
        flow = self.weight[:, None, None].expand(1, 2, *image1.shape[-2:])
        return [torch.zeros_like(flow), flow]  # one prediction for each update, the last is the best


@pytest.fixture
def torchvision(monkeypatch):
    built = []

    def raft_large(*, weights, progress):
        assert weights is None, "that would download"
        assert not progress
        built.append(Known())
        return built[-1]

    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", SimpleNamespace(raft_large=raft_large))
    return built


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "raft_large_mine.pth"
    torch.save({"weight": torch.tensor([3.0, -4.0])}, file)
    return file


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_score_is_the_papers_by_raft_and_says_so(torchvision, weights):
    flow = Raft(weights, updates=20)
    assert isinstance(flow, Flow)
    score = motion_score(noise(4, 32, 48, 3), flow=flow)
    assert score.per_pair == pytest.approx([5, 5, 5])  # |(3, -4)|
    assert score.value == pytest.approx(15)
    assert score.estimator == "RAFT (torchvision, raft_large_mine.pth, 20 updates) at 800x450"
    assert motion_score(noise(2, 32, 48, 3)).estimator == "OpenCV DIS (medium) at 800x450"


def test_the_network_sees_frames_in_their_range_and_a_multiple_of_eight(torchvision, weights):
    a, b = noise(2, 450, 800, 3)
    assert Raft(weights)(a, b).shape == (450, 800, 2)
    ((first, second, updates),) = torchvision[0].seen
    assert first.shape == (1, 3, 456, 800)
    assert updates == 12
    for frame, seen in ((a, first), (b, second)):
        expected = torch.from_numpy(frame / 127.5 - 1).float().permute(2, 0, 1)
        torch.testing.assert_close(seen[0, :, 3:453], expected)
        assert (seen[0, :, :3] == seen[0, :, 3:4]).all()


def test_the_flow_is_the_one_of_the_frame_not_of_its_rim(torchvision, weights, monkeypatch):
    flow = Raft(weights)
    monkeypatch.setattr(flow, "model", lambda a, b, num_flow_updates: [a[:, :2]])
    a, b = noise(2, 131, 133, 3)
    np.testing.assert_allclose(flow(a, b), a[..., :2] / 127.5 - 1, atol=1e-6)


def test_weights_are_found_in_torchs_cache(torchvision, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"no weights of RAFT at .*{WEIGHTS}; download https://\S+{WEIGHTS}"):
        Raft()
    (tmp_path / "checkpoints").mkdir()
    torch.save({"weight": torch.ones(2)}, tmp_path / "checkpoints" / WEIGHTS)
    assert WEIGHTS in Raft().name


@pytest.mark.parametrize("content", [b"", b"junk", {"module.weight": torch.zeros(2)}, {"weight": torch.zeros(3)}, [1]])
def test_other_weights_are_refused(torchvision, tmp_path, content):
    file = tmp_path / "other.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(ValueError, match=r"other.pth (does not hold the weights of|is not a file of weights).*https"):
        Raft(file)


def test_without_torchvision(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModuleNotFoundError, match=r"torchvision, which is not installed: install the .*score with DIS"):
        Raft(weights)


def test_dis_is_a_flow_too():
    a = noise(128, 128, 3)
    assert isinstance(DIS(), Flow)
    assert abs(DIS()(a, a)).max() == 0
