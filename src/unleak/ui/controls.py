"""The left column of the page: the photo, the model, how it is to move."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from unleak.animate.knobs import knobs
from unleak.animate.settings import Settings, reads_prompts
from unleak.attach.strategies import fixes
from unleak.data.examples import example_photos
from unleak.data.image import IMAGE_SUFFIXES, fit_image, load_image
from unleak.ui import view
from unleak.ui.fields import fix_fields, wish_of
from unleak.ui.site import LIGHT, Site, guard
from unleak.ui.studio import INITS, MAX_PROMPT, MAX_STEPS, MOTIONS, OWN, Studio, Wish

__all__ = ["Controls", "controls"]

_THUMBNAIL = 96  # pixels a side


@dataclass(frozen=True)
class Controls:
    """The components that say what is wanted."""

    photo: gr.Image
    model: gr.Dropdown
    motion: gr.Radio
    start: gr.Textbox
    init: gr.Radio
    prompt: gr.Textbox
    seed: gr.Number
    steps: gr.Number
    own: gr.Textbox
    others: list[Any]

    @property
    def chosen(self) -> list[Any]:
        """Return all but the photo, in the order of `wish_of`."""
        head = [self.model, self.motion, self.start, self.init, self.prompt, self.seed, self.steps, self.own]
        return [*head, *self.others]


def controls(site: Site) -> Controls:
    """Build the column."""
    studio = site.studio
    first = next(iter(studio.models))
    photo = gr.Image(
        label="Photo",
        show_label=False,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=230,
        elem_id="photo",
    )
    guard(photo, IMAGE_SUFFIXES, "a photo")
    _examples(site, photo)
    model = gr.Dropdown(list(studio.models), value=first, label="Model", info=_about(studio, first))
    motion = gr.Radio([*MOTIONS, OWN], value="medium", label="Motion", elem_id="motion")
    with gr.Group(visible=False) as own:
        start = gr.Textbox("sigma=20", label="Start", info="940, 0.94T, sigma=100 or logsnr=-5.3", elem_id="start")
        init = gr.Radio(list(INITS), value="standard", label="Initial noise")
    level = gr.HTML(_level(studio, Wish(first)), elem_id="level")
    reads = reads_prompts(studio.spec(first))
    prompt = gr.Textbox(label="Prompt", max_length=MAX_PROMPT, visible=reads, placeholder="What happens")
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
        usual = _steps(studio, first)
        steps = gr.Number(usual, label="Steps", precision=0, minimum=1, maximum=MAX_STEPS, min_width=90)
    with gr.Accordion("Other fixes", open=False, elem_id="others"):
        others = [part for one in fixes() for part in fix_fields(one)]
    with gr.Accordion("The model's own", open=False, elem_id="own-knobs"):
        own_knobs = gr.HTML(view.knobs(knobs(studio.spec(first))))
        values = gr.Textbox(
            label="Arguments", info="NAME=VALUE, with commas between", max_length=200, elem_id="own-values"
        )
    motion.change(lambda one: gr.update(visible=one == OWN), motion, own, **LIGHT)
    model.change(lambda name: _shown(studio, name), model, [model, prompt, steps, own_knobs], **LIGHT)
    found = Controls(photo, model, motion, start, init, prompt, seed, steps, values, others)
    changes = [one.change for one in (model, motion, start, init, steps, values, *others)]
    gr.on(changes, lambda *chosen: _told(studio, chosen), found.chosen, level, trigger_mode="always_last", **LIGHT)
    return found


def _examples(site: Site, photo: gr.Image) -> None:
    """Add the photos that come with unleak, to be clicked."""
    try:
        files = example_photos()
    except ValueError:  # not in this installation
        return
    pictures = [f"#example-{k} {{ background-image: url({_thumbnail(file)}); }}" for k, file in enumerate(files)]
    gr.HTML(f"<p>Or try one of these:</p><style>{''.join(pictures)}</style>", elem_id="examples-head")
    with gr.Row(elem_id="examples"):
        for k, file in enumerate(files):
            button = gr.Button(file.stem, elem_id=f"example-{k}", size="sm", min_width=40)
            button.click(_copier(site, file), None, photo, **LIGHT)


def _copier(site: Site, file: Path) -> Any:
    def give(request: gr.Request) -> str:
        return site.copied(request, file)

    return give


def _thumbnail(file: Path) -> str:
    """Return a small square of a photo, as an address that is the picture itself."""
    written = io.BytesIO()
    fit_image(load_image(file), _THUMBNAIL, _THUMBNAIL).save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def _shown(studio: Studio, name: str) -> tuple[Any, ...]:
    spec = studio.spec(name)
    return (
        gr.update(info=_about(studio, name)),
        gr.update(visible=reads_prompts(spec)),
        _steps(studio, name),
        view.knobs(knobs(spec)),
    )


def _told(studio: Studio, chosen: tuple[Any, ...]) -> str:
    try:
        return _level(studio, wish_of(*chosen))
    except (ValueError, TypeError) as error:
        return view.refused(str(error))


def _level(studio: Studio, wish: Wish) -> str:
    spec = studio.spec(wish.model)
    settings = wish.settings(spec)
    told = view.level(settings.level(spec)) + view.beside(wish.fixes)
    return f'<p class="unleak-told">The fixed video starts at</p>{told}'


def _about(studio: Studio, name: str) -> str:
    summary = studio.spec(name).summary.rstrip(".")
    return f"{summary}. To add a model: `unleak ui --model NAME`; `unleak models` lists the names."


def _steps(studio: Studio, name: str) -> int:
    return min(MAX_STEPS, Settings.for_model(studio.spec(name)).steps)
