"""The example workflows of the pack: each runs through ComfyUI's HTTP API, on models under the names it asks for."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.comfyui.engine.client import Graph
from unleak.attach.seams import presets
from unleak.attach.strategies.motion_amplitude import amplified
from unleak.comfyui import pack
from unleak.comfyui.nano import video_size, weights_folder
from unleak.core.process import RF
from unleak.data.video import read_video

ROOT = Path(__file__).parents[2]
FOLDER = Path(pack.__file__).parent / "files" / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def api_form(workflow, about):
    """A workflow of ComfyUI's editor in the form that the server runs."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        spec = about[node["type"]]
        sockets = {one["name"]: one["link"] for one in node["inputs"]}
        values, given = list(node["widgets_values"]), {}
        declared = {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}
        assert set(sockets) <= set(declared), node["type"]
        for name, (kind, *options) in declared.items():
            if isinstance(kind, list) or kind in WIDGETS:
                given[name] = values.pop(0)
                if options and options[0].get("control_after_generate"):
                    assert values.pop(0) == "fixed"
            if sockets.get(name) is not None:
                given[name] = links[sockets[name]]
            elif name not in given:
                assert name in spec["input"].get("optional", {}), f"{node['type']}: {name} is not connected"
        assert values == (["image"] if node["type"] == "LoadImage" else []), node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


def loaded(engine, stem):
    """A workflow in the form that the server runs, and a photo where it looks for one."""
    photo = ROOT / "examples" / "photo.jpg"
    (engine.base / "input" / "example.png").write_bytes(photo.read_bytes())
    text = (FOLDER / f"{stem}.json").read_text(encoding="utf-8")
    return api_form(json.loads(text), engine.get("/object_info"))


