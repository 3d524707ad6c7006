"""Every video pipeline of diffusers that is given an image or a video: attachable, or refused with a reason."""

import ast
import importlib.util
from pathlib import Path

import pytest

import unleak
from tests.attach.watch import all_tiny
from unleak.attach.plan import UnleakWarning
from unleak.attach.schedule import process_of
from unleak.attach.seams import REFUSED, SEAMS, Seam, register_seam, seam_of
from unleak.core.start import Start

ALL = {tiny.name: tiny for tiny in all_tiny()}
PIXELS = ("image", "video", "frames", "condition", "control", "reference")
"""Words in the names of arguments that bring pictures; and those with them that do not:"""
OTHERS = ("num_", "frames_per", "_per_", "frame_rate", "scale", "strength", "noise", "guidance", "embeds", "frame_ind")
OTHERS += ("controlnet", "timestep", "chunk", "conditioning_att", "sigma", "length")


def pipelines() -> dict[str, list[str]]:
    """Names of the video pipelines -> their arguments that bring pictures, read without importing anything."""
    found = {}
    root = Path(importlib.util.find_spec("diffusers").origin).parent / "pipelines"
    for path in sorted(root.glob("**/pipeline_*.py")):
        text = path.read_text(encoding="utf-8")
        if "num_frames" not in text and "video" not in text:
            continue
        for cls in ast.parse(text).body:
            methods = getattr(cls, "body", ())
            call = next((m for m in methods if isinstance(m, ast.FunctionDef) and m.name == "__call__"), None)
            if not (isinstance(cls, ast.ClassDef) and cls.name.endswith("Pipeline") and call):
                continue
            names = [argument.arg for argument in (*call.args.args, *call.args.kwonlyargs)]
            body = ast.get_source_segment(text, call)
            if not ({"num_frames", "video", "frames"} & set(names) or "frames=" in body):
                continue
            given = [n for n in names if any(w in n for w in PIXELS) and not any(w in n for w in OTHERS)]
            if set(given) - {"frames", "num_frames"}:
                found[cls.name] = given
    return found


def test_every_video_pipeline_that_is_given_pictures_has_a_seam_or_a_reason() -> None:
    known = pipelines()
    assert len(known) > 45
    assert {"StableVideoDiffusionPipeline", "WanImageToVideoPipeline", "SanaImageToVideoPipeline"} <= known.keys()
    missing = {name: given for name, given in known.items() if name not in SEAMS and name not in REFUSED}
    assert not missing
    assert not SEAMS.keys() & REFUSED.keys()
    assert all(len(reason) > 20 for reason in REFUSED.values())


def test_every_name_in_the_table_is_a_pipeline_of_diffusers() -> None:
    import diffusers

    known = {*diffusers._import_structure["pipelines"], *diffusers._import_structure["modular_pipelines"]}
    assert {*SEAMS, *REFUSED} <= known


@pytest.mark.parametrize("name", ["wan21", "kandinsky5", "cosmos1", "pia", "cogvideox-ddim"])
@pytest.mark.parametrize("motion", ["low", "medium", "high"])
def test_presets_are_levels_of_their_process(name: str, motion: str) -> None:
    pipe = unleak.apply(ALL[name].build(), motion=motion)
    level = seam_of(pipe).motion[motion].resolve(process_of(pipe.scheduler))
    assert process_of(pipe.scheduler).cleanest.flow_sigma < level.flow_sigma < 1


def test_presets_rise_in_motion() -> None:
    for name, seam in SEAMS.items():
        assert list(seam.motion) == ["low", "medium", "high"], name
        unit = {start.unit for start in seam.motion.values()}
        low, medium, high = (start.value for start in seam.motion.values())
        assert len(unit) == 1
        assert (low < medium < high) if unit == {"log_snr"} else (low > medium > high)


def test_equal_snr_presets_are_the_published_starts() -> None:
    import torch

    from unleak.attach.seams.presets import EQUAL_SNR
    from unleak.core.process import VP

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    plain, zero = (VP.from_betas(betas, zero_terminal_snr=flag) for flag in (False, True))
    published = {"low": (zero, 0.96), "medium": (zero, 0.92), "high": (plain, 0.92)}
    for name, (process, fraction) in published.items():
        assert EQUAL_SNR[name].value == pytest.approx(process.level_at_fraction(fraction).log_snr, abs=0.01)


def test_a_seam_of_ones_own_is_a_dozen_lines(monkeypatch) -> None:
    monkeypatch.delitem(SEAMS, "LucyEditPipeline")
    pipe = ALL["lucy-edit"].build()
    with pytest.raises(
        ValueError, match=r"cannot attach to LucyEditPipeline; it knows .*WanVACEPipeline.*a dozen lines"
    ):
        unleak.apply(pipe, start="sigma=0.9")
    register_seam("LucyEditPipeline", Seam("b c f h w", motion={"high": Start.sigma(0.9)}))
    assert unleak.summary(unleak.apply(pipe, motion="high")).level["sigma"] == 0.9
    with pytest.raises(ValueError, match="has a seam already"):
        register_seam("LucyEditPipeline", Seam("b c f h w"))


# Gotchas of single pipelines


