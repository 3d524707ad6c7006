"""The fixes beside a start in the real ComfyUI: what the denoiser is given, and what the sampler gets."""

import numpy as np
import pytest
import torch

from tests.comfyui.engine.client import Graph, NodeError
from tests.comfyui.workflows import conditioned, loaded, sampled
from unleak.attach.strategies.compress import compressed
from unleak.attach.strategies.low_pass import LowPass
from unleak.attach.strategies.motion_amplitude import amplified

STEPS = 10
IMAGE = {"wan21": slice(4, None), "hunyuan": slice(0, 16)}
MASK = {"wan21": slice(0, 4), "hunyuan": slice(16, None)}


def run(engine, name, tiny, *fixes, parts=conditioned, **settings):
    """Run a KSampler with these fixes, (node, inputs) each; return the evaluations of the denoiser and the latents."""
    g = Graph()
    model = loaded(g, tiny)[0]
    for node, inputs in fixes:
        model = g(node, model=model, **inputs)[0]
    model = g("TestRecord", model=model, name=name)[0]
    latents = sampled(g, model, parts(g, tiny), **{"steps": STEPS} | settings)
    g("TestSave", latent=latents, name=f"{name}/latents/1")
    engine.run(g)
    return engine.calls(name), engine.saved(f"{name}/latents/1")["samples"]


def split(call, name="concat"):
    """What one evaluation was given, by branch: 0 the conditional one, 1 the other."""
    parts = call[name].chunk(len(call["branches"]))
    return {int(branch): part for branch, part in zip(call["branches"], parts, strict=True)}


@pytest.fixture(scope="module")
def plain(engine):
    held = {}

    def ran(tiny):
        if tiny not in held:
            held[tiny] = run(engine, f"plain-{tiny}", tiny)
        return held[tiny]

    return ran


@pytest.mark.parametrize(
    "fix",
    [
        ("UnleakLowPass", {"factor": 0.5, "share": 0.0}),
        ("UnleakConditionNoise", {"beta": 0.0, "share": 1.0, "seed": 0}),
        ("UnleakGuidanceInterval", {"low": "", "high": "1.0T"}),
        ("UnleakMotionAmplitude", {"amount": 1.0}),
        ("UnleakReferenceBias", {"gamma": 0.0, "share": 1.0}),
    ],
)
def test_a_setting_that_does_nothing_changes_no_bit(engine, plain, fix):
    name = f"nothing-{fix[0]}"
    _, latents = run(engine, name, "wan21", fix)
    if fix[0] == "UnleakLowPass":  # a share of 0 is the first step
        assert not torch.equal(latents, plain("wan21")[1])
    else:
        assert torch.equal(latents, plain("wan21")[1])


