"""nano in the real ComfyUI, and by it the kinds of noise that Wan and its like lack: EDM, and a discrete table."""

import math

import pytest
import torch

from tests.comfyui.engine.client import Graph, NodeError
from tests.comfyui.workflows import noise
from unleak.comfyui import nano as loader
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments
from unleak.core.process import VE, VP, Level

WEIGHTS = loader.weights_folder()
FRAMES = 2


def shape():
    """Of the latents, [f c h w]."""
    return FRAMES, *loader.latent_shape(WEIGHTS)[1:]


def workflow(name, *, attach=None, sampling=None, **settings):
    """A still image becomes a few frames."""
    g = Graph()
    nano = g("UnleakNano")
    width, height, _ = loader.video_size(WEIGHTS)
    parts = g(
        "SVD_img2vid_Conditioning",
        clip_vision=nano[1],
        init_image=g("TestImages", shape=f"[1, {height}, {width}, 3]", seed=3),
        vae=nano[2],
        width=width,
        height=height,
        video_frames=FRAMES,
        motion_bucket_id=127,
        fps=7,
        augmentation_level=0.0,
    )
    latent = g("LatentFromBatch", samples=nano[3], batch_index=0, length=FRAMES)
    model = nano[0]
    if sampling:
        model = g("ModelSamplingDiscrete", model=model, sampling=sampling, zsnr=False)[0]
    if attach:
        model = attach(g, model)
    model = g("TestRecord", model=model, name=name)[0]
    chosen = {"seed": 5, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0}
    latents = g("KSampler", model=model, positive=parts[0], negative=parts[1], latent_image=latent, **chosen | settings)
    g("TestSave", latent=latents, name=f"{name}/latents/1")
    g("TestSaveImage", image=g("VAEDecode", samples=latents, vae=nano[2]), name=f"{name}/frames/1")
    return g


def run(engine, name, **changes):
    engine.run(workflow(name, **changes))
    return engine.calls(name), engine.saved(f"{name}/latents/1")["samples"]


def start(text, mode="rescale", init="unit", moments="none"):
    return lambda g, model: g("UnleakStart", model=model, start=text, mode=mode, init=init, moments=moments)[0]


def fix(node, **inputs):
    return lambda g, model: g(node, model=model, **inputs)[0]


@pytest.fixture(scope="module")
def plain(engine):
    return run(engine, "nano", cfg=2.0)


def test_the_same_video_as_diffusers_makes(engine, plain):
    """With the same noise, sigmas and embedding of the image, whose resizing differs between the two."""
    from diffusers import StableVideoDiffusionPipeline

    calls, latents = plain
    pipe = StableVideoDiffusionPipeline.from_pretrained(WEIGHTS, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    width, height, _ = loader.video_size(WEIGHTS)
    image = torch.randn((1, height, width, 3), generator=torch.Generator().manual_seed(3)).sigmoid()

    def embedded(pixels, device, num_videos, guided):
        pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic", antialias=True)
        pixels = (255 * pixels).clip(0, 255).round() / 255
        about = pipe.feature_extractor
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (about.image_mean, about.image_std))
        embedding = pipe.image_encoder((pixels - mean) / std).image_embeds.unsqueeze(1)
        return torch.cat([torch.zeros_like(embedding), embedding])

    pipe._encode_image = embedded
    steps = len(calls[0]["sigmas"]) - 1
    with torch.inference_mode():
        wanted = pipe(
            image.movedim(-1, 1), height=height, width=width, num_frames=FRAMES, num_inference_steps=steps,
            min_guidance_scale=2.0, max_guidance_scale=2.0, fps=7, noise_aug_strength=0.0, latents=noise(shape())[None],
            output_type="latent",
        ).frames[0]  # fmt: skip
        frames = pipe.decode_latents(wanted[None], FRAMES, FRAMES)[0]
    assert torch.allclose(latents, wanted, atol=1e-4)
    made = engine.saved("nano/frames/1")["image"]
    assert torch.allclose(made, (frames.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1), atol=1e-4)


def test_off_and_the_full_start_change_no_bit(engine, plain):
    for name, attach in (
        ("off", fix("UnleakMotion", motion="off")),
        ("full", start("1.0T")),
        ("standard", start("sigma=700", init="standard")),
    ):
        _, latents = run(engine, f"nano-{name}", attach=attach, cfg=2.0)
        assert torch.equal(latents, plain[1])


