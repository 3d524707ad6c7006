"""Does a model lose motion to its conditioning image? Clips are noised, and the model has to bring them back.

The *one-step curve* (one prediction from a noised clip) falls with the noise for an ideal model too, so it is shown and
does not count. What counts is the *restart*: the model samples on from a noised clip, and motion that can still be seen
in the noise has to come back. A yardstick says whether it can be seen: the same network without its image, and on clips
of known motion the exact posterior (`unleak.study.diagnose.oracle`).
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from unleak import __version__
from unleak.core.process import Level
from unleak.core.start import describe
from unleak.data.atomic import folder_written_whole
from unleak.data.pixels import to_unit
from unleak.families.view import View
from unleak.measure.intervals import FEWEST, Mean, mean_of
from unleak.measure.motion import DIS, Flow
from unleak.report.diagnose_page import page
from unleak.report.plots import Line
from unleak.report.plots import kept_motion as plot_kept
from unleak.study.diagnose.oracle import posterior

__all__ = ["Diagnosis", "Row", "Verdict", "judge", "kept_motion", "measure_leakage", "own_motion", "sampled"]

Clips = UInt8[np.ndarray, "b F H W 3"]
LevelPredict = Callable[[Tensor, Level], Tensor]

RECORD, TABLE, CHART, PAGE = "diagnosis.json", "curve.csv", "diagnosis.png", "index.html"
STARTS = ("0.98T", "0.94T", "0.86T", "0.78T", "0.70T", "0.60T", "0.50T", "0.40T")
FLOW_SIZE = (400, 225)  # width, height that flow is compared at, whatever the video's own
STILL = 0.3  # px of FLOW_SIZE per pair of frames; a clip that moves less has no motion to lose
GAP = 0.1  # share of a clip's motion; smaller differences are not called a leak
ENOUGH, SEEN = 0.8, 0.5  # of what the autoencoder alone keeps


@dataclass(frozen=True)
class Row:
    """One video, measured against the clip that it began from."""

    test: str
    """`restart`, `one step`; `fresh` from pure noise, `pipeline` by its own call; `autoencoder` for there and back."""
    who: str
    """`image`, `no image`, `oracle`."""
    start: str
    """Empty where there is none."""
    clip: int
    seed: int
    kept: float
    """Share of the clip's own motion that came back in its own directions: 1 for all, 0 for none (`kept_motion`)."""
    amount: float
    """Motion in any direction relative to the clip's; dissolution counts too."""


@dataclass(frozen=True)
class Verdict:
    """What the numbers say, and how far they can be trusted."""

    label: str
    """`leaks`, `loses motion`, `no leak found` or `undecided`."""
    sentences: tuple[str, ...]
    start: str | None
    """The start to use; None if nothing speaks for a change."""


# ---- the measure ---------------------------------------------------------------------------------------------------


def flows(frames: UInt8[np.ndarray, "f h w 3"], flow: Flow) -> Float[np.ndarray, "pairs hh ww 2"]:
    """Return the optical flow of each pair of adjacent frames at `FLOW_SIZE`, every fourth pixel of it."""
    import cv2

    resized = [cv2.resize(frame, FLOW_SIZE, interpolation=cv2.INTER_LINEAR) for frame in frames]
    return np.stack([flow(a, b)[2::4, 2::4] for a, b in pairwise(resized)])


def own_motion(own: Float[np.ndarray, "pairs hh ww 2"]) -> float:
    """Return the mean length of a flow, px of `FLOW_SIZE` per pair of frames."""
    return float(np.linalg.norm(own, axis=-1).mean())


def kept_motion(
    video: Float[np.ndarray, "pairs hh ww 2"], own: Float[np.ndarray, "pairs hh ww 2"]
) -> tuple[float, float]:
    """Return how much of the flow `own` is in that of `video`, <video, own> / <own, own>, and the ratio of lengths.

    The first number is 1 for the same motion, s for the same motion s times as fast, 0 on average for motion that has
    nothing to do with it, such as flicker and dissolution, and negative for the opposite motion.
    """
    return float((video * own).sum() / np.square(own).sum()), own_motion(video) / own_motion(own)