@pytest.mark.parametrize("tiny", ["wan21", "hunyuan"])
def test_condition_noise_is_on_the_image_of_the_conditional_branch(engine, plain, tiny):
    beta, seed = 0.3, 4
    calls, _ = run(engine, f"noise-{tiny}", tiny, ("UnleakConditionNoise", {"beta": beta, "share": 0.5, "seed": seed}))
    before, _ = plain(tiny)
    image = split(before[0])[0][:, IMAGE[tiny]]
    eps = torch.randn((1, 16, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    wanted = image.clone()
    wanted[:, :, :1] += beta * eps
    for step, (call, ordinary) in enumerate(zip(calls, before, strict=True)):
        made, plain_parts = split(call), split(ordinary)
        assert torch.equal(made[1], plain_parts[1])
        assert torch.equal(made[0][:, MASK[tiny]], plain_parts[0][:, MASK[tiny]])
        acts = step / (STEPS - 1) <= 0.5
        assert torch.allclose(made[0][:, IMAGE[tiny]], wanted if acts else image, atol=1e-6)


@pytest.mark.parametrize("tiny", ["wan21", "hunyuan"])
def test_low_pass_is_that_of_its_authors(engine, tiny):
    """v(I, nothing) + w (v(LP(I), prompt) - v(LP(I), nothing)), at the cost of one more evaluation."""
    factor, cfg = 0.5, 3.0
    calls, _ = run(engine, f"low-{tiny}", tiny, ("UnleakLowPass", {"factor": factor, "share": 0.3}), cfg=cfg)
    filtered = LowPass(factor, (0.0, 0.3)).filtered
    acting = [step for step in range(STEPS) if step / (STEPS - 1) <= 0.3]
    assert sum(len(call["branches"]) for call in calls) == 2 * STEPS + len(acting)
    image = split(calls[-1])[0][:, IMAGE[tiny]]
    by_step = {}
    for call in calls:
        step = int((call["sigmas"] >= call["sigma"].max() * (1 - 1e-6)).sum()) - 1
        concat, output, x = split(call), split(call, "output"), split(call, "x")
        by_step.setdefault(step, []).extend((b, concat[b][:, IMAGE[tiny]], output[b], x[b]) for b in sorted(concat))
    sigmas = calls[0]["sigmas"]
    for step in acting:
        (_, low_image, low, x), (_, full_image, full, _), (_, more_image, more, _) = by_step[step]
        assert torch.allclose(low_image, filtered(image), atol=1e-6)
        assert torch.equal(full_image, image)
        assert torch.allclose(more_image, filtered(image), atol=1e-6)
        # Euler's step goes on from the combination.
        combined = full + cfg * (low - more)
        wanted = x + (x - combined) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        assert torch.allclose(by_step[step + 1][0][3], wanted, atol=1e-4)
    assert torch.equal(split(calls[-1])[0], split(calls[-1])[1])


def test_low_pass_without_guidance_costs_nothing_more(engine):
    calls, _ = run(engine, "low-unguided", "wan21", ("UnleakLowPass", {"factor": 0.5, "share": 1.0}), cfg=1.0)
    image = LowPass(0.5, (0.0, 1.0)).filtered
    before, _ = run(engine, "low-unguided-plain", "wan21", cfg=1.0)
    assert len(calls) == STEPS
    for call, ordinary in zip(calls, before, strict=True):
        wanted = image(ordinary["concat"][:, IMAGE["wan21"]])
        assert torch.allclose(call["concat"][:, IMAGE["wan21"]], wanted, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [("", "0.9T"), ("0.6T", ""), ("0.6T", "0.9T")])
def test_outside_the_guidance_interval_the_second_evaluation_is_saved(engine, plain, low, high):
    calls, _ = run(engine, f"interval-{low}-{high}", "wan21", ("UnleakGuidanceInterval", {"low": low, "high": high}))
    for call in calls:
        sigma = call["sigma"].max().item()
        inside = (not low or sigma > 0.6) and (not high or sigma <= 0.9 * (1 + 1e-6))
        assert len(call["branches"]) == (2 if inside else 1)
        assert 0 in call["branches"]
    assert 0 < sum(len(call["branches"]) == 2 for call in calls) < STEPS
    # The first step outside is an unguided one.
    unguided, _ = run(engine, "interval-unguided", "wan21", cfg=1.0)
    if high:
        assert torch.allclose(calls[1]["x"][:1], unguided[1]["x"][:1], atol=1e-5)


def test_motion_amplitude_changes_the_blank_frames_of_both_branches(engine, plain):
    calls, _ = run(engine, "amplitude", "wan21", ("UnleakMotionAmplitude", {"amount": 1.3}))
    for call, ordinary in zip(calls, plain("wan21")[0], strict=True):
        made, before = split(call), split(ordinary)
        for branch in (0, 1):
            assert torch.equal(made[branch][:, MASK["wan21"]], before[branch][:, MASK["wan21"]])
            image = before[branch][:, IMAGE["wan21"]]
            assert torch.equal(made[branch][:, IMAGE["wan21"]][:, :, 0], image[:, :, 0])
            assert torch.allclose(made[branch][:, IMAGE["wan21"]], amplified(image, 1.3), atol=1e-6)


def test_motion_amplitude_leaves_a_last_image_alone(engine):
    def first_and_last(g, tiny):
        return conditioned(g, tiny, shown="[0, 2]")

    calls, _ = run(engine, "flf", "wan21", ("UnleakMotionAmplitude", {"amount": 1.3}), parts=first_and_last)
    before, _ = run(engine, "flf-plain", "wan21", parts=first_and_last)
    made, image = (split(some[0])[0][:, IMAGE["wan21"]] for some in (calls, before))
    assert torch.equal(made[:, :, [0, 2]], image[:, :, [0, 2]])
    assert not torch.equal(made[:, :, 1], image[:, :, 1])


@pytest.mark.parametrize("crf", [0, 33])
def test_compress_is_a_round_trip_through_h264(engine, crf):
    g = Graph()
    image = g("TestImages", shape="[2, 48, 63, 3]", seed=6)
    g("TestSaveImage", image=image, name=f"compress-{crf}/1")
    g("TestSaveImage", image=g("UnleakCompress", image=image, crf=crf), name=f"compress-{crf}/2")
    engine.run(g)
    before, after = (engine.saved(f"compress-{crf}/{i}")["image"] for i in (1, 2))
    if crf == 0:
        assert torch.equal(before, after)
        return
    wanted = [compressed((frame * 255).round().byte().numpy(), crf) for frame in before]
    assert np.array_equal((after * 255).round().byte().numpy(), np.stack(wanted))


TOKENS = {  # of the video, and of its first frame
    "wan21": (48, 16),
    "wan22_5b": (12, 4),
    "ltxv": (48, 16),
    "hunyuan": (48, 16),
    "hunyuan_v2": (48, 16),
}


@pytest.mark.parametrize("tiny", TOKENS)
def test_reference_bias_takes_gamma_from_the_logits_of_the_photo(engine, plain, tiny):
    """Against the attention written out, with a mask of logits."""
    gamma, (video, photo) = 1.5, TOKENS[tiny]
    calls, latents = run(engine, f"bias-{tiny}", tiny, ("UnleakReferenceBias", {"gamma": gamma, "share": 1.0}))
    told = {"video": video, "photo": photo, "joined": tiny.startswith("hunyuan"), "gamma": gamma}
    wanted, _ = run(engine, f"bias-{tiny}-wanted", tiny, ("TestMaskedAttention", told))
    before = plain(tiny)[0]
    for call, masked in zip(calls, wanted, strict=True):
        assert torch.allclose(call["output"], masked["output"], atol=1e-4)
    changed, ordinary = split(calls[0], "output"), split(before[0], "output")
    assert torch.allclose(changed[1], ordinary[1], atol=1e-5)
    assert not torch.allclose(changed[0], ordinary[0], atol=1e-3)
    assert latents.isfinite().all()


def test_reference_bias_acts_in_the_first_steps(engine, plain):
    calls, _ = run(engine, "bias-share", "wan21", ("UnleakReferenceBias", {"gamma": 1.5, "share": 0.3}))
    overridden = [bool(call["overridden"]) for call in calls]
    assert overridden == [step / (STEPS - 1) <= 0.3 for step in range(STEPS)]
    assert not any(call["overridden"] for call in plain("wan21")[0])


def test_reference_bias_needs_a_photo_that_is_tokens(engine):
    g = Graph()
    g("TestShow", text=g("UnleakReferenceBias", model=g("UnleakNano")[0], gamma=0.6, share=0.2))
    with pytest.raises(NodeError, match=r"cannot act on this model \(SVD_img2vid\): its photo is no frame of tokens"):
        engine.run(g)
    with pytest.raises(NodeError, match=r"cannot act on this model \(WAN21\)"):
        run(engine, "refused", "wan21_t2v", ("UnleakReferenceBias", {"gamma": 0.6, "share": 0.2}))


REFUSED = [
    ("ltxv", "holds the image in place by a noise mask"),
    ("wan22_5b", "holds the image in place by a noise mask"),
    ("hunyuan_v2", "does not enter the denoiser as latents beside the noise"),
    ("wan21_t2v", "does not enter the denoiser as latents beside the noise"),
]


@pytest.mark.parametrize(("tiny", "why"), REFUSED)
@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("UnleakLowPass", {"factor": 0.5, "share": 0.2}),
        ("UnleakConditionNoise", {"beta": 0.1, "share": 1.0, "seed": 0}),
        ("UnleakMotionAmplitude", {"amount": 1.2}),
    ],
)
def test_models_that_hold_their_image_otherwise_refuse_in_a_sentence(engine, tiny, why, node, inputs):
    with pytest.raises(NodeError) as error:
        run(engine, "refused", tiny, (node, inputs))
    assert error.value.node == node
    assert why in str(error.value)
    assert "unleak Motion and unleak Start work" in str(error.value)


