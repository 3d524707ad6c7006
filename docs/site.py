"""Fills the reference pages of the documentation site from the code itself, when MkDocs builds the site.

A page that holds `<!-- fill: NAME -->` gets the text of the function NAME below. Nothing of it is written to disk,
so it cannot fall behind the code.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROOMS = {
    "attach": "Fix a pipeline",
    "core": "Noise, starts and moments",
    "zoo": "Load a model",
    "animate": "Animate a photo",
    "study": "Study a model",
    "measure": "Measure videos",
    "families": "Model families",
    "train": "Fine-tune",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each `<!-- fill: NAME -->` of a page with the text that NAME below returns."""
    return re.sub(r"<!-- fill: (\w+) -->", lambda match: FILL[match[1]](), markdown)


def api() -> str:
    """Return one mkdocstrings entry for every public name of the package, grouped by room."""
    import unleak

    rooms: dict[str, list[str]] = {}
    for name in unleak._HOME:
        home = getattr(unleak, name).__module__
        rooms.setdefault(home.split(".")[1], []).append(f"::: {home}.{name}")
    titled = sorted(rooms, key=[*ROOMS, *rooms].index)
    return "\n\n".join(f"## {ROOMS.get(room, room.capitalize())}\n\n" + "\n\n".join(rooms[room]) for room in titled)


def commands() -> str:
    """Return the help of every command and its options, from the command line itself."""
    import typer.main

    from unleak.cli.app import app

    parts = []
    for name, command in _leaves(typer.main.get_command(app), "unleak"):
        context = command.make_context(name, [], resilient_parsing=True)
        arguments = [piece for one in command.params for piece in one.get_usage_pieces(context)]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        usage = " ".join([name, *arguments, "[OPTIONS]"])
        parts += [f"## {name}", "", _markdown(command.help or ""), "", f"    {usage}", ""]
        records = [one.get_help_record(context) for one in options]
        rows = [f"| `{spelled.replace('|', '/')}` | {_markdown(text)} |" for spelled, text in records]
        parts += ["| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def models() -> str:
    """Return a table of every model that has a name."""
    from unleak.zoo.registry import MODELS

    rows = [f"| `{spec.name}` | {spec.summary} | {spec.licence} |" for spec in MODELS.values()]
    return "\n".join(["| name | what it is | licence |", "|---|---|---|", *rows])


def recipes() -> str:
    """Return every recipe that ships, with the comment that heads it and its text."""
    parts = []
    for path in sorted((ROOT / "src/unleak/train/recipes").glob("*.yaml")) or sorted((ROOT / "recipes").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        head = re.match(r"(?:#.*\n)+", text)
        said = re.sub(r"^# ?", "", head[0], flags=re.MULTILINE) if head else ""
        body = "\n".join(f"    {line}" for line in text[head.end() if head else 0 :].strip().splitlines())
        parts += [f"## {path.stem}", "", said, f'??? note "The recipe"\n\n    ```yaml\n{body}\n    ```', ""]
    return "\n".join(parts)


def costs() -> str:
    """Return the table that `python -m benchmarks.speed` wrote."""
    return (ROOT / "benchmarks/results/speed/table.md").read_text(encoding="utf-8").replace("| |", "| what |", 1)


def extensions() -> str:
    """Return the files of examples/extend, each as code under its first sentence."""
    parts = []
    for name in ("fix", "metric", "family"):
        text = (ROOT / f"examples/extend/{name}.py").read_text(encoding="utf-8")
        parts += [f"## A {name}", "", f"`examples/extend/{name}.py`:", "", f"```python\n{text.strip()}\n```", ""]
    return "\n".join(parts)


def memory() -> str:
    """Return the table of what each way to load a model takes, and which cards it fits with a tenth to spare."""
    rows = json.loads((ROOT / "benchmarks/results/memory.json").read_text(encoding="utf-8"))
    cards = (8, 12, 16, 24)
    head = ["| model | video | options | GB |", *(f" {card} GB |" for card in cards)]
    lines = ["".join(head), "|---|---|---|---|" + "---|" * len(cards)]
    for row in rows:
        fits = ["yes" if row["peak_gb"] <= 0.9 * card else "no" for card in cards]
        video = _video(row)
        options = f"`{row['options']}`" if row["options"] else "none"
        lines.append(f"| `{row['model']}` | {video} | {options} | {row['peak_gb']:.1f} | {' | '.join(fits)} |")
    return "\n".join(lines)


def _video(row: dict[str, Any]) -> str:
    return f"{row['frames']} frames of {row['size']}, {row['dtype']}"


def measured() -> str:
    """Return the table of the estimates beside the peaks of whole runs on a CPU."""
    rows = json.loads((ROOT / "benchmarks/results/memory_measured.json").read_text(encoding="utf-8"))
    lines = ["| model | video | weights, GB | estimated, GB | measured, GB |", "|---|---|---|---|---|"]
    for row in rows:
        video = _video(row)
        figures = " | ".join(f"{row[key]:.1f}" for key in ("weights_gb", "estimated_gb", "measured_gb"))
        lines.append(f"| `{row['model']}` | {video} | {figures} |")
    return "\n".join(lines)


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
        return
    for word, one in below.items():
        yield from _leaves(one, f"{name} {word}")


def _markdown(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("<", "&lt;")


FILL = {
    function.__name__: function for function in (api, commands, costs, extensions, measured, memory, models, recipes)
}
