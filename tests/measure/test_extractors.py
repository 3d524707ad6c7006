import numpy as np
import pytest
import torch
from torch import nn

from tests.files import sha
from unleak.measure.extractors import ImageFeatures, TorchScript, VideoMAE, i3d

VIDEO = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, x: torch.Tensor, half: bool = False) -> torch.Tensor:
        found = x.mean(dim=[2, 3, 4])
        return found / 2 if half else found


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Means()), str(file))
    return file


def test_a_torchscript_is_given_frames_from_0_to_255(script):
    found = TorchScript(script, sha256=sha(script).upper())(VIDEO)
    np.testing.assert_allclose(found, VIDEO.reshape(-1, 3).mean(0), rtol=1e-5)
    half = TorchScript(script, sha256=sha(script), half=True)(VIDEO)
    np.testing.assert_allclose(half, found / 2, rtol=1e-6)


def test_a_program_of_another_hash_is_not_run(script, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match=r"SHA-256 is .* it is not run"):
        TorchScript(script, sha256="0" * 64)
    with pytest.raises(ValueError, match="bec6519f66ea"):  # no number is called FVD without I3D
        i3d(script)
    with pytest.raises(FileNotFoundError):
        i3d(tmp_path / "none.pt")


def test_what_is_no_torchscript_is_refused(tmp_path):
    file = tmp_path / "x.pt"
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no torchscript file"):
        TorchScript(file, sha256=sha(file))


def test_clip_has_features_of_unit_length_of_pictures_and_texts(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from tests.tiny.text import words

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": 1000, "max_position_embeddings": 77}
    config = CLIPConfig(text_config=text, vision_config=small | {"image_size": 16, "patch_size": 8}, projection_dim=6)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path)
    size = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    features = ImageFeatures(str(tmp_path), batch_size=2)
    found = features(VIDEO)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(features(VIDEO[:1])[0], found[0], atol=1e-5)
    assert features.reads
    assert np.linalg.norm(features.text("a dog")) == pytest.approx(1)


def test_videomae_takes_as_many_frames_as_it_knows(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    VideoMAEModel(VideoMAEConfig(**small, image_size=16, patch_size=8, num_frames=4)).save_pretrained(tmp_path)
    network = VideoMAE(str(tmp_path))
    assert network(VIDEO).shape == (8,)
    longer = np.repeat(VIDEO, 3, axis=0)
    assert np.isfinite(network(longer)).all()


@pytest.mark.parametrize("network", [ImageFeatures, VideoMAE])
def test_a_source_that_is_no_model_is_one_line(network, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    for source in ("/dev/zero", str(tmp_path / "photo.png"), str(tmp_path / "none")):
        with pytest.raises(ValueError, match=r"not a folder; give a folder with a model of transformers, or a Hub id"):
            network(source)
    with pytest.raises(ValueError, match=r"no model there; it needs the config\.json"):
        network(str(tmp_path))