@pytest.mark.parametrize("init", ["unit", "standard"])
def test_edm_starts_at_the_level_and_noise_asked_for(engine, init):
    calls, _ = run(engine, f"edm-{init}", attach=start("sigma=100", init=init))
    assert calls[0]["sigma"].unique().item() == pytest.approx(100, rel=1e-6)
    assert torch.allclose(calls[0]["x"][:FRAMES], noise(shape()) * math.hypot(1, 100), rtol=1e-6, atol=1e-4)
    # The grid is that of Karras with sigma_max 100.
    ramp = torch.linspace(0, 1, 4, dtype=torch.float64)
    wanted = (100 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 100 ** (1 / 7))) ** 7
    assert torch.allclose(calls[0]["sigmas"][:-1].double(), wanted, rtol=1e-4)


@pytest.mark.parametrize("scheduler", ["normal", "simple", "ddim_uniform", "karras"])
def test_a_discrete_table_starts_at_the_level_and_noise_asked_for(engine, scheduler):
    name = f"vp-{scheduler}"
    calls, _ = run(engine, name, attach=start("700"), sampling="v_prediction", scheduler=scheduler)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    sigma = VP.from_betas(betas).level_at_timestep(700).edm_sigma
    assert calls[0]["sigma"].unique().item() == pytest.approx(sigma, rel=1e-4)
    assert torch.allclose(calls[0]["x"][:FRAMES], noise(shape()) * math.hypot(1, sigma), rtol=1e-4, atol=1e-4)
    assert (calls[0]["sigmas"].diff() < 0).all()


@pytest.mark.parametrize("text", ["sigma=100", "1.0T"])
def test_analytic_starts_from_the_shipped_moments(engine, text):
    """Frames are the first axis of SVD's latents."""
    held = LatentMoments.load(WEIGHTS / "moments.safetensors")
    (engine.base / "models" / "unleak").mkdir(exist_ok=True)
    held.save(engine.base / "models" / "unleak" / "nano.safetensors")
    calls, _ = run(engine, f"nano-analytic-{text}", attach=start(text, init="analytic", moments="nano.safetensors"))
    sigma = calls[0]["sigma"].unique().item()
    assert sigma == pytest.approx(100 if text == "sigma=100" else 700, rel=1e-6)
    f, c, h, w = shape()
    eps = noise(shape()).transpose(0, 1)[None]
    wanted = AnalyticInit(held).fitted((c, f, h, w)).sample(eps, Level(1.0, sigma))[0].transpose(0, 1)
    assert torch.allclose(calls[0]["x"][:FRAMES], wanted, rtol=1e-5, atol=1e-3)


def test_motion_is_the_preset_of_svd(engine):
    for choice, sigma in (("low", 250), ("medium", 100), ("high", 40)):
        calls, _ = run(engine, f"nano-{choice}", attach=fix("UnleakMotion", motion=choice))
        assert calls[0]["sigma"].unique().item() == pytest.approx(sigma, rel=1e-6)


def test_motion_high_guides_only_from_sigma_10_down(engine):
    """The guidance interval that this preset has for SVD in diffusers."""
    calls, _ = run(engine, "nano-interval", attach=fix("UnleakMotion", motion="high"), cfg=2.0, steps=6)
    guided = [len(call["branches"]) == 2 for call in calls]
    assert guided == [call["sigma"].max().item() <= 10 for call in calls]
    assert any(guided)
    assert not guided[0]
    own = [fix("UnleakGuidanceInterval", low="", high="sigma=700"), fix("UnleakMotion", motion="high")]
    calls, _ = run(engine, "nano-own", attach=lambda g, model: own[1](g, own[0](g, model)), cfg=2.0, steps=6)
    assert all(len(call["branches"]) == 2 for call in calls)


def test_a_start_outside_its_process_names_the_range(engine):
    with pytest.raises(NodeError, match=r"sigma 800 lies outside this VE process: it runs from sigma 0\.002"):
        run(engine, "nano-outside", attach=start("sigma=800"))


def test_ve_by_fraction_is_karras_time(engine):
    calls, _ = run(engine, "nano-fraction", attach=start("0.9T"))
    wanted = VE(0.002, 700.0).level_at_fraction(0.9).sigma
    assert calls[0]["sigma"].unique().item() == pytest.approx(wanted, rel=1e-5)


