"""unleak's nodes in the real ComfyUI: what the sampler and the denoiser are given."""

import math
import shutil
from itertools import product

import pytest
import torch

from tests.comfyui.engine.client import Graph, NodeError
from tests.comfyui.workflows import SEED, TINY, conditioned, loaded, noise, sampled
from unleak.attach.strategies.motion_amplitude import amplified
from unleak.core.moments import LatentMoments, MomentsMeta

NODES = {
    "UnleakMotion": ["model", "motion"],
    "UnleakStart": ["model", "start", "mode", "init", "moments"],
    "UnleakStartSigmas": ["model", "sigmas", "start", "mode"],
    "UnleakNano": [],
    "UnleakLowPass": ["model", "factor", "share"],
    "UnleakConditionNoise": ["model", "beta", "share", "seed"],
    "UnleakGuidanceInterval": ["model", "low", "high"],
    "UnleakMotionAmplitude": ["model", "amount"],
    "UnleakReferenceBias": ["model", "gamma", "share"],
    "UnleakCompress": ["image", "crf"],
    "UnleakMotionScore": ["image"],
    "UnleakMoments": ["model", "vae", "name", "num_frames", "folder", "width", "height", "fps", "existing", "images"],
}


def recorded(engine, name, tiny, attach, *, parts=None, **settings):
    """Run a KSampler on a tiny model that `attach` has changed; return what the denoiser was given, and the latents."""
    g = Graph()
    model = attach(g, loaded(g, tiny)[0])
    model = g("TestRecord", model=model, name=name)[0]
    latents = sampled(g, model, (parts or conditioned)(g, tiny), **settings)
    g("TestSave", latent=latents, name=f"{name}/latents/1")
    engine.run(g)
    return engine.calls(name), engine.saved(f"{name}/latents/1")["samples"]


def plain(g, model):
    return model


def start(text, mode="rescale", init="unit", moments="none"):
    def attach(g, model):
        return g("UnleakStart", model=model, start=text, mode=mode, init=init, moments=moments)[0]

    return attach


def motion(choice):
    return lambda g, model: g("UnleakMotion", model=model, motion=choice)[0]


def test_every_node_is_registered_with_help_on_every_input(engine):
    for name, inputs in NODES.items():
        (about,) = engine.get(f"/object_info/{name}").values()
        held = {**about["input"].get("required", {}), **about["input"].get("optional", {})}
        assert [*about["input_order"].get("required", []), *about["input_order"].get("optional", [])] == inputs
        assert about["category"].split("/")[0] == "unleak"
        assert about["description"]
        for spec in held.values():
            assert spec[1]["tooltip"]
        assert all(about["output_tooltips"])
    assert "Cannot import" not in "".join(line for line in engine.said().splitlines() if "unleak" in line)


@pytest.mark.parametrize("tiny", ["wan21", "wan22_5b", "ltxv", "hunyuan", "hunyuan_v2"])
def test_off_and_the_full_start_change_no_bit(engine, tiny):
    before, latents = recorded(engine, f"plain-{tiny}", tiny, plain)
    for name, attach in (("off", motion("off")), ("full", start("1.0T")), ("standard", start("1000", init="standard"))):
        after, same = recorded(engine, f"{name}-{tiny}", tiny, attach)
        assert torch.equal(latents, same)
        assert all(torch.equal(a["x"], b["x"]) for a, b in zip(before, after, strict=True))


FLOW = ["wan21", "wan22_5b", "ltxv", "hunyuan", "hunyuan_v2"]


@pytest.mark.parametrize(("tiny", "init"), product(FLOW, ["unit", "standard"]))
def test_a_flow_starts_at_the_level_and_noise_asked_for(engine, tiny, init):
    sigma = 0.9
    calls, _ = recorded(engine, f"start-{tiny}-{init}", tiny, start("sigma=0.9", init=init))
    assert calls[0]["sigma"].unique().item() == pytest.approx(sigma, abs=1e-6)
    eps = noise(TINY[tiny].shape)
    wanted = eps * (1.0 if init == "standard" else math.hypot(sigma, 1 - sigma))
    made = calls[0]["x"][:1]
    if TINY[tiny].mask:  # the first frame is held
        made, wanted = made[:, :, 1:], wanted[:, :, 1:]
    assert torch.allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize("tiny", ["wan22_5b", "ltxv", "hunyuan_v2"])
