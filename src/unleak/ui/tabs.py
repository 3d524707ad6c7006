"""The right column of the page: a tab for each thing that can be asked, with what came of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from unleak.data.files import VIDEO_SUFFIXES
from unleak.study.diagnose.leakage import RECORD, TABLE
from unleak.ui import view
from unleak.ui.controls import Controls
from unleak.ui.fields import number_of, wish_of
from unleak.ui.site import HEAVY, LIGHT, Site, guard
from unleak.ui.studio import INITS, MAX_CLIPS, MAX_SEEDS, MAX_STARTS, MOTIONS, OWN

__all__ = ["diagnosis_tab", "find_tab", "pair_tab", "sweep_tab"]

_UPLOADED, _KNOWN = "clips that I upload", "clips of known motion, made of the photo"
_TABLES = {"get-json": "Download JSON", "get-csv": "Download CSV"}
_DOWNLOADS = {"get-plain": "Download plain", "get-fixed": "Download fixed", "get-settings": "Download settings"}
_PROGRESS = gr.Progress()

Progress = Callable[..., Any]


def pair_tab(site: Site, controls: Controls) -> None:
    """Add the plain and the fixed video side by side, and the search for a video that moves."""
    with gr.Row():
        animate = gr.Button("Animate", variant="primary", size="lg")
        tries = gr.Button("Try until it moves", size="lg", elem_id="try")
    videos = gr.HTML(view.EMPTY, elem_id="videos")
    again = gr.Button("It stood still: try until it moves", variant="primary", visible=False, elem_id="again")
    downloads = _downloads(_DOWNLOADS)

    def on_animate(request: gr.Request, photo: str | None, *chosen: Any, progress: Progress = _PROGRESS) -> Any:
        with site.errors_shown():
            report = site.report(progress, request)
            made = site.studio.animate(site.theirs(request, photo), wish_of(*chosen), report=report)
            files = made.save(site.room(request))
            shown = view.pair(made.plain, made.fixed, files[:2], still=made.still, cautions=made.cautions)
            return shown, gr.update(visible=made.still), *(_ready(file) for file in files)

    def on_try(request: gr.Request, photo: str | None, *chosen: Any, progress: Progress = _PROGRESS) -> Any:
        with site.errors_shown():
            room, report = site.room(request) / "try", site.report(progress, request)
            done, made, cautions = site.studio.attempt(
                site.theirs(request, photo), wish_of(*chosen), room, report=report
            )
            shown = view.notes(cautions) + view.attempt(done, made.read_text(encoding="utf-8"))
            return shown, gr.update(visible=False)

    given = [controls.photo, *controls.chosen]
    animate.click(on_animate, given, [videos, again, *downloads], show_progress_on=videos, **HEAVY)
    gr.on([tries.click, again.click], on_try, given, [videos, again], show_progress_on=videos, **HEAVY)


def find_tab(site: Site, controls: Controls) -> None:
    """Add the search for a start by previews."""
    target = gr.Textbox(
        label="Target motion",
        info="Such as 4px/s or 0.5px/frame, pixels of the video; empty: 4 % of its width a second",
        max_length=40,
    )
    find = gr.Button("Find a start", variant="primary", size="lg")
    tuned = gr.HTML(elem_id="found")

    def on_find(
        request: gr.Request, photo: str | None, target: str | None, *chosen: Any, progress: Progress = _PROGRESS
    ) -> Any:
        with site.errors_shown():
            wish, report = replace(wish_of(*chosen), motion=MOTIONS[1]), site.report(progress, request)
            done, cautions = site.studio.tune(site.theirs(request, photo), wish, target or "", report=report)
            shown = done.save(site.room(request) / "tune").read_text(encoding="utf-8")
            return view.notes(cautions) + view.found(done, shown), OWN, str(done.start), str(done.about["init"])

    set_too = [controls.motion, controls.start, controls.init]
    given = [controls.photo, target, *controls.chosen]
    find.click(on_find, given, [tuned, *set_too], show_progress_on=tuned, **HEAVY)


def sweep_tab(site: Site, controls: Controls) -> None:
    """Add the videos of several starts on one page."""
    of_nano = next(iter(site.studio.models)) == "nano"
    starts = gr.Textbox(
        "1.0T, sigma=100, sigma=20, sigma=5" if of_nano else "1.00T,0.94T,0.90T,0.86T",
        label="Starts",
        info=f"Up to {MAX_STARTS}, with commas between: the same noise from each",
    )
    init = gr.Radio(list(INITS), value="standard", label="Initial noise")
    sweep = gr.Button("Sweep", variant="primary", size="lg")
    swept = gr.HTML(elem_id="swept")
    page = gr.DownloadButton("Download the page", interactive=False, size="md", elem_id="get-page")

    def on_sweep(
        request: gr.Request,
        photo: str | None,
        text: str | None,
        init: Any,
        model: Any,
        *chosen: Any,
        progress: Progress = _PROGRESS,
    ) -> Any:
        with site.errors_shown():
            wish, room = wish_of(model, OWN, "1.0T", init, *chosen), site.room(request) / "sweep"
            report = site.report(progress, request)
            made, cautions = site.studio.sweep(site.theirs(request, photo), wish, text or "", room, report=report)
            return view.notes(cautions) + view.framed(made.read_text(encoding="utf-8")), _ready(made)

    own = [controls.prompt, controls.seed, controls.steps, controls.own, *controls.others]
    given = [controls.photo, starts, init, controls.model, *own]
    sweep.click(on_sweep, given, [swept, page], show_progress_on=swept, **HEAVY)


def diagnosis_tab(site: Site, controls: Controls) -> None:
    """Add the question whether the model leaks, or something else makes it stand still."""
    source = gr.Radio([_UPLOADED, _KNOWN], value=_UPLOADED, label="Clips that move", elem_id="source")
    label, kinds = f"Real clips, up to {MAX_CLIPS}", sorted(VIDEO_SUFFIXES)
    clips = gr.File(label=label, file_count="multiple", file_types=kinds, height=180, elem_id="clips")
    guard(clips, VIDEO_SUFFIXES, "a video")
    with gr.Row():
        about = f"Up to {MAX_STARTS}, with commas between"
        levels = gr.Textbox("0.94T,0.86T,0.70T,0.50T", label="Starts", info=about, min_width=260, elem_id="levels")
        whole: dict[str, Any] = {"precision": 0, "minimum": 1, "min_width": 90}
        count = gr.Number(4, label="Clips made of the photo", maximum=MAX_CLIPS, visible=False, **whole)
        seeds = gr.Number(1, label="Noises for each", maximum=MAX_SEEDS, **whole)
    diagnose = gr.Button("Diagnose", variant="primary", size="lg")
    verdict = gr.HTML(elem_id="verdict")
    tables = _downloads(_TABLES)

    def on_diagnose(
        request: gr.Request,
        photo: str | None,
        source: Any,
        files: list[str] | None,
        starts: str | None,
        count: Any,
        seeds: Any,
        *chosen: Any,
        progress: Progress = _PROGRESS,
    ) -> Any:
        model, *rest = chosen
        with site.errors_shown():
            known = source == _KNOWN
            uploads: list[str | None] = [*files] if files else [None]
            done, saved = site.studio.diagnose(
                [] if known else [site.theirs(request, file, "clip") for file in uploads],
                site.theirs(request, photo) if known else None,
                wish_of(model, MOTIONS[1], None, INITS[0], *rest),
                starts=starts or "",
                count=number_of(count),
                seeds=number_of(seeds),
                folder=site.room(request),
                report=site.report(progress, request),
            )
            return view.diagnosis(done, saved), *(_ready(saved / name) for name in (RECORD, TABLE))

    own = [controls.model, controls.prompt, controls.seed, controls.steps]
    given = [controls.photo, source, clips, levels, count, seeds, *own]
    diagnose.click(on_diagnose, given, [verdict, *tables], show_progress_on=verdict, **HEAVY)
    shown = lambda one: (gr.update(visible=one == _UPLOADED), gr.update(visible=one == _KNOWN))  # noqa: E731
    source.change(shown, source, [clips, count], **LIGHT)


def _downloads(names: dict[str, str]) -> list[Any]:
    with gr.Row():
        return [
            gr.DownloadButton(text, interactive=False, size="md", min_width=140, elem_id=name)
            for name, text in names.items()
        ]


def _ready(file: Any) -> Any:
    """Return a download button for a file."""
    return gr.update(value=str(file), interactive=True)