# ---- the tests -----------------------------------------------------------------------------------------------------


def sampled(
    predict: LevelPredict,
    noised: Callable[[Tensor, Tensor, Level], Tensor],
    x: Float[Tensor, "b c f h w"],
    levels: Sequence[Level],
) -> Float[Tensor, "b c f h w"]:
    """Sample from `x` at the first of `levels` down to a clean clip: DDIM without noise (Song et al. 2021, eq. 12).

    On VE and RF processes these are the Euler steps of the probability flow.
    """
    for level, below in pairwise([*levels, None]):
        assert level is not None
        x_0 = predict(x, level)
        if below is None:
            return x_0
        eps = (x - noised(x_0, torch.zeros_like(x), level)) / level.sigma
        x = noised(x_0, eps, below)
    raise AssertionError("no levels")


def oracle(view: View, alternatives: Float[Tensor, "b k c f h w"], probabilities: Float[Tensor, " k"]) -> LevelPredict:
    """Return the predictor E[x_0 | x_t] for a truth that is one of `alternatives`."""
    b = len(alternatives)

    def predict(x_t: Tensor, level: Level) -> Tensor:
        flat = alternatives.flatten(0, 1)
        means = view.add_noise(flat, torch.zeros_like(flat), level).unflatten(0, (b, -1))
        weights = posterior(x_t, x_t.new_full((b,), level.sigma), means, probabilities)
        return einsum(weights, alternatives, "b k, b k c f h w -> b c f h w")

    return predict


@dataclass(frozen=True, eq=False)
class Scenes:
    """What the oracle knows: for each clip everything that it could have been, and how likely that was."""

    alternatives: UInt8[np.ndarray, "n k f h w 3"]
    probabilities: Float[np.ndarray, " k"]


TESTS = ("one step", "restart", "fresh")


@torch.inference_mode()
def measure_leakage(
    view: View,
    clips: UInt8[np.ndarray, "n f h w 3"],
    *,
    starts: Sequence[str] = STARTS,
    steps: int = 25,
    seeds: int = 1,
    seed: int = 0,
    batch_size: int = 4,
    tests: Sequence[str] = TESTS,
    scenes: Scenes | None = None,
    generate: Callable[[UInt8[np.ndarray, "h w 3"], int], UInt8[np.ndarray, "f h w 3"]] | None = None,
    on_video: Callable[[], None] | None = None,
    about: dict[str, Any] | None = None,
) -> "Diagnosis":
    """Restart `clips` from each of `starts`, with their image and without it, and measure how much motion comes back.

    clips: real videos, of the size and rate that the model makes; those that hardly move are left out.
    steps: denoising steps below each start. seeds: noises for each clip. tests: some of `TESTS`; the verdict needs
    `restart`. scenes: what clips of known motion could have been; adds the oracle.
    generate: makes the pipeline's own video of (first frame, seed). on_video: called after each of `videos_of` videos.

    Raises ValueError if no clip moves.
    """
    flow = DIS()
    own = [flows(clip, flow) for clip in clips]
    motion = [own_motion(one) for one in own]
    moving = [k for k, one in enumerate(motion) if one >= STILL]
    if not moving:
        raise ValueError(
            f"none of the {len(clips)} clips moves (at most {max(motion):.2f} px of 400x225 a frame): no model can lose"
            " what is not there; give clips that move, or a lower --fps"
        )
    levels = {start: view.level(start) for start in starts}
    order = sorted(levels, key=lambda start: levels[start].log_snr)
    rows = list[Row]()

    def measure(test: str, who: str, start: str, batch: Sequence[int], number: int, videos: Clips) -> None:
        for k, video in zip(batch, videos, strict=True):
            rows.append(Row(test, who, start, k, number, *kept_motion(flows(video, flow), own[k])))
            if on_video is not None:
                on_video()

    for first in range(0, len(moving), batch_size):
        batch = moving[first : first + batch_size]
        x_0 = encoded(view, clips[batch])
        measure("autoencoder", "", "", batch, 0, decoded(view, x_0))
        predictors = _predictors(view, clips, batch, x_0, scenes)
        for number in range(seeds):
            draws = [torch.randn(x_0.shape[1:], generator=_generator(seed, number, k)) for k in batch]
            eps = torch.stack(draws).to(x_0)
            for who, predict in predictors.items():
                for test, start, latents in _tested(view, predict, x_0, eps, levels, order, steps, tests):
                    measure(test, who, start, batch, number, decoded(view, latents))
        if generate is not None:
            for k in batch:
                measure("pipeline", "image", "", [k], 0, generate(clips[k, 0], seed + k)[None])
    units = {start: describe(levels[start], view.process) for start in order}
    f, h, w = clips.shape[1:4]
    known = {
        "video": {"num_frames": f, "height": h, "width": w},
        "steps": steps,
        "seeds": seeds,
        "seed": seed,
        "no_image": view.absent,
        "flow": f"{flow.name} at {FLOW_SIZE[0]}x{FLOW_SIZE[1]}",
    }
    return Diagnosis(tuple(rows), units, tuple(motion), known | (about or {}))