def test_the_image_held_by_a_mask_stays(engine, tiny):
    """The first frame is what it is in a plain run at that level."""
    name = f"masked-{tiny}"
    calls, latents = recorded(engine, name, tiny, start("sigma=0.9"))
    _, before = recorded(engine, f"{name}-plain", tiny, plain)
    assert torch.allclose(latents[:, :, 0], before[:, :, 0], atol=1e-5)
    assert not torch.allclose(latents[:, :, 1:], before[:, :, 1:], atol=1e-2)
    frames = [call["x"][:, :, 0] for call in calls]
    assert all(torch.allclose(frame, frames[0]) for frame in frames)


@pytest.fixture
def moments(engine):
    """Moments of 16 channels on a grid that is not the model's, in models/unleak; their name and what they hold."""
    generator = torch.Generator().manual_seed(11)
    mean = torch.randn(16, 2, 4, 4, generator=generator, dtype=torch.float64)
    square = mean.square() + torch.rand(16, 2, 4, 4, generator=generator, dtype=torch.float64)
    held = LatentMoments(50, mean, square, MomentsMeta("test"))
    (engine.base / "models" / "unleak").mkdir(exist_ok=True)
    held.save(engine.base / "models" / "unleak" / "test.safetensors")
    return "test.safetensors", held


@pytest.mark.parametrize("batch", [1, 2])
def test_analytic_starts_from_the_moments(engine, moments, batch):
    name, held = moments
    calls, _ = recorded(
        engine,
        f"analytic-{batch}",
        "wan21",
        start("sigma=0.9", init="analytic", moments=name),
        parts=lambda g, tiny: conditioned(g, tiny, batch=batch),
    )
    held = held.resample(*TINY["wan21"].shape[2:])
    eps = noise((batch, *TINY["wan21"].shape[1:]))
    wanted = 0.1 * held.mean.float() + math.sqrt(0.81 + 0.01 * held.isotropic_variance) * eps
    assert torch.allclose(calls[0]["x"][:batch], wanted, atol=1e-6)


def test_analytic_at_the_full_start_is_that_of_the_plain_sampler(engine, moments):
    """A flow at sigma 1 holds nothing of the data."""
    _, latents = recorded(engine, "analytic-full-plain", "wan21", plain)
    _, same = recorded(engine, "analytic-full", "wan21", start("1.0T", init="analytic", moments=moments[0]))
    assert torch.allclose(latents, same, atol=1e-5)


