"""The web page: controls on the left, what came of them on the right."""

import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from unleak.animate.knobs import knobs
from unleak.animate.settings import Settings, reads_prompts
from unleak.attach.strategies import fixes
from unleak.attach.strategies.registry import Fix, Number
from unleak.data.image import IMAGE_SUFFIXES
from unleak.data.video import VIDEO_SUFFIXES
from unleak.study.diagnose.leakage import RECORD, TABLE
from unleak.ui import view
from unleak.ui.studio import (
    INITS,
    MAX_CLIPS,
    MAX_PROMPT,
    MAX_SEEDS,
    MAX_STARTS,
    MAX_STEPS,
    MOTIONS,
    OWN,
    Report,
    Studio,
    Wish,
)
from unleak.ui.visitors import LeftError, Visitors, visitor_of

__all__ = ["HEAD", "STYLE", "build", "theme"]

HEAD, STYLE = (Path(__file__).with_name(name) for name in ("sync.html", "style.css"))
_KEPT = 3600  # seconds that a result can be downloaded
_LOG = logging.getLogger(__name__)


def theme() -> gr.themes.Base:
    """Fonts of the visitor's own machine: nothing is fetched from elsewhere."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    soft = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=sans, font_mono=["ui-monospace", "monospace"])
    plain = {f"block_{part}_background_fill": "none" for part in ("label", "title")}
    plain |= {f"block_{part}_text_color": "*body_text_color" for part in ("label", "title")}
    return soft.set(**plain, block_title_padding="0", button_primary_background_fill="*primary_600")


def build(studio: Studio, folder: Path, visitors: Visitors) -> gr.Blocks:
    """The page over `studio`; what it writes goes below `folder`, Gradio's own (`GRADIO_TEMP_DIR`), to `visitors`."""
    first = next(iter(studio.models))
    with gr.Blocks(title="unleak", analytics_enabled=False, delete_cache=(_KEPT // 4, _KEPT), fill_width=True) as page:
        gr.HTML(view.HEADER)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                photo = gr.Image(
                    label="Photo",
                    show_label=False,
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=230,
                )
                _guard(photo, IMAGE_SUFFIXES, "a photo")
                model = gr.Dropdown(list(studio.models), value=first, label="Model", info=_about(studio, first))
                motion = gr.Radio([*MOTIONS, OWN], value="medium", label="Motion", elem_id="motion")
                with gr.Group(visible=False) as own:
                    start = gr.Textbox(
                        "sigma=20", label="Start", info="940, 0.94T, sigma=100 or logsnr=-5.3", elem_id="start"
                    )
                    init = gr.Radio(list(INITS), value="standard", label="Initial noise")
                level = gr.HTML(_level(studio, Wish(first)), elem_id="level")
                prompt = gr.Textbox(
                    label="Prompt", max_length=MAX_PROMPT, visible=_reads(studio, first), placeholder="What happens"
                )
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
                    steps = gr.Number(
                        _steps(studio, first), label="Steps", precision=0, minimum=1, maximum=MAX_STEPS, min_width=90
                    )
                with gr.Accordion("Other fixes", open=False, elem_id="others"):
                    others = [part for one in fixes() for part in _fix_fields(one)]
                with gr.Accordion("The model's own", open=False, elem_id="own-knobs"):
                    own_knobs = gr.HTML(view.knobs(knobs(studio.spec(first))))
                    own_values = gr.Textbox(
                        label="Arguments", info="NAME=VALUE, with commas between", max_length=200, elem_id="own-values"
                    )
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                with gr.Tab("Plain and fixed"):
                    with gr.Row():
                        animate = gr.Button("Animate", variant="primary", size="lg")
                        tries = gr.Button("Try until it moves", size="lg", elem_id="try")
                    videos = gr.HTML(view.EMPTY, elem_id="videos")
                    with gr.Row():
                        downloads = [
                            gr.DownloadButton(text, interactive=False, size="md", min_width=140, elem_id=name)
                            for name, text in _DOWNLOADS.items()
                        ]
                with gr.Tab("Find a start"):
                    target = gr.Textbox(
                        label="Target motion",
                        info="Such as 4px/s or 0.5px/frame, pixels of the video; empty: 4 % of its width a second",
                        max_length=40,
                    )
                    find = gr.Button("Find a start", variant="primary", size="lg")
                    tuned = gr.HTML(elem_id="found")
                with gr.Tab("Sweep"):
                    starts = gr.Textbox(
                        "1.0T, sigma=100, sigma=20, sigma=5" if first == "nano" else "1.00T,0.94T,0.90T,0.86T",
                        label="Starts",
                        info=f"Up to {MAX_STARTS}, with commas between: the same noise from each",
                    )
                    sweep_init = gr.Radio(list(INITS), value="standard", label="Initial noise")
                    sweep = gr.Button("Sweep", variant="primary", size="lg")
                    swept = gr.HTML(elem_id="swept")
                    swept_page = gr.DownloadButton(
                        "Download the page", interactive=False, size="md", elem_id="get-page"
                    )
                with gr.Tab("Diagnosis"):
                    source = gr.Radio([_UPLOADED, _KNOWN], value=_UPLOADED, label="Clips that move", elem_id="source")
                    clips = gr.File(
                        label=f"Real clips, up to {MAX_CLIPS}",
                        file_count="multiple",
                        file_types=sorted(VIDEO_SUFFIXES),
                        height=140,
                        elem_id="clips",
                    )
                    _guard(clips, VIDEO_SUFFIXES, "a video")
                    with gr.Row():
                        levels = gr.Textbox(
                            "0.94T,0.86T,0.70T,0.50T",
                            label="Starts",
                            info=f"Up to {MAX_STARTS}, with commas between",
                            elem_id="levels",
                        )
                        count = gr.Number(
                            4,
                            label="Clips made of the photo",
                            precision=0,
                            minimum=1,
                            maximum=MAX_CLIPS,
                            visible=False,
                            min_width=90,
                        )
                        seeds = gr.Number(
                            1, label="Noises for each", precision=0, minimum=1, maximum=MAX_SEEDS, min_width=90
                        )
                    diagnose = gr.Button("Diagnose", variant="primary", size="lg")
                    verdict = gr.HTML(elem_id="verdict")
                    with gr.Row():
                        tables = [
                            gr.DownloadButton(text, interactive=False, size="md", min_width=140, elem_id=name)
                            for name, text in _TABLES.items()
                        ]

        def show_level(*chosen: Any) -> str:
            try:
                return _level(studio, _wish(*chosen))
            except (ValueError, TypeError) as error:
                return view.refused(str(error))

        def show_model(name: str) -> tuple[Any, ...]:
            return (
                gr.update(info=_about(studio, name)),
                gr.update(visible=_reads(studio, name)),
                _steps(studio, name),
                view.knobs(knobs(studio.spec(name))),
            )

        def theirs(request: gr.Request, file: str | None, kind: str = "photo") -> Path:
            """An upload of the visitor who asks, and of no other."""
            if file is None:
                raise ValueError(f"give a {kind} first")
            if not visitors.owns(_visitor(request), file):
                raise ValueError(f"this {kind} is not yours: give one of your own")
            return Path(file)

        def on_animate(
            request: gr.Request,
            photo: str | None,
            *chosen: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _errors_shown(folder):
                made = studio.animate(
                    theirs(request, photo), _wish(*chosen), report=_report(progress, visitors, request)
                )
                files = made.save(visitors.room(_visitor(request)))
                shown = view.pair(made.plain, made.fixed, files[:2], still=made.still)
                return shown, *(gr.update(value=str(file), interactive=True) for file in files)

        def on_try(
            request: gr.Request,
            photo: str | None,
            *chosen: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> str:
            with _errors_shown(folder):
                room = visitors.room(_visitor(request)) / "try"
                report = _report(progress, visitors, request)
                done, made = studio.attempt(theirs(request, photo), _wish(*chosen), room, report=report)
                return view.attempt(done, made.read_text(encoding="utf-8"))

        def on_find(
            request: gr.Request,
            photo: str | None,
            target: str | None,
            *chosen: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _errors_shown(folder):
                wish = replace(_wish(*chosen), motion=MOTIONS[1])
                report = _report(progress, visitors, request)
                done = studio.tune(theirs(request, photo), wish, target or "", report=report)
                shown = done.save(visitors.room(_visitor(request)) / "tune").read_text(encoding="utf-8")
                return view.found(done, shown), OWN, str(done.start), str(done.about["init"])

        def on_sweep(
            request: gr.Request,
            photo: str | None,
            text: str | None,
            init: Any,
            model: Any,
            *chosen: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _errors_shown(folder):
                wish = _wish(model, OWN, "1.0T", init, *chosen)
                room = visitors.room(_visitor(request)) / "sweep"
                made = studio.sweep(
                    theirs(request, photo), wish, text or "", room, report=_report(progress, visitors, request)
                )
                return view.framed(made.read_text(encoding="utf-8")), gr.update(value=str(made), interactive=True)

        def on_diagnose(
            request: gr.Request,
            photo: str | None,
            source: Any,
            files: list[str] | None,
            starts: str | None,
            count: Any,
            seeds: Any,
            model: Any,
            prompt: Any,
            seed: Any,
            steps: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _errors_shown(folder):
                known = source == _KNOWN
                uploads: list[str | None] = [*files] if files else [None]
                done, saved = studio.diagnose(
                    [] if known else [theirs(request, file, "clip") for file in uploads],
                    theirs(request, photo) if known else None,
                    _wish(model, MOTIONS[1], None, INITS[0], prompt, seed, steps),
                    starts=starts or "",
                    count=_number(count),
                    seeds=_number(seeds),
                    folder=visitors.room(_visitor(request)),
                    report=_report(progress, visitors, request),
                )
                tables = (gr.update(value=str(saved / name), interactive=True) for name in (RECORD, TABLE))
                return view.diagnosis(done, saved), *tables

        # One visitor's video at a time, whichever tab it is asked from; the others queue.
        heavy: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        light: dict[str, Any] = {"concurrency_limit": 4, "api_visibility": "private", "show_progress": "hidden"}
        chosen = [model, motion, start, init, prompt, seed, steps, own_values, *others]
        animate.click(on_animate, [photo, *chosen], [videos, *downloads], show_progress_on=videos, **heavy)
        tries.click(on_try, [photo, *chosen], videos, show_progress_on=videos, **heavy)
        find.click(on_find, [photo, target, *chosen], [tuned, motion, start, init], show_progress_on=tuned, **heavy)
        sweep.click(
            on_sweep,
            [photo, starts, sweep_init, model, prompt, seed, steps, own_values, *others],
            [swept, swept_page],
            show_progress_on=swept,
            **heavy,
        )
        diagnose.click(
            on_diagnose,
            [photo, source, clips, levels, count, seeds, model, prompt, seed, steps],
            [verdict, *tables],
            show_progress_on=verdict,
            **heavy,
        )
        source.change(
            lambda one: (gr.update(visible=one == _UPLOADED), gr.update(visible=one == _KNOWN)),
            source,
            [clips, count],
            **light,
        )
        motion.change(lambda one: gr.update(visible=one == OWN), motion, own, **light)
        model.change(show_model, model, [model, prompt, steps, own_knobs], **light)
        changes = [one.change for one in (model, motion, start, init)] + [one.change for one in (own_values, *others)]
        gr.on(changes, show_level, chosen, level, trigger_mode="always_last", **light)
    return page


_UPLOADED, _KNOWN = "clips that I upload", "clips of known motion, made of the photo"
_TABLES = {"get-json": "Download JSON", "get-csv": "Download CSV"}
_DOWNLOADS = {"get-plain": "Download plain", "get-fixed": "Download fixed", "get-settings": "Download settings"}


def _fix_fields(fix: Fix) -> list[Any]:
    """A box to switch a fix on, and a slider or a field for each of its arguments."""
    fields: list[Any] = [gr.Checkbox(False, label=fix.name, info=fix.help)]
    for parameter in fix.parameters:
        label = f"{fix.name}: {parameter.metavar.lower()}"
        if isinstance(parameter, Number) and parameter.high <= _SLIDER:
            start = parameter.default if parameter.default is not None else (parameter.low + parameter.high) / 4
            fields.append(gr.Slider(parameter.low, parameter.high, start, label=label, info=parameter.help))
        elif isinstance(parameter, Number):
            fields.append(gr.Number(parameter.default or 0.1, label=label, info=parameter.help))
        else:
            given = str(parameter.default or "")
            fields.append(gr.Textbox(given, label=label, info=parameter.help, max_length=40))
    return fields


_SLIDER = 10.0  # the greatest end of a slider; numbers that may be larger are typed


def _fix_texts(values: tuple[Any, ...]) -> tuple[str, ...]:
    """The fixes that are switched on, as the command line takes them; `values` of all the fields of `_fix_fields`."""
    texts, rest = list[str](), list(values)
    for fix in fixes() if values else ():
        on, *given = rest[: 1 + len(fix.parameters)]
        del rest[: 1 + len(fix.parameters)]
        if on:
            words = [f"{one:g}" if isinstance(one, int | float) else str(one or "").strip() for one in given]
            texts.append(f"{fix.name}={fix.separator.join(words)}" if words else fix.name)
    return tuple(texts)


def _wish(
    model: Any, motion: Any, start: Any, init: Any, prompt: Any, seed: Any, steps: Any, own: Any = "", *others: Any
) -> Wish:
    """What the fields hold, of whatever kind a request gives; an empty one may hold None."""
    if not isinstance(seed, int | float) or not isinstance(steps, int | float):
        raise ValueError("give a seed and a number of steps")
    return Wish(
        str(model),
        str(motion),
        str(start or ""),
        str(init),
        str(prompt or ""),
        int(seed),
        int(steps),
        tuple(one.strip() for one in str(own or "").split(",") if one.strip()),
        _fix_texts(others),
    )


def _level(studio: Studio, wish: Wish) -> str:
    spec = studio.spec(wish.model)
    settings = wish.settings(spec)
    told = view.level(settings.level(spec)) + view.beside(settings.strategies)
    return f'<p class="unleak-told">The fixed video starts at</p>{told}'


def _about(studio: Studio, name: str) -> str:
    summary = studio.spec(name).summary.rstrip(".")
    return f"{summary}. To add a model: `unleak ui --model NAME`; `unleak models` lists the names."


def _reads(studio: Studio, name: str) -> bool:
    return reads_prompts(studio.spec(name))


def _steps(studio: Studio, name: str) -> int:
    return min(MAX_STEPS, Settings.for_model(studio.spec(name)).steps)


def _number(value: Any) -> int:
    if not isinstance(value, int | float):
        raise ValueError("give numbers of clips and noises")
    return int(value)


def _visitor(request: gr.Request) -> str:
    visitor = visitor_of(dict(request.cookies))
    assert visitor is not None  # the gate gives everyone one
    return visitor


def _report(progress: Callable[..., Any], visitors: Visitors, request: gr.Request) -> Report:
    """Show progress to the visitor who asked, and stop what is made for one who has closed the page."""

    def report(share: float, text: str) -> None:
        visitors.check_here(request.session_hash)
        progress(share, desc=text)

    return report


@contextmanager
def _errors_shown(folder: Path) -> Iterator[None]:
    """Whatever fails becomes a message to the visitor who asked, without the places of files; the server goes on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError):
            text = str(error)
        elif isinstance(error, LeftError):
            text = "The page was closed."
        else:
            _LOG.exception("a request failed")
            text = f"The model failed ({type(error).__name__}): {str(error).strip().partition(chr(10))[0]}"
        text = " ".join(word.rpartition("/")[2] if str(folder) in word else word for word in text.split())
        raise gr.Error(escape(text), title="This did not work", duration=10, print_exception=False) from error


def _guard(component: gr.Image | gr.File, suffixes: Set[str], kind: str) -> None:
    """Leave the reading of uploaded files to the limited decoders.

    Gradio would open a photo itself, with any of the formats that Pillow knows, and download what a request gives the
    address of.
    """
    move = component.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error(f"Only {kind} that was uploaded is read.", print_exception=False)
        return await move(path)

    def checked(payload: Any) -> Any:
        if payload is None:
            return None
        if hasattr(payload, "root"):
            return [checked(one) for one in payload.root]
        if Path(payload.path or "").suffix.lower() not in suffixes:
            raise gr.Error(f"This is not {kind}: give one of {', '.join(sorted(suffixes))}.", print_exception=False)
        return str(payload.path)

    setattr(component, "async_move_resource_to_block_cache", move_file)  # noqa: B010  # of this one alone
    setattr(component, "preprocess", checked)  # noqa: B010
