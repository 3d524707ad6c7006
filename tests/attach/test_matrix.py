"""The whole matrix: every pipeline, tiny, with its real classes; the promises of `unleak.apply` for each.

What a pipeline is expected to do is written down here a second time, apart from the seams, so that a wrong seam fails.
"""

import copy
import itertools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unleak
from benchmarks import support_table
from tests.attach.conftest import SUPPORT
from tests.attach.guided import GUIDED, NO_PHOTO, UNGUIDED
from tests.attach.layouts import CLEAN, start_of, video
from tests.attach.watch import Watched, all_tiny
from tests.tiny.model import Tiny
from unleak.attach import apply as applying
from unleak.attach import session
from unleak.attach.schedule import process_of
from unleak.attach.seams import REFUSED, seam_of
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.core.process import Level
from unleak.core.start import Start

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

ALL = {tiny.name: tiny for tiny in all_tiny()}
REFUSED_HERE = {"helios", "helios-pyramid", "helios-distilled", "ltx2-dfr"}
NO_INIT = {"ltx-long"}
ATTACHED = [tiny for name, tiny in ALL.items() if name not in REFUSED_HERE]

LEAD = {"cogvideox1.5-ddim", "cogvideox1.5-dpm", "wan-vace", "wan-animate"}
"""One latent frame in front that is not of the video."""
HELD = {"cosmos2.5-predict"}
"""Frame 0 has to be the condition from anywhere but sigma 1."""
BLENDED = {"hunyuan-concat", "hunyuan-replace"}
"""0.999 of the noise and 0.001 of the image."""
NETWORKS_TIMESTEP = {
    "VP": lambda level, process: process.timestep_of(level) - 1,
    "VE": lambda level, process: 0.25 * torch.tensor(level.sigma).log().item(),
    "RF": lambda level, process: 1000 * level.sigma,
    "cosmos2": lambda level, process: level.sigma / (level.sigma + 1),
    "cosmos2.5-predict": lambda level, process: level.sigma,
    "cosmos2.5-transfer": lambda level, process: level.sigma,
}


def moments_of(shape: tuple[int, ...]) -> LatentMoments:
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return LatentMoments(7, mean, mean.square() + 0.5, MomentsMeta(model="tiny"))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(same, a, b))


MANY = {"num_inference_steps": 9}
"""More steps than the schedules of distilled models have, to whose levels a start keeps."""


def call(tiny: Tiny, pipe: Any, **changes: Any) -> Any:
    torch.manual_seed(0)  # some pipelines encode their image with the global generator
    return tiny.call(pipe, **changes)


# Every promise is a check, which a test below makes hold, and another one makes fail


@cache
def plain_of(name: str) -> Any:
    """What the pipeline gives before unleak ever touched one like it."""
    return call(ALL[name], ALL[name].build())


@cache
def longer_of(name: str) -> Any:
    """The same with the steps that a lower start is called with."""
    return call(ALL[name], ALL[name].build(), **MANY)


@cache
def watched_of(name: str) -> Watched:
    return Watched(ALL[name], ALL[name].build())


def check_full_start(tiny: Tiny, mode: str) -> None:
    pipe = tiny.build()
    for start in (None, "1.0T")[mode == "truncate" :]:
        assert same(call(tiny, unleak.apply(pipe, start=start, mode=mode)), plain_of(tiny.name)), start


def check_repeatable(tiny: Tiny, mode: str) -> None:
    pipe = tiny.build()
    init = "standard" if tiny.name in NO_INIT else "unit"
    unleak.apply(pipe, start=start_of(pipe)[0], init=init, mode=mode)
    assert same(call(tiny, pipe, **MANY), call(tiny, pipe, **MANY))


def check_removal(tiny: Tiny, mode: str) -> None:
    pipe, plain = tiny.build(), plain_of(tiny.name)
    call(tiny, pipe)  # some pipelines get attributes by being called
    cls, scheduler, names = type(pipe), pipe.scheduler, set(vars(pipe))
    config, held = dict(scheduler.config), set(vars(scheduler))
    init = "standard" if tiny.name in NO_INIT else "unit"
    unleak.apply(pipe, start=start_of(pipe)[0], init=init, mode=mode)
    assert not same(call(tiny, pipe, **MANY), longer_of(tiny.name))
    unleak.remove(pipe)
    assert (type(pipe), pipe.scheduler, set(vars(pipe))) == (cls, scheduler, names)
    assert (dict(scheduler.config), set(vars(scheduler))) == (config, held)
    assert same(call(tiny, pipe), plain)


