"""Which step and which branch a strategy is told, whatever the scheduler; and that it acts on its own call alone."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch

import unleak
from tests.attach.guided import GUIDED, UNGUIDED
from tests.attach.watch import all_tiny
from unleak.attach.stand_in import StandIn
from unleak.attach.strategies.evaluations import Evaluation, evaluations

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

ALL = {tiny.name: tiny for tiny in all_tiny()}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SCHEDULERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "wan21": [
        ("UniPCMultistepScheduler", FLOW),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
        ("DPMSolverMultistepScheduler", FLOW),
        ("DEISMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        ("LTXEulerAncestralRFScheduler", {"eta": 0.5}),
    ],
    "pia": [
        ("DDIMScheduler", SD),
        ("DDPMScheduler", SD),
        ("PNDMScheduler", SD | {"skip_prk_steps": True}),
        ("EulerDiscreteScheduler", SD),
        ("EulerAncestralDiscreteScheduler", SD),
        ("HeunDiscreteScheduler", SD),
        ("LMSDiscreteScheduler", SD),
        ("DPMSolverSDEScheduler", SD),
        ("DPMSolverMultistepScheduler", SD),
        ("DPMSolverSinglestepScheduler", SD),
        ("UniPCMultistepScheduler", SD),
        ("LCMScheduler", SD),
    ],
    "cogvideox-ddim": [("CogVideoXDDIMScheduler", {}), ("CogVideoXDPMScheduler", {})],
}
EACH = [(name, cls, config) for name, found in SCHEDULERS.items() for cls, config in found]
TWICE = {"HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "DPMSolverSDEScheduler"}
STEPS = 9  # more than distilled models have, to whose levels a start keeps


class Seen:
    """A strategy that changes nothing and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def fits(self, pipeline: type, seam: Any, process: Any = None) -> None:
        pass

    def check(self, pipe: Any, seam: Any) -> None:
        pass

    @contextmanager
    def attached(self, pipe: Any, seam: Any, arguments: Mapping[str, Any]) -> Iterator[None]:
        def answer(evaluation: Evaluation) -> Any:
            self.told.append((evaluation.step, evaluation.steps, evaluation.branch))
            return evaluation.run()

        with evaluations(pipe, seam, answer):
            yield


def piped(name: str, cls: str, config: dict[str, Any]) -> Any:
    pipe = ALL[name].build()
    scheduler = getattr(diffusers, cls)
    pipe.scheduler = (
        scheduler.from_config(pipe.scheduler.config) if name.startswith("cog") else scheduler.from_config(config)
    )
    return pipe


def call(name: str, pipe: Any, **changes: Any) -> torch.Tensor:
    torch.manual_seed(0)
    return ALL[name].call(pipe, **GUIDED.get(name, {}) | {"num_inference_steps": STEPS} | changes)


@pytest.mark.parametrize(("name", "cls", "config"), EACH, ids=[f"{name}-{cls}" for name, cls, _ in EACH])
@pytest.mark.parametrize("start", [None, "lower"])
def test_steps_and_branches_are_as_the_pipeline_makes_them(name: str, cls: str, config: Any, start: str | None) -> None:
    seen, pipe = Seen(), piped(name, cls, config)
    lower = {"wan21": "sigma=0.9"}.get(name, "900") if start else None
    if lower and cls == "LCMScheduler":  # only distilled models are sampled with it: they know their own levels alone
        with pytest.raises(ValueError, match="its scheduler is LCMScheduler"):
            call(name, unleak.apply(pipe, start=lower, mode="rescale", strategies=[seen]))
        return
    call(name, unleak.apply(pipe, start=lower, strategies=[seen]))
    assert {steps for _, steps, _ in seen.told} == {STEPS}
    steps = [step for step, _, branch in seen.told if branch != "unconditional"]
    expected = list(range(STEPS))
    if cls in TWICE:
        expected = [step for step in expected for _ in range(2)][:-1]
    elif cls == "PNDMScheduler":
        expected = [0, *expected]
    assert steps == expected
    branches = ["conditional", "unconditional"] if name == "wan21" else ["both"]
    assert [branch for _, _, branch in seen.told] == branches * len(steps)