def call(name: str, pipe: object, **changes: object) -> object:
    return ALL[name].call(pipe, **{"num_inference_steps": 9} | changes)  # few steps keep to their own levels


def test_wan22_below_the_boundary_never_runs_its_first_expert() -> None:
    pipe = unleak.apply(ALL["wan22"].build(), start="sigma=0.9")
    with pytest.warns(UnleakWarning, match="never runs the expert for high noise, which ends at 900"):
        call("wan22", pipe)
    calls = []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.warns(UnleakWarning, match="never runs the expert"):
        call("wan22", unleak.apply(pipe, start="sigma=0.8"))
    assert not calls


@pytest.mark.parametrize(("name", "argument"), [("pia", "strength"), ("easyanimate-inpaint", "strength")])
def test_strength_below_one_is_refused(name: str, argument: str) -> None:
    pipe = unleak.apply(ALL[name].build(), start="0.8T")
    with pytest.raises(ValueError, match=rf"{argument}=0.5 starts from the noised input.*call with {argument}=1"):
        call(name, pipe, **{argument: 0.5})


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_cosmos25_ends_at_its_condition(mode: str) -> None:
    from tests.attach.watch import Watched

    tiny = ALL["cosmos2.5-predict"]
    image = Watched(tiny, tiny.build()).prepared[1][:, :, :1]
    ended = call(tiny.name, unleak.apply(tiny.build(), start="sigma=0.8", mode=mode))
    assert ended.shape[2] > 1
    torch_close(ended[:, :, :1], image)


def torch_close(a: object, b: object) -> None:
    import torch

    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_ltx2_sound_starts_at_unit_statistics() -> None:
    import torch

    def sound(pipe: object) -> torch.Tensor:
        seen = []

        def stop(module: object, args: object, kwargs: dict) -> None:
            seen.append(kwargs["audio_hidden_states"][-1:].clone())
            raise KeyboardInterrupt

        handle = pipe.transformer.register_forward_pre_hook(stop, with_kwargs=True)
        with pytest.raises(KeyboardInterrupt):
            call("ltx2", pipe)
        handle.remove()
        return seen[0]

    plain = sound(ALL["ltx2"].build())
    started = sound(unleak.apply(ALL["ltx2"].build(), start="sigma=0.8", init="unit"))
    torch.testing.assert_close(started, plain * (0.8**2 + 0.2**2) ** 0.5)


def test_schedules_of_the_caller() -> None:
    pipe = ALL["sana-video"].build()
    plain = call("sana-video", pipe, sigmas=[1.0, 0.6, 0.3])
    with pytest.warns(UnleakWarning, match="start 0.8T is ignored: this call brings its own sigmas"):
        ours = call("sana-video", unleak.apply(pipe, start="0.8T", mode="rescale"), sigmas=[1.0, 0.6, 0.3])
    assert ours.equal(plain)
    with pytest.warns(UnleakWarning, match="1 of 3 steps are run .*sigma 0.8 and moves to"):
        assert not call("sana-video", unleak.apply(pipe, start="0.8T"), sigmas=[1.0, 0.6, 0.3]).equal(plain)
    ltx = unleak.apply(ALL["hunyuan-concat"].build(), init="unit")
    with pytest.raises(ValueError, match="draws its noise before it knows the level that sigmas begin at"):
        call("hunyuan-concat", ltx, sigmas=[1.0, 0.5])


def test_few_step_schedules_say_which_steps_run() -> None:
    pipe = ALL["wan21"].build()
    with pytest.warns(UnleakWarning, match=r"1 of 4 steps are run .*at sigma 0.7 and moves to"):
        call("wan21", unleak.apply(pipe, start="sigma=0.7", mode="truncate"), num_inference_steps=4)


def test_free_noise_draws_elsewhere_and_is_refused() -> None:
    import torch

    pipe = unleak.apply(ALL["sparsectrl"].build(), init="unit")
    plain = type(pipe).__mro__[1].prepare_latents

    class Elsewhere(type(pipe).__mro__[1]):
        def prepare_latents(self, *args: object, latents: object = None, randn_tensor: object = None) -> object:
            return torch.zeros(1)

    assert plain is not Elsewhere.prepare_latents
    unleak.remove(pipe)
    pipe.__class__ = Elsewhere
    with pytest.raises(ValueError, match="does not draw its noise itself"):
        call("sparsectrl", unleak.apply(pipe, init="unit"))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"helios", "helios-pyramid", "helios-distilled", "ltx2-dfr"}))
def test_summary_works_for_every_pipeline(name: str) -> None:
    pipe = ALL[name].build()
    start = {"VP": "820", "VE": "sigma=20", "RF": "sigma=0.8"}[process_of(pipe.scheduler).kind]
    told = unleak.summary(unleak.apply(pipe, start=start), num_inference_steps=9)
    assert told.applied
    assert told.level["text"] in str(told)
    if pipe.scheduler.config.get("use_dynamic_shifting"):
        assert told.before is told.after is None
        assert "spaced by the size of the video" in str(told)
    else:
        assert told.after[0] == pytest.approx(told.level["sigma"], rel=1e-5)
        assert told.after[0] > told.after[1]
        assert len(told.before) == len(told.after) == 10