def _predictors(
    view: View, clips: Clips, batch: Sequence[int], x_0: Float[Tensor, "b c f h w"], scenes: Scenes | None
) -> dict[str, LevelPredict]:
    """Return the model with its image, without it, and the oracle where the scenes are known."""
    images = to_unit(torch.from_numpy(np.ascontiguousarray(clips[batch, 0])).to(view.device))
    given = images, [view.arguments.get("prompt") or ""] * len(batch), clips.shape[1]
    found: dict[str, LevelPredict] = {
        "image": _predicting(view, view.encode_condition(*given)),
        "no image": _predicting(view, view.without_image(*given)),
    }
    if scenes is not None:
        alternatives = torch.stack([encoded(view, scenes.alternatives[k]) for k in batch])
        found["oracle"] = oracle(view, alternatives, torch.from_numpy(scenes.probabilities).to(x_0))
    return found


def _tested(
    view: View,
    predict: LevelPredict,
    x_0: Float[Tensor, "b c f h w"],
    eps: Float[Tensor, "b c f h w"],
    levels: Mapping[str, Level],
    order: Sequence[str],
    steps: int,
    tests: Sequence[str],
) -> Iterator[tuple[str, str, Tensor]]:
    """Run each of `tests`; its name, its start and the latents that came of it."""
    for start in order:
        x_t = view.add_noise(x_0, eps, levels[start])
        if "one step" in tests:
            yield "one step", start, predict(x_t, levels[start])
        if "restart" in tests:
            run = view.levels(start, steps)  # which begin below the start where a schedule of few steps lacks it
            yield "restart", start, sampled(predict, view.add_noise, view.add_noise(x_0, eps, run[0]), run)
    if "fresh" in tests:
        full = view.levels("1.0T", steps)
        noise = float(np.hypot(full[0].alpha, full[0].sigma)) * eps
        yield "fresh", "", sampled(predict, view.add_noise, noise, full)


def videos_of(
    moving: int, *, starts: int, seeds: int, oracle: bool, pipeline: bool, tests: Sequence[str] = TESTS
) -> int:
    """Return how many videos `measure_leakage` makes of `moving` clips."""
    of_start = starts * len({"one step", "restart"} & set(tests)) + ("fresh" in tests)
    return moving * (1 + seeds * (2 + oracle) * of_start + pipeline)


def encoded(view: View, clips: UInt8[np.ndarray, "b F H W 3"]) -> Float[Tensor, "b c f h w"]:
    """Encode clips to model latents."""
    if (hook := getattr(view.pipe.vae, "_hf_hook", None)) is not None:
        hook.pre_forward(view.pipe.vae)  # it waits off the accelerator, and views look where it is
    return view.encode_video(to_unit(torch.from_numpy(clips).to(view.device)))


