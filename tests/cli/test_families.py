"""`unleak generate` with the families whose text encoders are too large to build here: what those say is told."""

import inspect
import json

import pytest
import torch
from transformers import CLIPImageProcessor

from tests.attach.watch import all_tiny
from tests.tiny.model import embeds
from tests.tiny.text import t5, words
from unleak.data.video import read_video

ALL = {tiny.name: tiny for tiny in all_tiny()}
SEEN, LLAMA = torch.ones(1, 4), (embeds(1, 4, 16), embeds(1, 8), torch.ones(1, 4))
GEMMA = (embeds(1, 8, 8), torch.ones(1, 8, dtype=torch.long))
SMALL = ["--size", "16x32", "--num-frames", 9]
WHOLE = "use_resolution_binning=false"
CASES = {
    "hunyuan-concat": (LLAMA, SMALL, (5, 32, 16)),  # its decoder drops the first latent frame
    "hunyuan-replace": (LLAMA, SMALL, (9, 32, 16)),
    "hunyuan-skyreels": (LLAMA, SMALL, (9, 32, 16)),
    "framepack": (LLAMA, ["--size", "16x32", "--num-frames", 17, "--set", "latent_window_size=3"], (25, 32, 16)),
    "hunyuan15": ((embeds(1, 4, 16), SEEN, embeds(1, 4, 8), SEEN), ["--num-frames", 9], (9, 12, 16)),
    "kandinsky5": (
        (embeds(1, 4, 16), embeds(1, 8), torch.tensor([0, 4], dtype=torch.int32)),
        ["--size", "16x32", "--num-frames", 17],
        (17, 32, 16),
    ),
    "kandinsky6": ((embeds(1, 4, 16), embeds(1, 8), None) * 2, SMALL, (9, 32, 16)),
    "sana-video": (GEMMA * 2, ["--size", "32x32", "--num-frames", 9, "--set", WHOLE], (9, 32, 32)),
    "sana-wm": (
        GEMMA * 2,
        ["--size", "128x64", "--num-frames", 17, "--set", "action=w-16", "--set", "intrinsics=[60, 60, 64, 32]"],
        (17, 64, 128),
    ),
    "motif": (None, [*SMALL, "--set", "max_sequence_length=8"], (9, 32, 16)),
    "skyreels-v2": ((embeds(1, 4, 32), embeds(1, 4, 32, seed=2)), SMALL, (9, 32, 16)),
    "skyreels-v2-forcing": ((embeds(1, 4, 32), embeds(1, 4, 32, seed=2)), SMALL, (9, 32, 16)),
    "chronoedit": ((embeds(1, 8, 16), embeds(1, 8, 16, seed=2)), ["--size", "16x32", "--num-frames", 5], (5, 32, 16)),
    "ltx2": (
        (embeds(1, 4, 32), SEEN, embeds(1, 4, 32, seed=2), SEEN),
        ["--size", "32x64", "--num-frames", 5],
        (5, 64, 32),
    ),
    "i2vgen-xl": (None, ["--size", "16x16", "--num-frames", 3], (3, 16, 16)),
}
"""What `encode_prompt` returns (None: its own encoder is there), the options, the shape of the video."""
PARTS = {"tokenizer": words, "text_encoder": t5, "image_processor": CLIPImageProcessor}
WITHOUT_CALLBACK = {"hunyuan15", "i2vgen-xl"}


def saved(name, folder):
    pipe = ALL[name].build()
    for part in inspect.signature(type(pipe).__init__).parameters:
        make = PARTS.get(part.removesuffix("_2"))
        if make is not None and getattr(pipe, part) is None:
            pipe.register_modules(**{part: make()})
    pipe.save_pretrained(folder)
    return type(pipe)


FEW = ("hunyuan-concat", "kandinsky5", "ltx2", "motif", "sana-video", "skyreels-v2-forcing")


@pytest.mark.parametrize(("name", "steps"), [*((name, 9) for name in CASES), *((name, 4) for name in FEW)])
def test_a_video_from_the_start_recommended_for_the_family(unleak, photo, tmp_path, monkeypatch, name, steps):
    told, options, shape = CASES[name]
    monkeypatch.chdir(tmp_path)
    pipeline = saved(name, "model")
    if told is not None:
        monkeypatch.setattr(pipeline, "encode_prompt", lambda self, *args, **kwargs: told)
    result = unleak("generate", photo, "--model", "model", "--steps", steps, "--prompt", "a dog", *options)
    assert (result.status, result.out) == (0, "out/photo.mp4\n"), result.err
    assert "None" not in result.err
    assert read_video(tmp_path / "out/photo.mp4").frames.shape == (*shape, 3)
    record = json.loads((tmp_path / "out/photo.json").read_text())
    assert (record["model"]["pipeline"], record["frames"]) == (pipeline.__name__, list(shape))
    if steps == 4:
        assert "motion medium, the fix recommended for this model; init standard" in result.err
        assert "in place of a start at logsnr=-6.33 unleak applies" in result.err
        assert record["settings"]["strategies"]
    else:
        assert "start logsnr -6.33, the fix recommended for this model; init standard" in result.err
        assert record["start"]["log_snr"] == pytest.approx(-6.33, abs=0.05)
    first = record["timesteps"][:1]
    assert first == ([] if name in WITHOUT_CALLBACK else [pytest.approx(record["start"]["timestep"], abs=1.001)])