def test_motion_amplitude_needs_blank_frames(engine):
    with pytest.raises(NodeError, match="needs encoded blank frames after the image, as Wan has"):
        run(engine, "refused", "hunyuan", ("UnleakMotionAmplitude", {"amount": 1.2}))


def test_a_guider_of_three_branches_is_refused(engine):
    g = Graph()
    model = g("UnleakLowPass", model=loaded(g, "wan21")[0], factor=0.5, share=0.2)
    positive, negative, latent = conditioned(g, "wan21")
    guider = g(
        "DualCFGGuider",
        model=model,
        cond1=positive,
        cond2=positive,
        negative=negative,
        cfg_conds=3.0,
        cfg_cond2_negative=2.0,
        style="regular",
    )
    sigmas = g("BasicScheduler", model=model, scheduler="simple", steps=10, denoise=1.0)
    sampler = g("KSamplerSelect", sampler_name="euler")
    noise = g("RandomNoise", noise_seed=1)
    latents = g(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    g("TestSave", latent=latents, name="dual/1")
    with pytest.raises(NodeError, match="knows guidance with two branches, and this guider has 3"):
        engine.run(g)


def test_a_start_and_fixes_together(engine):
    fixes = [
        ("UnleakStart", {"start": "sigma=0.9", "mode": "rescale", "init": "unit", "moments": "none"}),
        ("UnleakLowPass", {"factor": 0.5, "share": 0.2}),
        ("UnleakConditionNoise", {"beta": 0.1, "share": 1.0, "seed": 0}),
        ("UnleakGuidanceInterval", {"low": "0.6T", "high": ""}),
        ("UnleakMotionAmplitude", {"amount": 1.2}),
        ("UnleakReferenceBias", {"gamma": 0.6, "share": 0.5}),
    ]
    calls, latents = run(engine, "together", "wan21", *fixes)
    assert calls[0]["sigma"].max().item() == pytest.approx(0.9, abs=1e-6)
    assert latents.isfinite().all()
    assert len(calls[-1]["branches"]) == 1
