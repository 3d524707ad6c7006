"""The example workflows of the pack for ComfyUI and the pictures of docs/comfyui.md.

    python docs/comfyui.py URL      URL of a running ComfyUI that has the pack, such as http://127.0.0.1:8188

Writes src/unleak/comfyui/files/example_workflows and docs/comfyui.png. The results in docs/comfyui-nano.jpg are made by
running the first workflow there.
"""

import json
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path("src/unleak/comfyui/files/example_workflows")
WIDTH, GAP, LINE = 300, 70, 20
PROMPT = "the boat rocks on the waves and drifts to the left"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


class Graph:
    """A workflow as it is written below: `graph("Node", input=...)` adds a node and returns its number."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, **inputs: Any) -> "Out":  # noqa: D102
        self.nodes.append((kind, inputs))
        return Out(len(self.nodes), 0)


class Out(tuple):
    """An output of a node: `node[1]` is its second one."""

    def __new__(cls, node: int, slot: int) -> "Out":  # noqa: D102
        return super().__new__(cls, (node, slot))

    def __getitem__(self, slot: int) -> "Out":
        return Out(next(iter(self)), slot)


def nano() -> Graph:
    """nano with and without the node, and both scores."""
    g = Graph()
    model = g("UnleakNano")
    guided = g("VideoLinearCFGGuidance", model=model, min_cfg=1.0)
    photo = g("LoadImage", image="example.png")
    parts = g(
        "SVD_img2vid_Conditioning",
        clip_vision=model[1],
        init_image=photo,
        vae=model[2],
        width=model[4],
        height=model[5],
        video_frames=model[6],
        motion_bucket_id=127,
        fps=7,
        augmentation_level=0.0,
    )
    moving = g("UnleakMotion", model=guided, motion="medium")
    for name, chosen in (("plain", guided), ("unleak", moving)):
        video = g(
            "KSampler",
            model=chosen,
            seed=3,
            steps=25,
            cfg=3.0,
            sampler_name="euler",
            scheduler="karras",
            positive=parts[0],
            negative=parts[1],
            latent_image=model[3],
            denoise=1.0,
        )
        frames = g("VAEDecode", samples=video, vae=model[2])
        g(
            "SaveAnimatedWEBP",
            images=frames,
            filename_prefix=f"unleak/{name}",
            fps=6.0,
            lossless=True,
            quality=90,
            method="default",
        )
        g("UnleakMotionScore", image=frames)
    return g


def wan22(few_steps: bool) -> Graph:
    """Wan 2.2 with its two experts, as it is or with a LoRA of few steps."""
    g = Graph()
    steps, switch = (4, 2) if few_steps else (20, 10)
    experts = []
    for level in ("high", "low"):
        model = g(
            "UNETLoader", unet_name=f"wan2.2_i2v_{level}_noise_14B_fp8_scaled.safetensors", weight_dtype="default"
        )
        if few_steps:
            lora = f"wan2.2_i2v_lightx2v_4steps_lora_v1_{level}_noise.safetensors"
            model = g("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=1.0)
            model = g("UnleakMotionAmplitude", model=model, amount=1.15)
        model = g("ModelSamplingSD3", model=model, shift=5.0 if few_steps else 8.0)
        if level == "high" and not few_steps:
            model = g("UnleakMotion", model=model, motion="medium")
        experts.append(model)
    clip = g("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan", device="default")
    vae = g("VAELoader", vae_name="wan_2.1_vae.safetensors")
    positive = g("CLIPTextEncode", clip=clip, text=PROMPT)
    negative = g("CLIPTextEncode", clip=clip, text="still picture, static, blurry")
    photo = g("LoadImage", image="example.png")
    if few_steps:
        photo = g("UnleakCompress", image=photo, crf=33)
    parts = g(
        "WanImageToVideo",
        positive=positive,
        negative=negative,
        vae=vae,
        start_image=photo,
        width=832,
        height=480,
        length=81,
        batch_size=1,
    )
    common = {
        "noise_seed": 3,
        "steps": steps,
        "cfg": 1.0 if few_steps else 3.5,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": parts[0],
        "negative": parts[1],
    }
    first = g(
        "KSamplerAdvanced",
        model=experts[0],
        latent_image=parts[2],
        add_noise="enable",
        start_at_step=0,
        end_at_step=switch,
        return_with_leftover_noise="enable",
        **common,
    )
    second = g(
        "KSamplerAdvanced",
        model=experts[1],
        latent_image=first,
        add_noise="disable",
        start_at_step=switch,
        end_at_step=10000,
        return_with_leftover_noise="disable",
        **common,
    )
    video = g("CreateVideo", images=g("VAEDecode", samples=second, vae=vae), fps=16.0)
    g("SaveVideo", video=video, filename_prefix="video/unleak", format="auto", codec="auto")
    return g


def svd() -> Graph:
    """Stable Video Diffusion."""
    g = Graph()
    model = g("ImageOnlyCheckpointLoader", ckpt_name="svd_xt.safetensors")
    parts = g(
        "SVD_img2vid_Conditioning",
        clip_vision=model[1],
        init_image=g("LoadImage", image="example.png"),
        vae=model[2],
        width=1024,
        height=576,
        video_frames=25,
        motion_bucket_id=127,
        fps=6,
        augmentation_level=0.0,
    )
    moving = g("UnleakMotion", model=g("VideoLinearCFGGuidance", model=model, min_cfg=1.0), motion="medium")
    video = g(
        "KSampler",
        model=moving,
        seed=3,
        steps=25,
        cfg=2.5,
        sampler_name="euler",
        scheduler="karras",
        positive=parts[0],
        negative=parts[1],
        latent_image=parts[2],
        denoise=1.0,
    )
    frames = g("VAEDecode", samples=video, vae=model[2])
    made = g("CreateVideo", images=frames, fps=6.0)
    g("SaveVideo", video=made, filename_prefix="video/unleak", format="auto", codec="auto")
    return g


def ltx() -> Graph:
    """LTX-Video, whose first frame is the photo, held by a noise mask."""
    g = Graph()
    model = g("CheckpointLoaderSimple", ckpt_name="ltx-video-2b-v0.9.5.safetensors")
    clip = g("CLIPLoader", clip_name="t5xxl_fp16.safetensors", type="ltxv", device="default")
    positive = g("CLIPTextEncode", clip=clip, text=PROMPT)
    negative = g("CLIPTextEncode", clip=clip, text="still picture, static, blurry")
    parts = g(
        "LTXVImgToVideo",
        positive=positive,
        negative=negative,
        vae=model[2],
        image=g("UnleakCompress", image=g("LoadImage", image="example.png"), crf=33),
        width=768,
        height=512,
        length=97,
        batch_size=1,
        strength=1.0,
    )
    timed = g("LTXVConditioning", positive=parts[0], negative=parts[1], frame_rate=25.0)
    sigmas = g("LTXVScheduler", latent=parts[2], steps=30, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1)
    video = g(
        "SamplerCustom",
        model=g("UnleakMotion", model=model, motion="medium"),
        add_noise=True,
        noise_seed=3,
        cfg=3.0,
        positive=timed[0],
        negative=timed[1],
        sampler=g("KSamplerSelect", sampler_name="euler"),
        sigmas=sigmas,
        latent_image=parts[2],
    )
    made = g("CreateVideo", images=g("VAEDecode", samples=video, vae=model[2]), fps=25.0)
    g("SaveVideo", video=made, filename_prefix="video/unleak", format="auto", codec="auto")
    return g


def hunyuan() -> Graph:
    """HunyuanVideo I2V, whose photo lies beside the noise."""
    g = Graph()
    loaded = g("UNETLoader", unet_name="hunyuan_video_image_to_video_720p_bf16.safetensors", weight_dtype="default")
    clip = g(
        "DualCLIPLoader",
        clip_name1="clip_l.safetensors",
        clip_name2="llava_llama3_fp8_scaled.safetensors",
        type="hunyuan_video",
        device="default",
    )
    vae = g("VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors")
    photo = g("LoadImage", image="example.png")
    vision = g("CLIPVisionLoader", clip_name="llava_llama3_vision.safetensors")
    seen = g("CLIPVisionEncode", clip_vision=vision, image=photo, crop="none")
    text = g("TextEncodeHunyuanVideo_ImageToVideo", clip=clip, clip_vision_output=seen, prompt=PROMPT)
    parts = g(
        "HunyuanImageToVideo",
        positive=text,
        vae=vae,
        start_image=photo,
        width=720,
        height=720,
        length=53,
        batch_size=1,
        guidance_type="v1 (concat)",
    )
    moving = g("UnleakMotion", model=g("ModelSamplingSD3", model=loaded, shift=7.0), motion="medium")
    video = g(
        "SamplerCustomAdvanced",
        noise=g("RandomNoise", noise_seed=3),
        guider=g("BasicGuider", model=moving, conditioning=g("FluxGuidance", conditioning=parts[0], guidance=6.0)),
        sampler=g("KSamplerSelect", sampler_name="euler"),
        sigmas=g("BasicScheduler", model=moving, scheduler="simple", steps=20, denoise=1.0),
        latent_image=parts[1],
    )
    frames = g(
        "VAEDecodeTiled", samples=video, vae=vae, tile_size=256, overlap=64, temporal_size=64, temporal_overlap=8
    )
    made = g("CreateVideo", images=frames, fps=24.0)
    g("SaveVideo", video=made, filename_prefix="video/unleak", format="auto", codec="auto")
    return g


WORKFLOWS = {
    "nano, runs anywhere": nano,
    "Wan 2.2, image to video": lambda: wan22(few_steps=False),
    "Wan 2.2, image to video in 4 steps": lambda: wan22(few_steps=True),
    "LTX-Video": ltx,
    "HunyuanVideo": hunyuan,
    "Stable Video Diffusion": svd,
}


def columns(graph: Graph) -> dict[int, int]:
    """The column of each node, counted from 0: as far right as the nodes that it leads to allow."""
    sources = {
        number: {next(iter(value)) for value in given.values() if isinstance(value, Out)}
        for number, (_, given) in enumerate(graph.nodes, 1)
    }
    found: dict[int, int] = {}
    for number, before in sources.items():
        found[number] = max((found[one] + 1 for one in before), default=0)
    for number in reversed(sources):
        after = [found[other] - 1 for other, before in sources.items() if number in before]
        found[number] = min(after, default=found[number])
    return found


def ui_form(graph: Graph, about: dict[str, Any]) -> dict[str, Any]:
    """The workflow as ComfyUI's editor saves it; `about` is the server's object_info."""
    links: list[list[Any]] = []
    nodes, below, column = [], {}, columns(graph)
    for number, (kind, given) in enumerate(graph.nodes, 1):
        spec = about[kind]
        inputs, widgets = [], []
        for name, (type_, *options) in declared(spec).items():
            value = given.get(name)
            widget = isinstance(type_, list) or type_ in WIDGETS
            if isinstance(value, Out):
                source, slot = tuple(value)
                of = about[graph.nodes[source - 1][0]]["output"][slot]
                links.append([len(links) + 1, source, slot, number, len(inputs), of])
                inputs.append(
                    {"name": name, "type": type_, "link": len(links)} | ({"widget": {"name": name}} if widget else {})
                )
            elif not widget:
                inputs.append({"name": name, "type": type_, "link": None})
            if widget:  # one that is linked keeps a value, which does not count
                own = value if name in given and not isinstance(value, Out) else None
                widgets.append((options or [{}])[0].get("default") if own is None else own)
                if options and options[0].get("control_after_generate"):
                    widgets.append("fixed")
        if kind == "LoadImage":
            widgets.append("image")
        outputs = [
            {"name": name, "type": type_, "links": [], "slot_index": i}
            for i, (name, type_) in enumerate(zip(spec["output_name"], spec["output"], strict=True))
        ]
        height = 40 + LINE * (max(len(inputs), len(outputs)) + len(widgets))
        y = below.get(column[number], 0)
        below[column[number]] = y + height + GAP
        nodes.append(
            {
                "id": number,
                "type": kind,
                "pos": [column[number] * (WIDTH + GAP), y],
                "size": [WIDTH, height],
                "flags": {},
                "order": number - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": outputs,
                "properties": {"Node name for S&R": kind},
                "widgets_values": widgets,
            }
        )
    for link, source, slot, *_ in links:
        nodes[source - 1]["outputs"][slot]["links"].append(link)
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def declared(spec: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a node by name, those that may be left out last."""
    return {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}