def check_level(tiny: Tiny, mode: str) -> None:
    pipe = tiny.build()
    process, (start, level) = process_of(pipe.scheduler), start_of(pipe)
    seen = Watched(tiny, unleak.apply(pipe, start=start, mode=mode), **MANY)
    expected = NETWORKS_TIMESTEP.get(tiny.name, NETWORKS_TIMESTEP[process.kind])(level, process)
    assert seen.timestep == pytest.approx(expected, rel=1e-6)
    if seen.sigma is not None:
        assert seen.sigma == pytest.approx(process.sigma_of(level), rel=1e-6)


def check_initial_latents(tiny: Tiny, mode: str) -> None:
    pipe = tiny.build()
    plain, (start, level), kind = watched_of(tiny.name), start_of(pipe), process_of(pipe.scheduler).kind
    c, f, h, w = grid = grid_of(tiny, pipe, plain)
    factor = {"VP": 1.0, "RF": 1.0, "VE": level.sigma}[kind] if tiny.name != "svd" else (level.sigma**2 + 1) ** 0.5
    cases: list[tuple[Any, Tensor, float]] = [
        ("standard", torch.zeros(grid), factor),
        ("unit", torch.zeros(grid), (level.alpha**2 + level.sigma**2) ** 0.5),
    ]
    for shape in (grid, (c, 1, 1, 1), (c, f + 2, h + 1, w)):
        moments = moments_of(shape)
        std = (level.sigma**2 + level.alpha**2 * moments.isotropic_variance) ** 0.5
        cases.append((AnalyticInit(moments), level.alpha * moments.resample(f, h, w).mean, std))
    for init, mean, std in cases:
        now, expected = initial(tiny, unleak.apply(pipe, start=start, init=init, mode=mode), plain, mean, std)
        torch.testing.assert_close(now, expected, rtol=1e-5, atol=1e-5 * max(1.0, std))