def test_the_motion_score_is_that_of_the_frames(engine):
    from unleak.measure.motion import motion_score

    g = Graph()
    image = g("TestImages", shape="[3, 48, 64, 3]", seed=8)
    g("TestSaveImage", image=image, name="score/1")
    measured = g("UnleakMotionScore", image=image)
    shown = g("TestShow", text=measured[0])
    said = engine.run(g)
    score = float(said[shown.number]["text"][0])
    frames = (engine.saved("score/1")["image"] * 255).round().byte().numpy()
    wanted = motion_score(frames)
    assert score == pytest.approx(wanted.value, rel=1e-5)
    told = f"motion score {score:.1f}: {score / 2:.2f} px between frames (2 pairs, {wanted.estimator})"
    assert said[measured.number]["text"][0] == told


def test_one_frame_has_no_motion(engine):
    g = Graph()
    g("UnleakMotionScore", image=g("TestImages", shape="[1, 64, 64, 3]", seed=1))
    with pytest.raises(NodeError, match="give the frames of a video, two or more"):
        engine.run(g)


def test_moments_of_images_and_of_a_folder_are_those_of_the_clips(engine):
    from unleak.data.video import read_video, write_video

    generator = torch.Generator().manual_seed(2)
    width, height, _ = loader.video_size(WEIGHTS)
    clips = [(torch.rand((FRAMES, height, width, 3), generator=generator) * 255).byte() for _ in range(3)]
    folder = engine.base / "input" / "clips"
    folder.mkdir()
    for i, clip in enumerate(clips):
        write_video(clip.numpy(), folder / f"{i}.mp4", fps=8)
    write_video(clips[0][:1].numpy(), folder / "short.mp4", fps=8)
    (folder / "notes.txt").write_text("no video")

    def gather(name, existing="refuse", folder="", images=None):
        g = Graph()
        nano = g("UnleakNano")
        more = {} if images is None else {"images": g("TestImages", shape=str(images), seed=images[0])}
        made = g(
            "UnleakMoments",
            model=nano[0],
            vae=nano[2],
            name=name,
            num_frames=FRAMES,
            folder=folder,
            width=width,
            height=height,
            fps=0.0,
            existing=existing,
            **more,
        )
        return engine.run(g)[made.number]["text"][0]

    said = gather("of-folder", folder="clips")
    assert "short.mp4" in said
    held = LatentMoments.load(engine.base / "models" / "unleak" / "of-folder.safetensors")
    assert held.count == 3
    # nano's encoder is linear and the same in diffusers.
    from diffusers import AutoencoderKLTemporalDecoder

    vae = AutoencoderKLTemporalDecoder.from_pretrained(WEIGHTS / "vae", torch_dtype=torch.float32)
    wanted = LatentMoments.empty(held.shape)
    for i in range(3):
        frames = torch.from_numpy(read_video(folder / f"{i}.mp4", size=(height, width)).frames)
        frames = frames.movedim(-1, 1) / 127.5 - 1
        with torch.inference_mode():
            latents = vae.encode(frames).latent_dist.mode() * vae.config.scaling_factor
        wanted = wanted.update(latents.transpose(0, 1)[None])
    assert torch.allclose(held.mean, wanted.mean, atol=1e-4)
    assert torch.allclose(held.variance, wanted.variance, atol=1e-3)

    gather("of-images", images=[2 * FRAMES, height, width, 3])
    path = engine.base / "models" / "unleak" / "of-images.safetensors"
    assert LatentMoments.load(path).count == 2
    with pytest.raises(NodeError, match=r"has a of-images\.safetensors already"):
        gather("of-images", images=[3 * FRAMES, height, width, 3])
    gather("of-images", "add", images=[FRAMES, height, width, 3])
    assert LatentMoments.load(path).count == 3
    gather("of-images", "replace", images=[FRAMES, height, width, 3])
    assert LatentMoments.load(path).count == 1