def decoded(view: View, latents: Float[Tensor, "b c f h w"]) -> UInt8[np.ndarray, "b F H W 3"]:
    """Decode model latents to clips. Raises ValueError if the model gave NaN."""
    videos = view.decode(latents).float()
    if not videos.isfinite().all():
        raise ValueError(f"the model gave NaN in {view.pipe.dtype}; give a dtype of more range (float32)")
    pixels = ((videos.clamp(-1, 1) + 1) * 127.5).round().byte()
    return rearrange(pixels, "b f c h w -> b f h w c").cpu().numpy()


def _predicting(view: View, condition: Any) -> LevelPredict:
    return lambda x_t, level: view.predict_clean(x_t, level, condition)


def _generator(seed: int, number: int, clip: int) -> torch.Generator:
    # The generator takes 64 bits; seeds below 9 million keep the noise that they have always had.
    return torch.Generator().manual_seed(((seed * 1_000_003 + number) * 1_000_003 + clip) % 2**63)


# ---- what they say -------------------------------------------------------------------------------------------------

_COLOURS = {"image": "#d64541", "no image": "#7d50be", "oracle": "#26965a"}
_NAMES = {"image": "with its image", "no image": "without its image", "oracle": "the oracle"}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Every measured video, and what follows from them. `save` writes a page, a picture, a table and JSON."""

    rows: tuple[Row, ...]
    units: dict[str, dict[str, Any]]
    """Each start with its level in every unit, noisiest first."""
    motion: tuple[float, ...]
    """Motion of each clip, px of 400x225 per pair of frames; a clip below `STILL` was left out."""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def starts(self) -> tuple[str, ...]:
        """Return the starts, noisiest first."""
        return tuple(self.units)

    def mean(self, test: str, who: str, start: str = "", *, of: str = "kept") -> Mean | None:
        """Return the mean over clips, with the seeds of a clip averaged; None if nothing was measured."""
        groups: dict[int, list[float]] = {}
        for row in self.rows:
            if (row.test, row.who, row.start) == (test, who, start):
                groups.setdefault(row.clip, []).append(getattr(row, of))
        return mean_of(groups) if groups else None

    def difference(self, more: str, less: str, start: str) -> Mean | None:
        """Return how much more motion `more` keeps than `less`, restarted from the same noised clips."""
        found: dict[tuple[int, int], dict[str, float]] = {}
        for row in self.rows:
            if (row.test, row.start) == ("restart", start):
                found.setdefault((row.clip, row.seed), {})[row.who] = row.kept
        groups: dict[int, list[float]] = {}
        for (clip, _), kept in found.items():
            if more in kept and less in kept:
                groups.setdefault(clip, []).append(kept[more] - kept[less])
        return mean_of(groups) if groups else None

    @property
    def verdict(self) -> Verdict:
        """Return what the numbers say, in words."""
        return judge(self)

    @property
    def curve(self) -> list[dict[str, Any]]:
        """Return a row of the table for each test, who and start."""
        places = dict.fromkeys((row.test, row.who, row.start) for row in self.rows)
        table = []
        for test, who, start in places:
            kept, amount = self.mean(test, who, start), self.mean(test, who, start, of="amount")
            assert kept is not None
            assert amount is not None
            unit = self.units.get(start, {})
            numbers = {f"{name}_{key}": value for name, mean in (("kept", kept), ("amount", amount))
                       for key, value in mean.record.items() if key != "groups"}  # fmt: skip
            place = {"test": test, "who": who, "start": start}
            table.append(
                place | {"sigma": unit.get("sigma"), "log_snr": unit.get("log_snr"), **numbers, "clips": kept.groups}
            )
        return table

    @property
    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "unleak": __version__,
            "verdict": asdict(self.verdict),
            **self.about,
            "clips": {"motion": list(self.motion), "still_below": STILL},
            "starts": self.units,
            "curve": self.curve,
            "rows": [asdict(row) for row in self.rows],
        }

    @property
    def lines(self) -> list[Line]:
        """Motion kept against the start, a line for each test and each who."""
        lines = []
        for test in ("restart", "one step"):
            for who, colour in _COLOURS.items():
                points = [self.mean(test, who, start) for start in self.starts]
                if any(points):
                    how = "restarted" if test == "restart" else "predicted at once"
                    ends = [None if mean is None else _within(mean) for mean in points]
                    lines.append(Line(f"{how}, {_NAMES[who]}", colour, ends, dashed=test == "one step"))
        return lines

    def save(self, folder: str | Path) -> Path:
        """Write a page, the curve as a picture and a table, and JSON to `folder`, which is replaced.

        Returns the path of the page.
        """
        folder = Path(folder)
        with folder_written_whole(folder) as temporary:
            files = {"files": sorted([RECORD, TABLE, CHART, PAGE])}
            (temporary / RECORD).write_text(json.dumps(self.record | files, indent=2) + "\n", encoding="utf-8")
            with (temporary / TABLE).open("w", newline="", encoding="utf-8") as file:
                curve = self.curve
                writer = csv.DictWriter(file, curve[0].keys())
                writer.writeheader()
                writer.writerows(curve)
            plot_kept(self.starts, self.lines, temporary / CHART)
            text = page(self.record, plot_kept(self.starts, self.lines))
            (temporary / PAGE).write_text(text, encoding="utf-8")
        return folder / PAGE


def _within(mean: Mean) -> tuple[float, float, float]:
    """Return a mean with ends that can be drawn; few clips have none."""
    bounds = (mean.low, mean.high) if np.isfinite(mean.low) else (mean.value, mean.value)
    return (mean.value, *bounds)


def judge(found: Diagnosis) -> Verdict:
    """Return the verdict on a diagnosis.

    A difference counts if its interval leaves out 0, if it is `GAP` or more, if it comes from `FEWEST` clips or more,
    and if the same holds for what the yardstick itself brings back: where nothing can be seen, a model that does worse
    than nothing has lost nothing. If the network keeps more without its image, it leaks. If only the oracle keeps more,
    motion is lost, and no more can be said: the oracle knows the whole scene, and a weak network loses to it as well.
    """
    there_and_back = found.mean("autoencoder", "")
    ceiling = there_and_back.value if there_and_back is not None and there_and_back.value > 0 else 1.0
    lost, seen, clear = _lost(found, ceiling)
    who = "no image" if lost["no image"] else "oracle"
    losses, said = lost[who], list[str]()
    if losses:
        label, sentences = _of_losses(found, who, losses)
    elif seen and clear:
        label = "no leak found"
        sentences = [
            f"No leak was found: at {', '.join(dict.fromkeys(seen))}, where the motion of a clip can still be seen in"
            " the noise, the model keeps as much of it with its image as the yardstick does."
        ]
    else:
        label, sentences = "undecided", [f"Undecided: {_why_undecided(found, seen)}."]
    said += sentences
    said.append(_where_lost(found, ceiling, leaks=bool(losses)))
    begin: str | None = None
    if losses:
        cleanest = max(map(found.starts.index, losses))
        begin = found.starts[min(cleanest + 1, len(found.starts) - 1)]
        beyond = ", and lower ones may be needed" if cleanest + 1 >= len(found.starts) else ""
        said.append(
            f"Recommended start: {_place(found, begin)}{beyond}. A lower start moves more and follows the photo less:"
            " look at `unleak sweep` before you settle."
        )
    return Verdict(label, tuple(said + _amounts(found, ceiling)), begin)


def _lost(found: Diagnosis, ceiling: float) -> tuple[dict[str, dict[str, Mean]], list[str], bool]:
    """Return, by start, what each yardstick keeps beyond the model, where it sees motion, and whether that is clear."""
    lost: dict[str, dict[str, Mean]] = {"no image": {}, "oracle": {}}
    clear, seen = True, list[str]()
    for start in found.starts:
        for who, gaps in lost.items():
            gap, yard = found.difference(who, "image", start), found.mean("restart", who, start)
            if gap is None or yard is None or gap.groups < FEWEST:
                continue
            if min(gap.low, yard.low) > 0 and min(gap.value, yard.value) >= GAP:
                gaps[start] = gap
            if yard.value >= SEEN * ceiling:
                seen.append(start)
                clear = clear and gap.high < 2 * GAP
    return lost, seen, clear


def _of_losses(found: Diagnosis, who: str, losses: Mapping[str, Mean]) -> tuple[str, list[str]]:
    """Return the label and the sentences for motion that is lost."""
    worst = max(losses, key=lambda start: losses[start].value)
    kept = {name: _need(found.mean("restart", name, worst)) for name in ("image", who)}
    begins = f"restarted at {_place(found, worst)} with its image it keeps {kept['image']} of a clip's motion, while"
    if who == "no image":
        label = "leaks"
        said = [
            f"This model leaks: {begins} the same network without its image keeps {kept[who]}: the motion can be seen"
            " in the noise, and the image is what it is lost to."
        ]
    else:
        label = "loses motion"
        said = [f"This model loses motion that can be seen in the noise: {begins} the oracle keeps {kept[who]}."]
        amount = _need(found.mean("restart", "image", worst, of="amount"))
        moves = (
            "stands still, as a leak would have it." if amount.high < ENOUGH else "moves, though not as the clips do."
        )
        said.append(
            f"Its videos from there move {amount} times as much as the clips, so it {moves} Whether the image is to"
            " blame cannot be known: without it this network keeps no more."
        )
    if len(losses) > 1:
        said.append(f"The same holds at {', '.join(losses)}.")
    return label, said


def _why_undecided(found: Diagnosis, seen: Sequence[str]) -> str:
    clips = _need(found.mean("restart", "image", found.starts[0])).groups
    if clips < FEWEST:
        return f"{clips} clips that move prove nothing: give {FEWEST} or more, better 16"
    if seen:
        return "the intervals are too wide: give more clips or seeds"
    return (
        "without its image this network brings no motion back, so it is no yardstick; --photos makes clips of known"
        " motion, which have one"
    )


def _where_lost(found: Diagnosis, ceiling: float, *, leaks: bool) -> str:
    """Say from which start on the model loses motion, whoever is to blame."""
    kept = {start: _need(found.mean("restart", "image", start)) for start in found.starts}
    low = [start for start in found.starts if kept[start].value < ENOUGH * ceiling]
    if not low:
        return "With its image the model keeps the motion of clips at every start that was tried."
    if low[-1] == found.starts[-1]:
        return f"With its image motion is lost even at {_place(found, low[-1])}, the least noisy start tried."
    kept_from = found.starts[found.starts.index(low[-1]) + 1]
    why = "" if leaks else "; what noise hides, no model keeps, and that is no leak"
    return f"With its image motion is lost above {_place(found, kept_from)}{why}."


def _amounts(found: Diagnosis, ceiling: float) -> list[str]:
    """Say how much the videos move from pure noise, and the limits of it all."""
    said = []
    for test, name, text in (
        ("fresh", "image", "From pure noise, without guidance, its videos move"),
        ("pipeline", "image", "The pipeline's own videos, with its guidance, move"),
        ("fresh", "oracle", "Videos of the oracle move"),
    ):
        if moved := found.mean(test, name, of="amount"):
            said.append(f"{text} {moved} times as much as the clips.")
    moving = sum(one >= STILL for one in found.motion)
    said.append(
        f"Limits: {moving} clips that move (of {len(found.motion)}), noises for each: {found.about.get('seeds', 1)};"
        f" the autoencoder alone keeps {ceiling:.2f}; sampled without guidance and without fresh noise on the way;"
        f" motion as optical flow ({found.about.get('flow', '')}). The one-step curve falls for an ideal model too and"
        " did not count."
    )
    return said


def _need(mean: Mean | None) -> Mean:
    assert mean is not None
    return mean


def _place(found: Diagnosis, start: str) -> str:
    sigma = found.units[start]["sigma"]
    return f"{start} (sigma {'infinite' if sigma is None else format(sigma, '.3g')})"
