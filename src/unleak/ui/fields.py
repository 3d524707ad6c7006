"""The fields of the page: one for every fix of the registry, and what a visitor chose in all of them."""

from typing import Any

import gradio as gr

from unleak.attach.strategies import fixes
from unleak.attach.strategies.registry import Choice, Fix, LevelText, Number
from unleak.ui.studio import Wish

__all__ = ["fix_fields", "number_of", "wish_of"]

_SLIDER = 100.0
"""The greatest end of a slider; numbers that may be larger are typed."""


def fix_fields(fix: Fix) -> list[Any]:
    """Make a box that switches a fix on, and below it a slider or a field for each of its arguments."""
    on = gr.Checkbox(False, label=fix.name, info=fix.help)
    if not fix.parameters:
        return [on]
    with gr.Group(visible=False) as below:
        arguments = [_argument(fix, parameter) for parameter in fix.parameters]
    on.change(
        lambda wanted: gr.update(visible=bool(wanted)), on, below, show_progress="hidden", api_visibility="private"
    )
    return [on, *arguments]


def _argument(fix: Fix, parameter: Any) -> Any:
    named: dict[str, Any] = {"label": f"{fix.name}: {parameter.metavar.lower()}", "info": parameter.help}
    if isinstance(parameter, Choice):
        choices = [(word, word) for word in parameter.choices]
        if not parameter.required:
            choices.insert(0, ("as usual", ""))
        return gr.Dropdown(choices, value=parameter.default or choices[0][1], **named)
    if not isinstance(parameter, Number):
        example = "Such as 0.9T or sigma=5" if isinstance(parameter, LevelText) else ""
        return gr.Textbox(str(parameter.default or ""), max_length=40, placeholder=example, **named)
    start = parameter.default if parameter.default is not None else (parameter.low + parameter.high) / 4
    if parameter.high < _SLIDER:
        step = 1 if parameter.whole else 0.01
        return gr.Slider(parameter.low, parameter.high, start, step=step, **named)
    return gr.Number(start if parameter.default is not None else 0.1, **named)


def wish_of(
    model: Any, motion: Any, start: Any, init: Any, prompt: Any, seed: Any, steps: Any, own: Any = "", *others: Any
) -> Wish:
    """Return what the fields hold, of whatever kind a request gives; an empty field may hold None."""
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


def _fix_texts(values: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the fixes that are switched on, as the command line takes them; `values` are those of `fix_fields`."""
    texts, rest = list[str](), list(values)
    for fix in fixes() if values else ():
        on, *given = rest[: 1 + len(fix.parameters)]
        del rest[: 1 + len(fix.parameters)]
        if on:
            words = [f"{one:g}" if isinstance(one, int | float) else str(one or "").strip() for one in given]
            while fix.separator == ":" and words and not words[-1]:  # last arguments that are left as they are
                words.pop()
            texts.append(f"{fix.name}={fix.separator.join(words)}" if words else fix.name)
    return tuple(texts)


def number_of(value: Any) -> int:
    """Return the whole number that a field holds; ValueError for an empty field."""
    if not isinstance(value, int | float):
        raise ValueError("give numbers of clips and noises")
    return int(value)
