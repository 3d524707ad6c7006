"""`unleak generate` with other pipelines than Stable Video Diffusion, tiny, from a folder to a video."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.animate.sample import sample
from unleak.animate.settings import Settings
from unleak.data.image import fit_image
from unleak.data.video import read_video
from unleak.zoo.hub import load
from unleak.zoo.registry import find_model


@pytest.mark.parametrize(
    ("name", "options", "shape", "fps", "start"),
    [
        ("wan22", ["--size", "32x16", "--num-frames", 5], (5, 16, 32, 3), 16, "logsnr=-6.33"),
        ("wan22-5b", ["--size", "32x32", "--num-frames", 5], (5, 32, 32, 3), 16, "logsnr=-6.33"),
        ("ltx", ["--size", "32x32", "--num-frames", 9, "--fps", 24], (9, 32, 32, 3), 24, "logsnr=-6.33"),
        ("cogvideox-ddim", ["--num-frames", 9], (9, 32, 16, 3), 8, "logsnr=-6.33"),
        ("pia", ["--size", "32x16", "--num-frames", 3], (3, 16, 32, 3), 8, "0.94T"),
    ],
)
def test_a_video_the_fix_of_the_family_and_a_complete_record(
    unleak, pipeline_folder, photo, tmp_path, monkeypatch, name, options, shape, fps, start
):
    monkeypatch.chdir(tmp_path)
    folder = pipeline_folder(name)
    arguments = [] if name == "pia" else ["--set", "max_sequence_length=8"]
    result = unleak(
        "generate", photo, "--model", folder, "--steps", 9, "--prompt", "a dog", "--guidance", 4, *arguments, *options
    )
    assert (result.status, result.out) == (0, "out/photo.mp4\n"), result.err
    assert f"start {start.replace('=', ' ')}, the fix recommended for this model; init standard" in result.err
    clip = read_video(tmp_path / "out/photo.mp4")
    assert (clip.frames.shape, clip.fps) == (shape, fps)
    record = json.loads((tmp_path / "out/photo.json").read_text())
    arguments = record["settings"]["arguments"]
    assert (arguments["prompt"], arguments["num_inference_steps"], arguments["guidance_scale"]) == ("a dog", 9, 4)
    assert record["frames"] == list(shape[:3])
    assert record["model"]["pipeline"] == find_model(folder).pipeline
    assert record["start"]["asked"] == start
    assert {"timestep", "fraction", "sigma", "log_snr", "edm_sigma", "flow_sigma", "process"} < record["start"].keys()
    if start.startswith("logsnr") and record["start"]["process"] == "RF":
        assert record["start"]["log_snr"] == pytest.approx(-6.33)
    assert record["timesteps"][0] == pytest.approx(record["start"]["timestep"], abs=1.001)


def test_full_start_is_the_plain_pipeline_and_the_prompts_are_those_of_the_photos(wan, pipeline_folder, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    picture = Image.effect_noise((48, 32), 90).convert("RGB")
    for name in "abc":
        picture.save(shots / f"{name}.png")
    (tmp_path / "words.txt").write_text("a dog\na dog runs\n\n", encoding="utf-8-sig")
    result = wan(shots, "--prompts", "words.txt", "--start", "1.0T", "--negative-prompt", "runs", "--seed", 3, "--json")
    assert result.status == 0, result.err
    videos = json.loads(result.out)["videos"]
    assert [video["settings"]["arguments"]["prompt"] for video in videos] == ["a dog", "a dog runs", ""]
    pipe = load(pipeline_folder("wan22"), device="cpu")
    spec = find_model(pipeline_folder("wan22"))
    settings = Settings.for_model(
        spec, height=16, width=32, num_frames=5, steps=9, prompt="a dog", negative_prompt="runs", start="1.0T", seed=3,
        others=["max_sequence_length=8"],
    )  # fmt: skip
    assert dict(settings.arguments) == videos[0]["settings"]["arguments"]
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(
        fit_image(picture, 16, 32), prompt="a dog", negative_prompt="runs", height=16, width=32, num_frames=5,
        num_inference_steps=9, max_sequence_length=8, generator=torch.Generator().manual_seed(3), output_type="np",
    ).frames[0]  # fmt: skip
    made = {prompt: sample(pipe, picture, settings.prompted(prompt)).frames for prompt in ("a dog", "a dog runs")}
    assert np.array_equal(made["a dog"], (plain * np.float32(255)).round().astype(np.uint8))
    assert not np.array_equal(made["a dog"], made["a dog runs"])


def test_a_lora_counts_as_strongly_as_asked(wan, pipeline_folder, photo, tmp_path):
    from diffusers import WanImageToVideoPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = load(pipeline_folder("wan22"), device="cpu")
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(pipe.transformer)
    WanImageToVideoPipeline.save_lora_weights(tmp_path / "style", transformer_lora_layers=layers)
    weights = tmp_path / "style/pytorch_lora_weights.safetensors"
    made = {}
    for scale in (None, 0, 0.5, 20):
        options = [] if scale is None else ["--lora", f"{weights}:{scale}"]
        result = wan(photo, "--start", "1.0T", "--format", "png", "--overwrite", *options)
        assert result.status == 0, result.err
        made[scale] = np.asarray(Image.open(tmp_path / "out/photo.png")).copy()
    record = json.loads((tmp_path / "out/photo.json").read_text())["model"]["loras"]
    assert [(lora["source"], lora["scale"], len(lora["sha256"])) for lora in record] == [(str(weights), 20.0, 64)]
    assert np.array_equal(made[None], made[0])
    assert not np.array_equal(made[None], made[20])


@pytest.mark.parametrize(
    ("fix", "left_out", "said"),
    [
        ((), 0, "in place of a start at logsnr=-6.33 unleak applies MotionAmplitude(amount=1.15)"),
        (("--motion", "high"), 0, "unleak applies ExpertGuidance(high=3.5, low=1.0) and MotionAmplitude"),
        (("--start", "sigma=0.96"), 1, "3 of 4 steps are run (--start step:1)"),
    ],
)
def test_few_steps_keep_to_the_levels_of_the_plain_schedule(wan, photo, tmp_path, fix, left_out, said):
    plain = wan(photo, "--steps", 4, "--start", "1.0T", "--out", "plain")
    result = wan(photo, "--steps", 4, *fix)
    assert (plain.status, result.status) == (0, 0), result.err
    assert said in result.err
    records = [json.loads((tmp_path / folder / "photo.json").read_text()) for folder in ("plain", "out")]
    assert records[1]["timesteps"] == records[0]["timesteps"][left_out:]
    assert records[1]["start"]["timestep"] == pytest.approx(records[1]["timesteps"][0], abs=1.001)


def test_few_steps_are_not_rescaled(wan, photo, tmp_path):
    result = wan(photo, "--steps", 2, "--mode", "rescale")
    assert result.status == 2
    assert "use --mode truncate or --start " in result.err
    assert "no prompt: this model reads one" in result.err
    assert not list(tmp_path.glob("out/*"))


def test_each_expert_has_a_guidance_and_a_lora_of_its_own(wan, photo, tmp_path, pipeline_folder):
    from peft import LoraConfig, get_peft_model_state_dict

    from unleak.attach.distilled import distilled
    from unleak.zoo.lora import Lora

    files = {}
    folders = {"high": "Wan2.2-Lightning high", "low": "Wan2.2-Lightning low"}
    for name, part in (("high", "transformer"), ("low", "transformer_2")):
        pipe = load(pipeline_folder("wan22"), device="cpu")
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        weights = {k: v.clone() for k, v in get_peft_model_state_dict(network).items()}
        type(pipe).save_lora_weights(tmp_path / folders[name], transformer_lora_layers=weights)
        files[name] = tmp_path / folders[name] / "pytorch_lora_weights.safetensors"
    loras = [Lora.parse(f"high={files['high']}:0.6"), Lora.parse(f"low={files['low']}")]
    assert [(one.expert, one.scale) for one in loras] == [("high", 0.6), ("low", 1.0)]
    pipe = load(pipeline_folder("wan22"), device="cpu", loras=loras)
    names = ["Wan2_2-Lightning_high", "Wan2_2-Lightning_low"]
    assert pipe.get_list_adapters() == {"transformer": names[:1], "transformer_2": names[1:]}
    assert distilled(pipe, {}) == f"its weights are named {names[0]}"
    scales = [
        next(m.scaling for m in part.modules() if hasattr(m, "scaling"))
        for part in (pipe.transformer, pipe.transformer_2)
    ]
    assert scales[0][names[0]] == 0.6 * scales[1][names[1]]
    told = json.loads(wan(photo, "--guidance", "high=3.5,low=1", "--dry-run", "--json", "--quiet").out)
    arguments = told["settings"]["arguments"]
    assert (arguments["guidance_scale"], arguments["guidance_scale_2"]) == (3.5, 1.0)
    with pytest.raises(ValueError, match="has one denoiser, no experts"):
        load(pipeline_folder("wan22-5b"), device="cpu", loras=loras)