def test_each_has_a_thumbnail_and_one_of_unleaks_nodes():
    assert {path.stem for path in WORKFLOWS} == {*SAMPLED, NANO}
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").is_file()
        assert any(node["type"].startswith("Unleak") for node in json.loads(path.read_text())["nodes"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_and_link_is_one_of_comfyuis(engine, path):
    workflow, about = json.loads(path.read_text()), engine.get("/object_info")
    prompt = api_form(workflow, about)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, out, target, into, kind in workflow["links"]:
        assert about[nodes[source]["type"]]["output"][out] == kind
        assert nodes[target]["inputs"][into]["type"] == kind
    assert len(prompt) == len(nodes)


def test_comfyui_lists_them_under_templates(engine):
    assert sorted(engine.get("/workflow_templates")["unleak"]) == sorted(path.stem for path in WORKFLOWS)


NANO = "nano, runs anywhere"


def test_nanos_workflow_runs_and_moves_more_with_the_node(engine):
    shown = engine.run(loaded(engine, NANO), timeout=600)
    said = [shown[key]["text"][0] for key in sorted(shown, key=int) if "text" in shown[key]]
    without, with_it = (float(re.match(r"motion score ([\d.]+)", text)[1]) for text in said)
    assert with_it > 2 * without
    saved = [one for about in shown.values() if "images" in about for one in about["images"]]
    assert len(saved) == 2
    width, height, num_frames = video_size(weights_folder())
    for one in saved:
        from PIL import Image

        with Image.open(engine.base / "output" / one["subfolder"] / one["filename"]) as video:
            assert (video.size, video.n_frames) == ((width, height), num_frames)


@dataclass(frozen=True)
class Sampled:
    """What stands in for the text encoder of a workflow, and what its first sampler is to do."""

    text: tuple[int, int]
    """Width of the text encoder's tokens and of its summary."""
    plain: float
    """The level at which it starts without unleak's nodes."""
    start: float
    """The level at which it starts with them."""
    frames: int = 9
    """Of the video, which is 64 pixels wide and high here."""
    steps: int | None = None
    """Fewer than the workflow asks for."""


_MEDIUM = presets.EQUAL_SNR["medium"].resolve(RF()).flow_sigma
SAMPLED = {
    "Wan 2.2, image to video": Sampled((4096, 8), 1.0, _MEDIUM),
    "Wan 2.2, image to video in 4 steps": Sampled((4096, 8), 1.0, 1.0),
    "LTX-Video": Sampled((32, 8), 1.0, _MEDIUM),
    "HunyuanVideo": Sampled((32, 768), 1.0, _MEDIUM),
    "Stable Video Diffusion": Sampled((0, 0), 700.0, 100.0, frames=2, steps=4),
}
FILES = {"unet_name": "diffusion_models", "lora_name": "loras", "vae_name": "vae", "ckpt_name": "checkpoints"}
ENCODERS = {"CLIPLoader", "DualCLIPLoader", "CLIPVisionLoader", "CLIPVisionEncode"}
"""Cannot be small: ComfyUI knows them by their size."""
SAMPLERS = {"KSampler", "KSamplerAdvanced", "SamplerCustom", "BasicGuider"}


def write_models(engine, prompt):
    """Write a tiny random model under each name that the workflow asks for."""
    g = Graph()
    for node in prompt.values():
        for name, folder in FILES.items():
            file = node["inputs"].get(name)
            if file and not (engine.base / "models" / folder / file).exists():
                g("TestWrite", name=f"{folder}/{file}")
    if g.nodes:
        engine.run(g)


def made_small(prompt, facts, name):
    """Return the workflow with a small video, without encoders of text, and with what its denoisers are given saved."""
    small = {number: {**node, "inputs": dict(node["inputs"])} for number, node in prompt.items()}
    for number, node in list(small.items()):
        kind, inputs = node["class_type"], node["inputs"]
        if kind in ENCODERS:
            del small[number]
        elif "TextEncode" in kind:
            width, pooled = facts.text
            inputs = {"width": width, "pooled": pooled, "seed": int(number), "mask": pooled == 8 and width == 32}
            small[number] = {"class_type": "TestText", "inputs": inputs}
        elif "width" in inputs:
            frames = "length" if "length" in inputs else "video_frames"
            inputs |= {"width": 64, "height": 64, frames: facts.frames}
        if facts.steps and kind == "KSampler":
            inputs["steps"] = facts.steps
        if kind == "SVD_img2vid_Conditioning":
            small["vision"] = {"class_type": "TestVision", "inputs": {"width": 1024, "seed": 1}}
            inputs["clip_vision"] = ["vision", 0]
        if kind in SAMPLERS:
            saved = {"model": inputs["model"], "name": f"{name}/{number}"}
            small[f"saved-{number}"] = {"class_type": "TestRecord", "inputs": saved}
            inputs["model"] = [f"saved-{number}", 0]
        if kind == "CreateVideo":
            saved = {"image": inputs["images"], "name": f"{name}/frames"}
            small["frames"] = {"class_type": "TestSaveImage", "inputs": saved}
        if kind == "SaveVideo":
            inputs["filename_prefix"] = f"{name}/video"
    return small


def bypassed(prompt, *kinds):
    """Return the workflow without these nodes: what they were given goes to where they led."""
    through = {}
    for number, node in prompt.items():
        if node["class_type"] in kinds:
            (through[number],) = (value for value in node["inputs"].values() if isinstance(value, list))
    assert len({prompt[number]["class_type"] for number in through}) == len(kinds)

    def followed(value):
        while isinstance(value, list) and value[0] in through:
            value = through[value[0]]
        return value

    return {
        number: {**node, "inputs": {name: followed(value) for name, value in node["inputs"].items()}}
        for number, node in prompt.items()
        if number not in through
    }


def sampled(engine, prompt, facts, name):
    """Run a workflow; return what each of its samplers gave its denoiser, in their order, and the frames."""
    small = made_small(prompt, facts, name)
    engine.run(small, timeout=300)
    calls = [engine.calls(f"{name}/{number}") for number in prompt if prompt[number]["class_type"] in SAMPLERS]
    return calls, engine.saved(f"{name}/frames")["image"]


@pytest.mark.parametrize("stem", SAMPLED)
def test_each_is_sampled_and_starts_where_its_nodes_say(engine, stem):
    facts, prompt = SAMPLED[stem], loaded(engine, stem)
    write_models(engine, prompt)
    name = stem.replace(" ", "-").replace(",", "")
    calls, frames = sampled(engine, prompt, facts, f"example-{name}")
    assert calls[0][0]["sigma"].max().item() == pytest.approx(facts.start, rel=1e-5)
    assert all((one[0]["sigmas"].diff() < 0).all() for one in calls)
    assert frames.shape == (facts.frames, 64, 64, 3)
    assert frames.isfinite().all()
    (file,) = (engine.base / "output" / f"example-{name}").glob("video_*.mp4")
    assert read_video(file).frames.shape == (facts.frames, 64, 64, 3)

    ours = {node["class_type"] for node in prompt.values() if node["class_type"].startswith("Unleak")}
    plain, before = sampled(engine, bypassed(prompt, *ours), facts, f"example-{name}-plain")
    assert plain[0][0]["sigma"].max().item() == pytest.approx(facts.plain, rel=1e-5)
    assert [len(one) for one in plain] == [len(one) for one in calls]
    assert not torch.equal(frames, before)
    assert "lora key not loaded" not in engine.said()


def test_in_four_steps_the_levels_stay_and_the_blank_frames_change(engine):
    stem = "Wan 2.2, image to video in 4 steps"
    facts, prompt = SAMPLED[stem], loaded(engine, stem)
    write_models(engine, prompt)
    calls, _ = sampled(engine, prompt, facts, "four")
    plain, _ = sampled(engine, bypassed(prompt, "UnleakMotionAmplitude"), facts, "four-plain")
    assert [len(expert) for expert in calls] == [2, 2]
    for expert, before in zip(calls, plain, strict=True):
        for call, ordinary in zip(expert, before, strict=True):
            assert torch.equal(call["sigma"], ordinary["sigma"])
            image = ordinary["concat"][:, 4:]
            wanted = torch.cat([image[:, :, :1], amplified(image, 1.15)[:, :, 1:]], 2)
            assert torch.allclose(call["concat"][:, 4:], wanted, atol=1e-6)
            assert not torch.allclose(call["concat"][:, 4:], image, atol=1e-3)
