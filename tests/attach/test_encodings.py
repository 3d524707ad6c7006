"""Encoders that are asked once."""

import numpy as np
import pytest
import torch

from tests.tiny import tiny_svd
from tests.tiny.model import photo
from unleak.attach.encodings import encoded_once

CALL = {"height": 16, "width": 32, "num_frames": 3, "num_inference_steps": 1, "output_type": "np"}


@pytest.fixture
def asked():
    """A pipeline, and how often each encoder of it was really run."""
    pipe = tiny_svd()
    counts = {"vae": 0, "image_encoder": 0}

    def count(name):
        def spy(*_):
            counts[name] += 1

        return spy

    handles = [
        pipe.vae.encoder.register_forward_pre_hook(count("vae")),
        pipe.image_encoder.vision_model.register_forward_pre_hook(count("image_encoder")),
    ]
    yield pipe, counts
    for handle in handles:
        handle.remove()


def call(pipe, image, seed=0):
    return pipe(image, generator=torch.Generator().manual_seed(seed), **CALL).frames


def test_equal_questions_are_answered_from_memory_with_the_same_bits(asked):
    pipe, counts = asked
    image, other = photo(16, 32), photo(16, 32, seed=6)
    plain = [call(pipe, image), call(pipe, image, 1), call(pipe, other)]
    assert counts == {"vae": 3, "image_encoder": 3}
    with encoded_once(pipe):
        again = [call(pipe, image), call(pipe, image), call(pipe, image, 1), call(pipe, other), call(pipe, other)]
    # The photo that the VAE sees has noise of the seed's on it; what CLIP sees has none.
    assert counts == {"vae": 3 + 3, "image_encoder": 3 + 2}
    for video, expected in zip(again, [plain[0], plain[0], plain[1], plain[2], plain[2]], strict=True):
        assert np.array_equal(video, expected)


def test_what_a_pipeline_writes_into_an_answer_is_its_own(asked):
    pipe, _ = asked
    pixels = torch.zeros(1, 3, 16, 16)
    with encoded_once(pipe), torch.no_grad():
        first = pipe.vae.encode(pixels).latent_dist.mode()
        before = first.clone()
        first.zero_()
        assert torch.equal(pipe.vae.encode(pixels).latent_dist.mode(), before)
        assert not torch.equal(before, first)


def test_everything_is_put_back_and_no_part_is_touched(asked, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    pipe, counts = asked
    parts = {name: pipe.components[name] for name in ("vae", "image_encoder")}
    held = {name: set(vars(part)) for name, part in parts.items()}
    with encoded_once(pipe):
        assert all(vars(pipe)[name] is not part for name, part in parts.items())
        assert {name: set(vars(part)) for name, part in parts.items()} == held
    monkeypatch.setattr(pipe.vae.encoder, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt), encoded_once(pipe):
        call(pipe, photo(16, 32))
    assert all(vars(pipe)[name] is part for name, part in parts.items())
    monkeypatch.undo()
    counts.update(vae=0, image_encoder=0)
    call(pipe, photo(16, 32))
    call(pipe, photo(16, 32))
    assert counts == {"vae": 2, "image_encoder": 2}
