"""The web page: controls on the left, what came of them on the right."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from unleak.data.image import IMAGE_SUFFIXES
from unleak.ui import view
from unleak.ui.studio import INITS, MAX_PROMPT, MAX_STARTS, MAX_STEPS, MOTIONS, OWN, Report, Studio, Wish
from unleak.zoo.call import Call
from unleak.zoo.classes import pipeline_class
from unleak.zoo.sample import Settings

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


def build(studio: Studio, folder: Path) -> gr.Blocks:
    """The page over `studio`; what it writes goes below `folder`, Gradio's own (`GRADIO_TEMP_DIR`)."""
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
                _guard(photo)
                model = gr.Dropdown(list(studio.models), value=first, label="Model", info=_about(studio, first))
                motion = gr.Radio([*MOTIONS, OWN], value="medium", label="Motion", elem_id="motion")
                with gr.Group(visible=False) as own:
                    start = gr.Textbox("sigma=20", label="Start", info="940, 0.94T, sigma=100 or logsnr=-5.3")
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
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                with gr.Tab("Plain and fixed"):
                    animate = gr.Button("Animate", variant="primary", size="lg")
                    videos = gr.HTML(view.EMPTY, elem_id="videos")
                    with gr.Row():
                        downloads = [
                            gr.DownloadButton(text, interactive=False, size="md", min_width=140, elem_id=name)
                            for name, text in _DOWNLOADS.items()
                        ]
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
            )

        def on_animate(
            photo: str | None,
            *chosen: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _told(folder):
                made = studio.animate(_given(photo), _wish(*chosen), report=_report(progress))
                files = made.save(_room(folder))
                shown = view.pair(made.plain, made.fixed, files[:2])
                return shown, *(gr.update(value=str(file), interactive=True) for file in files)

        def on_sweep(
            photo: str | None,
            text: str | None,
            init: Any,
            model: Any,
            prompt: Any,
            seed: Any,
            steps: Any,
            progress: Callable[..., Any] = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, ...]:
            with _told(folder):
                wish = _wish(model, MOTIONS[1], None, init, prompt, seed, steps)
                made = studio.sweep(_given(photo), wish, text or "", _room(folder) / "sweep", report=_report(progress))
                return view.framed(made.read_text(encoding="utf-8")), gr.update(value=str(made), interactive=True)

        # One visitor's video at a time, whichever tab it is asked from; the others queue.
        heavy: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        light: dict[str, Any] = {"concurrency_limit": 4, "api_visibility": "private", "show_progress": "hidden"}
        chosen = [model, motion, start, init, prompt, seed, steps]
        animate.click(on_animate, [photo, *chosen], [videos, *downloads], show_progress_on=videos, **heavy)
        sweep.click(
            on_sweep,
            [photo, starts, sweep_init, model, prompt, seed, steps],
            [swept, swept_page],
            show_progress_on=swept,
            **heavy,
        )
        motion.change(lambda one: gr.update(visible=one == OWN), motion, own, **light)
        model.change(show_model, model, [model, prompt, steps], **light)
        changes = [one.change for one in (model, motion, start, init)]
        gr.on(changes, show_level, chosen, level, trigger_mode="always_last", **light)
    return page


_DOWNLOADS = {"get-plain": "Download plain", "get-fixed": "Download fixed", "get-settings": "Download settings"}


def _wish(model: Any, motion: Any, start: Any, init: Any, prompt: Any, seed: Any, steps: Any) -> Wish:
    """What the fields hold, of whatever kind a request gives; an empty one may hold None."""
    if not isinstance(seed, int | float) or not isinstance(steps, int | float):
        raise ValueError("give a seed and a number of steps")
    return Wish(str(model), str(motion), str(start or ""), str(init), str(prompt or ""), int(seed), int(steps))


def _level(studio: Studio, wish: Wish) -> str:
    spec = studio.spec(wish.model)
    settings = wish.settings(spec)
    return '<p class="unleak-told">The fixed video starts at</p>' + view.level(settings.level(spec))


def _about(studio: Studio, name: str) -> str:
    return studio.spec(name).summary


def _reads(studio: Studio, name: str) -> bool:
    return Call.of(pipeline_class(studio.spec(name).pipeline)).name("prompt") is not None


def _steps(studio: Studio, name: str) -> int:
    return min(MAX_STEPS, Settings.for_model(studio.spec(name)).steps)


def _given(photo: str | None) -> Path:
    if photo is None:
        raise ValueError("give a photo first: drop one on the left")
    return Path(photo)


def _room(folder: Path) -> Path:
    """A new folder below `folder`, of a name that nobody guesses: whoever knows a file's address can get it."""
    room = folder / secrets.token_urlsafe(24)
    room.mkdir(mode=0o700)
    return room


def _report(progress: Callable[..., Any]) -> Report:
    return lambda share, text: progress(share, desc=text)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Whatever fails becomes a message to the visitor who asked, without the places of files; the server goes on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError):
            text = str(error)
        else:
            _LOG.exception("a request failed")
            text = f"The model failed ({type(error).__name__}): {str(error).strip().partition(chr(10))[0]}"
        text = " ".join(word.rpartition("/")[2] if str(folder) in word else word for word in text.split())
        raise gr.Error(escape(text), title="This did not work", duration=None, print_exception=False) from error


def _guard(photo: gr.Image) -> None:
    """Leave the reading of an uploaded file to `load_image`, in the worker, and fetch none from elsewhere.

    Gradio would open it itself, with any of the formats that Pillow knows, and download what a request gives the
    address of.
    """
    move = photo.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("Only an uploaded photo is read.", print_exception=False)
        return await move(path)

    def checked(payload: Any) -> str | None:
        if payload is None:
            return None
        suffix = Path(payload.path or "").suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            raise gr.Error(
                f"This is not a photo: give one of {', '.join(sorted(IMAGE_SUFFIXES))}.", print_exception=False
            )
        return str(payload.path)

    setattr(photo, "async_move_resource_to_block_cache", move_file)  # noqa: B010  # of this one alone
    setattr(photo, "preprocess", checked)  # noqa: B010