@pytest.mark.parametrize(("name", "cls", "config"), EACH, ids=[f"{name}-{cls}" for name, cls, _ in EACH])
@pytest.mark.parametrize(
    "strategy",
    [unleak.LowPass(0.5, (0.0, 0.3)), unleak.ConditionNoise(0.2, (0.0, 0.3)), unleak.GuidanceInterval(high="0.6T")],
    ids=["low-pass", "condition-noise", "guidance-interval"],
)
def test_every_strategy_runs_with_every_scheduler(name: str, cls: str, config: Any, strategy: Any) -> None:
    pipe = piped(name, cls, config)
    plain = call(name, pipe)
    ours = call(name, unleak.apply(pipe, strategies=[strategy]))
    assert not torch.equal(ours, plain)
    assert torch.equal(call(name, unleak.remove(pipe)), plain)


def test_sections_and_repetitions_start_over() -> None:
    seen = Seen()
    pipe = unleak.apply(ALL["framepack"].build(), strategies=[seen])
    ALL["framepack"].call(pipe, num_frames=13, num_inference_steps=2)
    steps = [step for step, _, branch in seen.told if branch == "conditional"]
    assert len(steps) > 2
    assert steps == [0, 1] * (len(steps) // 2)
    seen = Seen()
    pipe = unleak.apply(ALL["sparsectrl"].build(), strategies=[seen])
    pipe.enable_free_init(num_iters=2, use_fast_sampling=False, method="butterworth")
    ALL["sparsectrl"].call(pipe, num_inference_steps=3, **UNGUIDED["sparsectrl"])
    assert [step for step, _, _ in seen.told] == [0, 1, 2] * 2


def test_an_interval_of_the_callers_own_schedule_is_counted_too() -> None:
    seen = Seen()
    pipe = unleak.apply(ALL["sana-video"].build(), strategies=[seen])
    call("sana-video", pipe, sigmas=[1.0, 0.6, 0.3])
    assert [told[:2] for told in seen.told] == [(0, 3), (1, 3), (2, 3)]


# A strategy acts on its own call alone


class Held(Seen):
    """Waits in its first evaluation until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def attached(self, pipe: Any, seam: Any, arguments: Mapping[str, Any]) -> Iterator[None]:
        def answer(evaluation: Evaluation) -> Any:
            self.inside.set()
            assert self.go_on.wait(60)
            return evaluation.run()

        with evaluations(pipe, seam, answer):
            yield


STRATEGIES = {
    "wan21": [unleak.LowPass(0.5, (0.0, 1.0)), unleak.ConditionNoise(0.3), unleak.GuidanceInterval(high="0.5T")],
    "pia": [unleak.LowPass(0.5, (0.0, 1.0)), unleak.ConditionNoise(0.3), unleak.GuidanceInterval(high="0.5T")],
    "svd": [unleak.ConditionNoise(0.3), unleak.GuidanceInterval(high="sigma=40")],
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_pipeline_that_shares_the_denoiser_never_notices(name: str) -> None:
    plain = ALL[name].build()
    expected = call(name, plain)
    pipe = type(plain).from_pipe(plain)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(plain.scheduler).from_config(plain.scheduler.config)
    network = getattr(plain, ALL[name].denoiser)
    assert getattr(pipe, ALL[name].denoiser) is network
    held = Held()
    unleak.apply(pipe, strategies=[*STRATEGIES[name], held])
    before = dict(vars(network))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, name, pipe)
        assert held.inside.wait(60)
        try:
            assert vars(network) == before
            assert getattr(plain, ALL[name].denoiser) is network
            assert torch.equal(call(name, plain), expected)
        finally:
            held.go_on.set()
        assert not torch.equal(running.result(), expected)
    assert vars(pipe)[ALL[name].denoiser] is network


@pytest.mark.parametrize("name", ["wan21", "pia"])
def test_two_threads_on_one_pipeline_take_turns(name: str) -> None:
    pipe = ALL[name].build()
    plain, scheduler = call(name, pipe), pipe.scheduler
    start = {"wan21": "sigma=0.8", "pia": "800"}[name]
    unleak.apply(pipe, start=start, strategies=STRATEGIES[name])
    once = call(name, pipe)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(ALL[name].call, pipe, **GUIDED[name], num_inference_steps=STEPS) for _ in range(4)]
        assert all(torch.equal(one.result(), once) for one in found)
    assert pipe.scheduler is scheduler
    assert torch.equal(call(name, unleak.remove(pipe)), plain)


def test_apply_and_remove_wait_for_a_running_call() -> None:
    pipe = ALL["wan21"].build()
    plain, names = call("wan21", pipe), set(vars(pipe))
    held = Held()
    unleak.apply(pipe, start="sigma=0.8", strategies=[held])
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(call, "wan21", pipe)
        assert held.inside.wait(60)
        removing = pool.submit(unleak.remove, pipe)
        assert not removing.done()
        held.go_on.set()
        running.result()
        removing.result()
    assert set(vars(pipe)) == names
    assert torch.equal(call("wan21", pipe), plain)


def test_a_callback_that_breaks_off_or_calls_again_leaves_no_trace() -> None:
    pipe = ALL["wan21"].build()
    plain = call("wan21", pipe)
    before = dict(vars(pipe))
    unleak.apply(pipe, start="sigma=0.8", strategies=STRATEGIES["wan21"])
    once = call("wan21", pipe)

    def fail(*args: Any) -> None:
        raise RuntimeError("stopped")

    def again(*args: Any) -> dict[str, Any]:
        call("wan21", pipe)
        return {}

    def removed(*args: Any) -> dict[str, Any]:
        unleak.remove(pipe)
        return {}

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(call, "wan21", pipe, callback_on_step_end=fail) for _ in range(3)]
        for run in runs:
            with pytest.raises(RuntimeError, match="stopped"):
                run.result()
    with pytest.raises(ValueError, match="is being called, and something in that call, such as a callback, calls it"):
        call("wan21", pipe, callback_on_step_end=again)
    assert torch.equal(call("wan21", pipe), once)
    assert torch.equal(call("wan21", pipe, callback_on_step_end=removed), once)
    assert type(pipe) is type(ALL["wan21"].build())
    assert torch.equal(call("wan21", pipe), plain)
    assert all(vars(pipe)[name] is value for name, value in before.items() if isinstance(value, torch.nn.Module))


def test_model_hooks_are_put_on_the_denoiser_itself() -> None:
    pipe, seen = ALL["wan21"].build(), []
    network = pipe.transformer
    plain = type(pipe).maybe_free_model_hooks

    class Watching(type(pipe)):
        def maybe_free_model_hooks(self) -> None:
            seen.append(self.components["transformer"] is network)
            plain(self)

    Watching.__name__ = type(pipe).__name__
    pipe.__class__ = Watching
    call("wan21", unleak.apply(pipe, strategies=STRATEGIES["wan21"]))
    assert seen == [True]
    assert "maybe_free_model_hooks" not in vars(pipe)


def test_a_stand_in_is_the_network_in_all_but_its_call() -> None:
    import copy
    import pickle

    network = torch.nn.Linear(2, 2)
    stand_in = StandIn(network, {"__call__": lambda x: x + 1})
    assert isinstance(stand_in, torch.nn.Linear)
    assert stand_in(1) == 2
    assert stand_in.weight is network.weight
    stand_in.note = 3
    assert network.note == 3
    del stand_in.note
    assert not hasattr(network, "note")
    assert type(copy.deepcopy(stand_in)) is type(pickle.loads(pickle.dumps(stand_in))) is torch.nn.Linear
    assert copy.copy(stand_in).weight is network.weight
    assert repr(stand_in) == repr(network)
    assert "weight" in stand_in.state_dict()
    stand_in.to(torch.float64)
    assert network.weight.dtype == torch.float64