def picture(workflow: dict[str, Any], about: dict[str, Any]) -> Image.Image:
    """The graph as a person sees it, unleak's nodes in colour."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    margin = 30
    width = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + 2 * margin
    height = max(node["pos"][1] + node["size"][1] for node in nodes.values()) + 2 * margin
    image = Image.new("RGB", (width, height), (32, 32, 34))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)

    def port(number: int, slot: int, out: bool) -> tuple[int, int]:
        x, y = nodes[number]["pos"]
        return margin + x + (WIDTH if out else 0), margin + y + 38 + LINE * slot

    for _, source, slot, target, where, _ in workflow["links"]:
        a, b = port(source, slot, True), port(target, where, False)
        middle = (a[0] + b[0]) / 2
        steps = [i / 24 for i in range(25)]
        curve = [
            ((1 - t) ** 3 * a[0] + 3 * (1 - t) * t * middle + t**3 * b[0], a[1] + (b[1] - a[1]) * (3 - 2 * t) * t * t)
            for t in steps
        ]
        draw.line(curve, fill=(150, 150, 160), width=2)
    for node in nodes.values():
        x, y = (margin + value for value in node["pos"])
        w, h = node["size"]
        ours = node["type"].startswith("Unleak")
        draw.rounded_rectangle((x, y, x + w, y + h), 8, fill=(86, 52, 132) if ours else (53, 53, 58))
        draw.text(
            (x + 10, y + 6),
            about[node["type"]]["display_name"] or node["type"],
            font=ImageFont.load_default(15),
            fill="white",
        )
        for i, one in enumerate(node["inputs"]):
            draw.text((x + 12, y + 30 + LINE * i), one["name"], font=font, fill=(200, 200, 205))
        for i, one in enumerate(node["outputs"]):
            draw.text((x + w - 12, y + 30 + LINE * i), one["name"], font=font, fill=(200, 200, 205), anchor="ra")
        first = max(len(node["inputs"]), len(node["outputs"]))
        for i, text in enumerate(settings(node, about[node["type"]])):
            draw.text((x + 12, y + 30 + LINE * (first + i)), text[:44], font=font, fill=(255, 224, 150))
    return image


def detail(drawn: Image.Image, workflow: dict[str, Any]) -> Image.Image:
    """The part of a drawn graph around the first of unleak's nodes, to be read at the size of a thumbnail."""
    width, height = 1100, min(700, drawn.height)
    node = next(node for node in workflow["nodes"] if node["type"].startswith("Unleak"))
    left = min(max(node["pos"][0] - (width - WIDTH) // 2, 0), max(drawn.width - width, 0))
    top = min(max(node["pos"][1] - 100, 0), drawn.height - height)
    return drawn.crop((left, top, left + width, top + height))


def settings(node: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """The settings that a person sees on a node, with their names; a linked one is an input instead."""
    linked = {one["name"] for one in node["inputs"]}
    values, said = list(node["widgets_values"]), []
    for name, (type_, *options) in declared(spec).items():
        if isinstance(type_, list) or type_ in WIDGETS:
            value = values.pop(0)
            if name not in linked:
                said.append(f"{name}: {value}")
            if options and options[0].get("control_after_generate"):
                values.pop(0)
    return said


def api_form(graph: Graph) -> dict[str, Any]:
    """The workflow as the server runs it."""
    return {
        str(number): {
            "class_type": kind,
            "inputs": {n: [str(next(iter(v))), tuple(v)[1]] if isinstance(v, Out) else v for n, v in given.items()},
        }
        for number, (kind, given) in enumerate(graph.nodes, 1)
    }


def asked(url: str, path: str, body: Any = None) -> Any:
    """The server's answer to a request; with a body it is posted."""
    request = urllib.request.Request(url + path, json.dumps(body).encode() if body else None)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def results(url: str) -> Image.Image:
    """The two videos of nano's workflow, frame by frame, with their scores."""
    prompt = api_form(nano())
    for node in prompt.values():
        if node["class_type"] == "SaveAnimatedWEBP":  # so that nothing comes from the server's cache
            node["inputs"]["filename_prefix"] += f"-{time.time_ns()}"
    number = asked(url, "/prompt", {"prompt": prompt})["prompt_id"]
    while number not in (history := asked(url, f"/history/{number}")):
        time.sleep(0.5)
    outputs = history[number]["outputs"]
    rows, said = [], []
    for key in sorted(outputs, key=int):
        about = outputs[key]
        if "images" in about:
            file = about["images"][0]
            where = f"{url}/view?filename={file['filename']}&subfolder={file['subfolder']}&type=output"
            with urllib.request.urlopen(where) as answer:
                rows.append(Image.open(BytesIO(answer.read())))
        if "text" in about:
            said.append(about["text"][0].split(" (")[0])
    tile, count = 128, rows[0].n_frames
    shown = [round(i * (count - 1) / 5) for i in range(6)]
    sheet = Image.new("RGB", (tile * len(shown), 2 * (tile + 24)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (video, name, score) in enumerate(zip(rows, ("without", "with unleak Motion"), said, strict=True)):
        draw.text((4, row * (tile + 24) + 4), f"{name}: {score}", font=ImageFont.load_default(14), fill="black")
        for column, frame in enumerate(shown):
            video.seek(frame)
            sheet.paste(video.convert("RGB").resize((tile, tile)), (column * tile, row * (tile + 24) + 24))
    return sheet


def main(url: str) -> None:
    """Write the workflows and the pictures."""
    about = asked(url, "/object_info")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in WORKFLOWS.items():
        workflow = ui_form(make(), about)
        (FOLDER / f"{name}.json").write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
        drawn = picture(workflow, about)
        if make is nano:
            drawn.save("docs/comfyui.png")
            done = results(url)
            done.save("docs/comfyui-nano.jpg", quality=90)
            done.save(FOLDER / f"{name}.jpg", quality=85)
        else:
            detail(drawn, workflow).save(FOLDER / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