SAMPLERS = ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "res_multistep", "lcm"]
SCHEDULERS = [
    "simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic",
    "kl_optimal",
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_and_scheduler_starts_where_it_is_told(engine, sampler):
    g = Graph()
    model = loaded(g, "wan22_high")[0]
    parts = conditioned(g, "wan22_high")
    names = {scheduler: f"pair-{sampler}-{scheduler}" for scheduler in SCHEDULERS}
    for scheduler, name in names.items():
        for end, attach in (("", start("sigma=0.9")), ("-plain", plain)):
            used = g("TestRecord", model=attach(g, model), name=name + end)[0]
            asked = {"sampler_name": sampler, "scheduler": scheduler, "cfg": 1.0, "steps": 9}
            g("TestSave", latent=sampled(g, used, parts, **asked), name=f"{name}{end}/latents/1")
    engine.run(g, timeout=300)
    for name in names.values():
        calls, before = engine.calls(name), engine.calls(f"{name}-plain")
        sigmas, plain_sigmas = calls[0]["sigmas"], before[0]["sigmas"]
        assert calls[0]["sigma"].item() == pytest.approx(0.9, abs=1e-6)
        assert (sigmas.diff() < 0).all()
        assert len(sigmas) == len(plain_sigmas)
        assert sigmas[-1] == plain_sigmas[-1]
        assert len(calls) == len(before)
        assert engine.saved(f"{name}/latents/1")["samples"].isfinite().all()


def experts(g, high, low, *, steps=20, switch=10, name, record=True):
    """The two KSamplerAdvanced of Wan 2.2."""
    settings = {"noise_seed": 5, "steps": steps, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
    positive, negative, latent = conditioned(g, "wan22_high")
    parts = {"positive": positive, "negative": negative}
    if record:
        high = g("TestRecord", model=high, name=f"{name}/high")[0]
        low = g("TestRecord", model=low, name=f"{name}/low")[0]
    first = g(
        "KSamplerAdvanced",
        model=high,
        latent_image=latent,
        add_noise="enable",
        start_at_step=0,
        end_at_step=switch,
        return_with_leftover_noise="enable",
        **settings,
        **parts,
    )
    second = g(
        "KSamplerAdvanced",
        model=low,
        latent_image=first,
        add_noise="disable",
        start_at_step=switch,
        end_at_step=10000,
        return_with_leftover_noise="disable",
        **settings,
        **parts,
    )
    g("TestSave", latent=second, name=f"{name}/latents/1")
    return g


def both(engine, name, attach_high, attach_low=plain, **settings):
    g = Graph()
    high = attach_high(g, loaded(g, "wan22_high")[0])
    low = attach_low(g, loaded(g, "wan22_low")[0])
    engine.run(experts(g, high, low, name=name, **settings))
    return engine.calls(f"{name}/high"), engine.calls(f"{name}/low"), engine.saved(f"{name}/latents/1")["samples"]


def test_of_two_experts_the_first_starts_lower_and_the_second_goes_on(engine):
    high, low, latents = both(engine, "experts", start("sigma=0.96"))
    plain_high, plain_low, _ = both(engine, "experts-plain", plain)
    assert high[0]["sigma"].unique().item() == pytest.approx(0.96, abs=1e-6)
    assert high[0]["sigmas"][-1] == plain_high[0]["sigmas"][-1] == plain_low[0]["sigmas"][0]
    assert torch.equal(low[0]["sigmas"], plain_low[0]["sigmas"])
    assert latents.isfinite().all()
    # A start on the second, too, changes no bit: it draws no noise.
    *_, same = both(engine, "experts-twice", start("sigma=0.96"), start("sigma=0.96"))
    assert torch.equal(latents, same)


def test_a_start_below_the_first_expert_raises_in_a_sentence(engine):
    with pytest.raises(
        NodeError, match=r"start 0\.8T is sigma 0\.8, at or below sigma 0\.8889 where this sampler ends"
    ) as error:
        both(engine, "experts-low", start("0.8T"))
    assert error.value.node == "KSamplerAdvanced"


def test_high_motion_warns_where_it_leaves_the_first_expert_little(engine):
    both(engine, "experts-high", motion("high"))
    assert "leaves this sampler almost nothing to do" in engine.said()


def test_motion_of_two_experts_with_a_four_step_lora(engine):
    """low is a fix of the photo; medium and high amplify, and high leaves the first step out."""
    plain_high, plain_low, _ = both(engine, "lightning-plain", plain, steps=4, switch=2)
    image = plain_high[0]["concat"][:, 4:]
    wanted = torch.cat([image[:, :, :1], amplified(image, 1.15)[:, :, 1:]], 2)
    for choice, steps, seen in (("low", 2, image), ("medium", 2, wanted), ("high", 1, wanted)):
        high, low, latents = both(engine, f"lightning-{choice}", motion(choice), steps=4, switch=2)
        assert [call["sigma"][0] for call in high] == [call["sigma"][0] for call in plain_high[-steps:]]
        assert [call["sigma"][0] for call in low] == [call["sigma"][0] for call in plain_low]
        assert torch.allclose(high[0]["concat"][:, 4:], seen, atol=1e-6)
        assert torch.equal(low[0]["concat"], plain_low[0]["concat"])
        assert latents.isfinite().all()
    said = engine.said()
    assert (
        "motion high is MotionAmplitude(amount=1.15) and the start step:1 here, since a model made for few steps"
        in said
    )
    assert "motion low is Compress(crf=33) here, since" in said
    assert "but its own: put the node unleak Compress between the photo" in said


@pytest.mark.parametrize(("choice", "steps"), [("medium", 4), ("high", 3)])
def test_motion_in_few_steps_of_a_model_that_holds_its_photo_in_place(engine, choice, steps):
    """Less attention to the photo in the first step."""
    calls, latents = recorded(engine, f"few-ltx-{choice}", "ltxv", motion(choice), steps=4)
    before, _ = recorded(engine, "few-ltx-plain", "ltxv", plain, steps=4)
    assert [call["sigma"][0] for call in calls] == [call["sigma"][0] for call in before[-steps:]]
    assert [bool(call["overridden"]) for call in calls] == [True, *[False] * (steps - 1)]
    assert latents.isfinite().all()


def test_a_fix_of_ones_own_takes_the_place_of_that_of_motion(engine):
    def amplitude(g, model):
        return g("UnleakMotionAmplitude", model=model, amount=1.5)[0]

    def twice(g, model):
        return motion("medium")(g, amplitude(g, model))

    _, wanted = recorded(engine, "own-fix-wanted", "wan21", amplitude, steps=4)
    _, latents = recorded(engine, "own-fix", "wan21", twice, steps=4)
    assert torch.equal(latents, wanted)


def test_a_video_without_a_mask_keeps_its_noise_and_it_is_said(engine):
    def video(g, tiny):
        positive, negative, _ = conditioned(g, tiny)
        return positive, negative, g("TestLatent", shape=str(list(TINY[tiny].shape)), seed=13, mask="")

    calls, _ = recorded(engine, "video", "wan21", start("sigma=0.5"), parts=video)
    g = Graph()
    g("TestSave", latent=g("TestLatent", shape=str(list(TINY["wan21"].shape)), seed=13, mask=""), name="video/given/1")
    engine.run(g)
    from_plain, _ = recorded(engine, "video-plain", "wan21", plain, parts=video, denoise=0.2)
    assert calls[0]["sigma"].unique().item() == pytest.approx(0.5, abs=1e-6)
    eps = noise(TINY["wan21"].shape)
    # x is linear in sigma between the video and its noise: two runs at two levels give both.
    other = from_plain[0]["sigma"].unique().item()
    clean = (from_plain[0]["x"][:1] - other * eps) / (1 - other)
    assert torch.allclose(calls[0]["x"][:1], 0.5 * clean + 0.5 * eps, atol=1e-5)
    assert "begins from a video, so its noise stays as it is" in engine.said()


def test_sampling_that_starts_low_by_itself_gets_the_right_noise(engine):
    """KSampler's denoise below 1 begins at a lower sigma, from noise that is too weak."""
    calls, _ = recorded(engine, "denoise", "wan21", start("0.98T"), denoise=0.5)
    sigma = calls[0]["sigma"].unique().item()
    assert sigma < 0.98
    assert torch.allclose(calls[0]["x"][:1], noise(TINY["wan21"].shape) * math.hypot(sigma, 1 - sigma), atol=1e-6)
    assert "already below the start" in engine.said()


def custom(g, model, parts, sigmas, *, advanced, seed=5):
    positive, negative, latent = parts
    sampler = g("KSamplerSelect", sampler_name="euler")
    if not advanced:
        return g(
            "SamplerCustom",
            model=model,
            add_noise=True,
            noise_seed=seed,
            cfg=3.0,
            positive=positive,
            negative=negative,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=latent,
        )
    guider = g("CFGGuider", model=model, positive=positive, negative=negative, cfg=3.0)
    return g(
        "SamplerCustomAdvanced",
        noise=g("RandomNoise", noise_seed=seed),
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )


@pytest.mark.parametrize("advanced", [False, True])
def test_custom_samplers_do_as_ksampler_does(engine, advanced):
    _, wanted = recorded(engine, f"custom-wanted-{advanced}", "wan21", start("sigma=0.9"))
    g = Graph()
    model = start("sigma=0.9")(g, loaded(g, "wan21")[0])
    sigmas = g("BasicScheduler", model=model, scheduler="simple", steps=10, denoise=1.0)
    latents = custom(g, model, conditioned(g, "wan21"), sigmas, advanced=advanced)
    g("TestSave", latent=latents, name=f"custom-{advanced}/1")
    engine.run(g)
    assert torch.equal(engine.saved(f"custom-{advanced}/1")["samples"], wanted)


def test_the_node_for_sigmas_moves_them_alike(engine):
    """With unleak Start behind it, which then finds nothing to move, the video is the same."""
    _, wanted = recorded(engine, "sigmas-wanted", "wan21", start("sigma=0.9"))
    g = Graph()
    model = loaded(g, "wan21")[0]
    plain_sigmas = g("BasicScheduler", model=model, scheduler="simple", steps=10, denoise=1.0)
    sigmas = g("UnleakStartSigmas", model=model, sigmas=plain_sigmas, start="sigma=0.9", mode="rescale")
    latents = custom(g, start("sigma=0.9")(g, model), conditioned(g, "wan21"), sigmas, advanced=True)
    g("TestSave", latent=latents, name="sigmas/1")
    g("TestSaveSigmas", sigmas=sigmas, name="sigmas/2")
    engine.run(g)
    assert engine.saved("sigmas/2")["sigmas"][0].item() == pytest.approx(0.9, abs=1e-6)
    assert torch.equal(engine.saved("sigmas/1")["samples"], wanted)


def test_a_second_start_replaces_the_first(engine):
    def twice(g, model):
        return start("sigma=0.9")(g, start("sigma=0.5", init="standard")(g, model))

    _, once = recorded(engine, "replaced-wanted", "wan21", start("sigma=0.9"))
    _, latents = recorded(engine, "replaced", "wan21", twice)
    assert torch.equal(latents, once)


def test_the_loaded_model_is_not_changed(engine):
    """Two samplers in one workflow, one of them with the node."""
    _, alone = recorded(engine, "unchanged-plain", "wan21", plain)
    g = Graph()
    model = loaded(g, "wan21")[0]
    changed = start("sigma=0.9")(g, model)
    for name, chosen in (("a", changed), ("b", model)):
        g("TestSave", latent=sampled(g, chosen, conditioned(g, "wan21")), name=f"unchanged/{name}")
    engine.run(g)
    assert torch.equal(engine.saved("unchanged/b")["samples"], alone)
    assert not torch.equal(engine.saved("unchanged/a")["samples"], alone)


def test_with_context_windows_the_model_is_told_the_moved_sigmas(engine):
    def windows(g, model):
        model = start("sigma=0.9")(g, model)
        return g(
            "WanContextWindowsManual",
            model=model,
            context_length=17,
            context_overlap=4,
            context_schedule="standard_static",
            context_stride=1,
            closed_loop=False,
            fuse_method="pyramid",
        )[0]

    shape = (1, 16, 9, 8, 8)
    calls, latents = recorded(
        engine, "windows", "wan21_t2v", windows, parts=lambda g, tiny: conditioned(g, tiny, shape=shape)
    )
    assert calls[0]["x"].shape[2] == 5  # 17 frames
    assert calls[0]["sigma"].unique().item() == pytest.approx(0.9, abs=1e-6)
    assert latents.shape == shape
    assert latents.isfinite().all()


VIDEO, SOUND = (1, 128, 3, 4, 4), (1, 8, 5, 16)


def with_sound(engine, name, attach, mask=""):
    """Sample a video and its sound, packed into one latent; return what the denoiser was given, and both latents."""
    g = Graph()
    positive, negative, _ = conditioned(g, "ltxv")
    model = attach(g, g("TestWithSound", model=loaded(g, "ltxv"))[0])
    model = g("TestRecord", model=model, name=name)[0]
    latent = g("TestSoundLatent", shape=str(list(VIDEO)), sound=str(list(SOUND)), mask=mask)
    g("TestSave", latent=sampled(g, model, (positive, negative, latent)), name=f"{name}/latents/1")
    engine.run(g)
    return engine.calls(name), engine.saved(f"{name}/latents/1")


@pytest.mark.parametrize("mask", ["", "[0, 1, 1]"])
def test_video_and_sound_packed_together_both_start_lower(engine, mask):
    """As LTX-2 has them. What a noise mask holds of the video keeps its noise."""
    name = f"sound-{len(mask)}"
    calls, latents = with_sound(engine, name, start("sigma=0.9"), mask)
    assert latents["samples"].shape == VIDEO
    assert latents["sound"].shape == SOUND
    assert calls[0]["sigma"].unique().item() == pytest.approx(0.9, abs=1e-6)
    generator = torch.Generator().manual_seed(SEED)
    eps = [torch.randn(shape, generator=generator) * math.hypot(0.9, 0.1) for shape in (VIDEO, SOUND)]
    if mask:
        eps[0][:, :, 0] = 0  # the image, which is empty here
    wanted = torch.cat([part.reshape(1, 1, -1) for part in eps], -1)
    assert torch.allclose(calls[0]["x"][:1], wanted, atol=1e-6)
    before, _ = with_sound(engine, f"{name}-plain", plain, mask)
    off, _ = with_sound(engine, f"{name}-off", motion("off"), mask)
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(before, off, strict=True))


def test_nodes_are_still_listed_when_the_folder_of_moments_is_removed(engine, moments):
    listed = engine.get("/object_info/UnleakStart")["UnleakStart"]["input"]["required"]["moments"]
    assert moments[0] in listed[1]["options"]
    shutil.rmtree(engine.base / "models" / "unleak")
    listed = engine.get("/object_info/UnleakStart")["UnleakStart"]["input"]["required"]["moments"]
    assert listed[1]["options"] == ["none"]


def test_analytic_of_video_and_sound_packed_together_is_refused(engine):
    held = LatentMoments(9, torch.zeros(128, 1, 4, 4).double(), torch.ones(128, 1, 4, 4).double(), MomentsMeta("test"))
    (engine.base / "models" / "unleak").mkdir(exist_ok=True)
    held.save(engine.base / "models" / "unleak" / "ltx.safetensors")
    with pytest.raises(NodeError, match=r"sound and video packed together.*choose init unit"):
        with_sound(engine, "sound-analytic", start("sigma=0.9", init="analytic", moments="ltx.safetensors"))


BAD = [
    ("UnleakMotion", {"motion": "huge"}, "motion 'huge' is unknown: choose off, low, medium, high"),
    ("UnleakStart", {"mode": "stretch"}, "mode 'stretch' is unknown: choose auto, rescale, truncate"),
    ("UnleakStart", {"init": "gaussian"}, "init 'gaussian' is unknown: choose unit, standard, analytic"),
    ("UnleakStart", {"moments": "gone.safetensors"}, "moments 'gone.safetensors' is unknown: choose none"),
    ("UnleakStart", {"init": "analytic"}, "init analytic needs moments of this model's latents"),
    ("UnleakStart", {"start": "0.94"}, "start 0.94 is ambiguous: 0.94T or sigma=0.94"),
    ("UnleakStart", {"start": "sigma=1.5"}, "sigma 1.5 lies outside this RF process"),
    ("UnleakStart", {"start": "soon"}, "start 'soon' is not understood"),
    ("UnleakGuidanceInterval", {"low": "", "high": ""}, "needs a limit"),
    ("UnleakGuidanceInterval", {"low": "0.9T", "high": "0.1T"}, "is not below high"),
]
DEFAULTS = {
    "UnleakMotion": {},
    "UnleakStart": {"start": "0.94T", "mode": "rescale", "init": "unit", "moments": "none"},
    "UnleakGuidanceInterval": {},
}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mode": "stretch"}, "mode 'stretch' is unknown: choose auto, rescale, truncate"),
        ({"start": "0.94"}, "start 0.94 is ambiguous: 0.94T or sigma=0.94"),
        ({"start": "sigma=1.5"}, "sigma 1.5 lies outside this RF process"),
        ({"start": "step:3"}, "start step:3 leaves no step: this sampler has 3"),
        ({"start": "sigma=0.2"}, "below the last step of this sampler (sigma 0.5)"),
    ],
)
def test_bad_input_for_sigmas_is_one_sentence(engine, inputs, message):
    g = Graph()
    given = {"start": "0.94T", "mode": "truncate"} | inputs
    sigmas = g("TestSigmas", values="[1.0, 0.8, 0.5, 0.0]")
    g(
        "TestSaveSigmas",
        sigmas=g("UnleakStartSigmas", model=loaded(g, "wan21")[0], sigmas=sigmas, **given),
        name="bad/s",
    )
    with pytest.raises(NodeError) as error:
        engine.run(g)
    assert error.value.node == "UnleakStartSigmas"
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("node", "inputs", "message"), BAD)
def test_bad_input_is_one_sentence_of_the_node(engine, node, inputs, message):
    g = Graph()
    changed = g(node, model=loaded(g, "wan21")[0], **DEFAULTS[node] | inputs)
    g("TestSave", latent=sampled(g, changed, conditioned(g, "wan21")), name="bad/1")
    with pytest.raises(NodeError) as error:
        engine.run(g)
    assert error.value.node == node
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    _, latents = recorded(engine, f"after-{node}-{len(message)}", "wan21", plain)
    if "wan21" not in PLAIN:
        PLAIN["wan21"] = latents
    assert torch.equal(latents, PLAIN["wan21"])  # nothing is left on the loaded model


PLAIN = {}


def test_moments_of_other_channels_are_refused(engine, moments):
    with pytest.raises(NodeError, match=r"these moments have 16 channels .* the latents have 128"):
        recorded(engine, "channels", "ltxv", start("sigma=0.9", init="analytic", moments=moments[0]))


def test_rescale_of_few_steps_is_refused(engine):
    with pytest.raises(NodeError, match="choose mode truncate"):
        recorded(engine, "few", "wan21", start("sigma=0.9"), steps=4)


def test_a_model_type_never_seen_is_refused(engine):
    """A sampling by x_0, which ComfyUI has for images."""
    g = Graph()
    model = g("ModelSamplingDiscrete", model=g("UnleakNano")[0], sampling="x0", zsnr=False)
    g("TestShow", text=g("UnleakMotion", model=model, motion="low"))
    with pytest.raises(NodeError, match="does not know how this model noises its latents"):
        engine.run(g)