def test_nanos_vae_encodes_and_decodes_in_tiles(engine):
    """Its encoder is linear in patches, so tiles change nothing; a tile as large as the video is no tile."""
    width, height, _ = loader.video_size(WEIGHTS)
    g = Graph()
    vae = g("UnleakNano")[2]
    image = g("TestImages", shape=f"[{FRAMES}, {2 * height}, {width}, 3]", seed=4)
    sizes = {"overlap": 0, "temporal_size": 64, "temporal_overlap": 8}
    latents = g("VAEEncode", pixels=image, vae=vae)
    g("TestSave", latent=latents, name="tiles/whole")
    g("TestSave", latent=g("VAEEncodeTiled", pixels=image, vae=vae, tile_size=64, **sizes), name="tiles/latents")
    g("TestSaveImage", image=g("VAEDecode", samples=latents, vae=vae), name="tiles/decoded")
    for name, size in (("one", 4 * height), ("many", 64)):
        tiled = g("VAEDecodeTiled", samples=latents, vae=vae, tile_size=size, **sizes)
        g("TestSaveImage", image=tiled, name=f"tiles/{name}")
    engine.run(g)
    whole, latents = (engine.saved(f"tiles/{name}")["samples"] for name in ("whole", "latents"))
    assert torch.allclose(latents, whole, atol=2e-2)
    decoded, one, many = (engine.saved(f"tiles/{name}")["image"] for name in ("decoded", "one", "many"))
    assert torch.allclose(one, decoded, atol=1e-4)
    assert many.shape == decoded.shape == (FRAMES, 2 * height, width, 3)
    assert (many - decoded).abs().mean() < 0.1


@pytest.mark.parametrize("full", [False, True])
def test_moments_of_a_vae_of_videos(engine, full):
    """Wan's; where memory runs out, ComfyUI encodes in tiles."""
    g = Graph()
    vae = g("VAELoader", vae_name="wan_vae.safetensors")
    used = g("TestFullMemory", vae=vae) if full else vae
    model = g("UNETLoader", unet_name="wan21.safetensors", weight_dtype="default")
    clips = [g("TestImages", shape="[5, 64, 64, 3]", seed=seed) for seed in (1, 2)]
    both = g("ImageBatch", image1=clips[0], image2=clips[1])
    name = f"wan-{full}"
    g("UnleakMoments", model=model, vae=used, images=both, name=name, num_frames=5, folder="", width=64, height=64,
      fps=0.0, existing="replace")  # fmt: skip
    for number, clip in enumerate(clips):
        g("TestSave", latent=g("VAEEncode", pixels=clip, vae=vae), name=f"{name}/{number}")
    engine.run(g)
    held = LatentMoments.load(engine.base / "models" / "unleak" / f"{name}.safetensors")
    # Wan's latents as its denoiser sees them: every channel has a mean and a scale of its own.
    mean = torch.tensor([-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                         0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921])  # fmt: skip
    std = torch.tensor([2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160])  # fmt: skip
    latents = torch.cat([engine.saved(f"{name}/{number}")["samples"] for number in (0, 1)])
    latents = ((latents - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)).double()
    assert held.shape == latents.shape[1:] == (16, 2, 8, 8)
    assert held.count == 2
    assert torch.allclose(held.mean, latents.mean(0), atol=1e-4)
    assert torch.allclose(held.mean_square, latents.square().mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"name": "../elsewhere", "folder": "clips"}, "name '../elsewhere' is no plain file name"),
        ({"folder": "../../etc"}, "is not a folder inside ComfyUI's input folder"),
        ({"folder": ""}, "give either images or a folder"),
        ({"existing": "merge", "folder": "x"}, "existing 'merge' is unknown"),
        ({"num_frames": 3, "images": True}, "images holds 4 frames, which is not a whole number of videos of 3 frames"),
    ],
)
def test_moments_refuse_bad_input_in_a_sentence(engine, inputs, message):
    g = Graph()
    nano = g("UnleakNano")
    given = {
        "name": "bad",
        "num_frames": FRAMES,
        "folder": "",
        "width": 64,
        "height": 64,
        "fps": 0.0,
        "existing": "refuse",
    }
    if inputs.pop("images", False):
        inputs["images"] = g("TestImages", shape="[4, 64, 64, 3]", seed=1)
    g("UnleakMoments", model=nano[0], vae=nano[2], **given | inputs)
    with pytest.raises(NodeError) as error:
        engine.run(g)
    assert message in str(error.value)
    assert error.value.node == "UnleakMoments"