def initial(tiny: Tiny, pipe: Any, plain: Watched, mean: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """(what the pipeline made of its draw, what it should have)."""
    shown = Watched(tiny, pipe, **MANY)
    draw = video(tiny, pipe, plain.eps, plain.places)
    was = video(tiny, pipe, plain.prepared[0], plain.places, draw)
    now = video(tiny, pipe, shown.latents if tiny.name in HELD else shown.prepared[0], shown.places, draw)
    expected = (torch.cat([mean[:, :1], mean], 1) if tiny.name in LEAD else mean).float() + std * draw
    if tiny.name in BLENDED:
        expected = was + 0.999 * (expected - draw)
    if tiny.name in CLEAN | HELD:  # bit for bit
        image = was if tiny.name in CLEAN else plain.prepared[1]
        assert torch.equal(now[:, :, :1], image[:, :, :1])
        expected[:, :, :1] = image[:, :, :1]
    for theirs, ours in zip(plain.prepared[1:], shown.prepared[1:], strict=True):
        assert tiny.name == "easyanimate-inpaint" or not isinstance(theirs, Tensor) or torch.equal(theirs, ours)
    return now, expected


def grid_of(tiny: Tiny, pipe: Any, plain: Watched) -> tuple[int, int, int, int]:
    c, f, h, w = video(tiny, pipe, plain.eps, plain.places).shape[1:]
    return c, f - (tiny.name in LEAD), h, w


CHECKS = {
    "full start": check_full_start,
    "repeatable": check_repeatable,
    "removal": check_removal,
    "level": check_level,
    "initial latents": check_initial_latents,
}


def cases() -> list[Any]:
    named = [(name, tiny) for name in CHECKS for tiny in ATTACHED]
    named = [(name, tiny) for name, tiny in named if name != "initial latents" or tiny.name not in NO_INIT]
    return [pytest.param(name, tiny, id=f"{tiny.name}-{name}") for name, tiny in named]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rescale", "truncate"])
@pytest.mark.parametrize(("name", "tiny"), cases())
def test_promise(name: str, tiny: Tiny, mode: str, held: Callable[[str, Any, str], None]) -> None:
    CHECKS[name](tiny, mode)
    held(tiny.name, tiny.build(), f"{name}, {mode}")


def _break(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the hook behind a promise out of order."""
    if name == "full start":  # a start is carried out although none was asked for
        noisy = session.nearest
        monkeypatch.setattr(session, "nearest", lambda scheduler, level: noisy(scheduler, lower(scheduler)))
    elif name == "repeatable":
        plain = session.started
        monkeypatch.setattr(
            session,
            "started",
            lambda scheduler, level, mode, limits: plain(scheduler, lower(scheduler, next(DRIFT)), mode, limits),
        )
    elif name == "removal":
        monkeypatch.setattr(applying, "_plan_class", lambda pipe: None)
    elif name == "level":
        monkeypatch.setattr(session, "started", lambda scheduler, level, mode, limits: copy.deepcopy(scheduler))
    else:
        monkeypatch.setattr(session, "_sample", lambda init, eps, level, lead: eps)


def lower(scheduler: Any, less: int = 0) -> Level:
    process = process_of(scheduler)
    return Start.log_snr(-2.0 + 0.25 * less).resolve(process)


DRIFT = itertools.cycle([0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tiny"), cases())
def test_promise_can_fail(name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    _break(name, monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[name](tiny, "truncate" if name == "full start" else "rescale")  # rescaled, few steps are refused


# Every video pipeline of diffusers


@pytest.mark.parametrize("name", sorted(REFUSED_HERE))
def test_refused_pipelines_say_why(name: str) -> None:
    pipe = ALL[name].build()
    with pytest.raises(ValueError, match="cannot attach to") as error:
        unleak.apply(pipe, start="0.9T")
    assert REFUSED[type(pipe).__name__] in str(error.value)


# The table of the README is made of what held here


def strategies_of(name: str) -> set[str]:
    """The strategies that the tests of each note for a pipeline, by what its seam allows."""
    pipe = ALL[name].build()
    seam, names = seam_of(pipe), set()
    if seam.image_tokens is not None:
        names.add("reference bias")
    if seam.condition is not None and seam.condition.blank_frames and not pipe.config.get("expand_timesteps"):
        names.add("motion amplitude")
    if seam.noise_arguments:
        names.add("condition noise")
    if name not in NO_PHOTO:
        names.add("compress")
    return names


def test_the_committed_results_are_of_every_promise() -> None:
    """A promise that stops holding fails above; one that is new here is missing from the file: write it again."""
    committed = json.loads(SUPPORT.read_text())
    expected: dict[str, set[str]] = {}
    for case in cases():
        promise, tiny = case.values
        expected.setdefault(tiny.name, set()).update(f"{promise}, {mode}" for mode in ("rescale", "truncate"))
    for name in GUIDED:
        expected[name] |= {"low-pass", "condition noise"}
    for name in expected:
        expected[name] |= strategies_of(name)
    for name in {*GUIDED, *UNGUIDED}:
        expected[name].add("guidance interval")
    assert {name: set(result["held"]) for name, result in committed.items()} == expected
    for name, result in committed.items():
        pipe = ALL[name].build()
        assert (result["pipeline"], result["scheduler"]) == (type(pipe).__name__, type(pipe.scheduler).__name__)


@pytest.mark.parametrize(
    ("page", "marks", "table"),
    [
        ("docs/pipelines.md", support_table.MARKS, support_table.table),
        ("docs/pipelines.md", support_table.SHORT, support_table.short_table),
    ],
)
def test_the_committed_tables_are_made_of_the_results(page: str, marks: tuple[str, str], table: Any) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert text.split(f"{marks[0]}\n")[1].split(f"\n{marks[1]}")[0] == table(json.loads(SUPPORT.read_text()))


def test_the_table_shows_what_failed_and_what_was_not_run() -> None:
    committed = json.loads(SUPPORT.read_text())
    committed["wan21"]["held"].remove("level, truncate")
    (row,) = [row for row in support_table.table(committed).splitlines() if row.startswith("| WanImageToVideoP")]
    assert row.split(" | ")[3] == "**fails**"
    assert "| **not every test holds** | WanI2V |" in support_table.short_table(committed)
    (row,) = [row for row in support_table.table({}).splitlines() if row.startswith("| WanImageToVideoP")]
    assert "read, not run" in row
