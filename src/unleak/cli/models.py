"""`unleak models`: which models have a name here, what is known of each, and their files on this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.families.spec import ModelSpec

_Context: Any = typer.Context.__base__  # see sweep

models = typer.Typer(
    help="List the models that have a name here; show, fetch and prune them.",
    context_settings={"max_content_width": 120},
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `unleak models` lists, or a Hub id.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@models.callback(invoke_without_command=True)
def table(
    context: _Context,
    filter: Annotated[
        str | None,
        typer.Option("--filter", "-f", metavar="TEXT", help="Only those with this in name, licence or id."),
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Only those whose files are on this machine.")] = False,
    as_json: _Json = False,
) -> None:
    """List the models that have a name here. Every name goes wherever --model does."""
    if context.invoked_subcommand is not None:
        return
    from unleak.zoo.registry import MODELS

    terminal = Terminal(as_json=as_json)
    rows = [spec for spec in MODELS.values() if filter is None or _mentions(spec, filter)]
    rows = [spec for spec in rows if not here or _files(spec)]
    if not rows:
        terminal.note("none: leave out --filter and --here to see all")
    width = max((len(spec.name) for spec in rows), default=0)
    for spec in rows:
        place = "here" if _files(spec) else "-"
        terminal.line(f"{spec.name:<{width}}  {place:<5} {spec.summary}; licence: {spec.terms}")
    if rows:
        terminal.note("")
        terminal.note("`unleak models show NAME` says more; `unleak models fetch NAME` gets the files")
    terminal.json({"models": [_values(spec) for spec in rows]})


@models.command()
def show(name: _Name, as_json: _Json = False) -> None:
    """Show all that is known of one model: files, licence, settings, the recommended start and where it comes from."""
    from unleak.zoo.registry import find_model

    spec, terminal = find_model(name), Terminal(as_json=as_json)
    values = _values(spec)
    for word, text in _in_words(spec).items():
        if text:
            terminal.line(f"{word + ':':<14}{text}")
    from unleak.animate.knobs import knobs
    from unleak.animate.settings import motion_in_words

    motion = motion_in_words(spec)
    for word, text in motion.items():
        terminal.line(f"{f'motion {word}:':<14}{text}")
    own = knobs(spec)
    for number, knob in enumerate(own):
        terminal.line(f"{'moves by:' if not number else '':<14}{knob.text}")
    terminal.json({**values, "motion": motion, "knobs": [asdict(knob) for knob in own]})


@models.command()
def fetch(
    name: _Name,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16: some models have files of their own for float16.")
    ] = None,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Download, check and convert all that a model needs, so that it runs without network; again, to look for updates.

    A broken download continues where it stopped. The Hub's settings hold: HF_ENDPOINT, HF_HOME, HF_TOKEN,
    HF_HUB_OFFLINE; converted models are kept in UNLEAK_CACHE.
    """
    import torch

    from unleak.zoo.fetch import fetch as fetch_all
    from unleak.zoo.fetch import fetch_file
    from unleak.zoo.hub import pick_device, pick_dtype
    from unleak.zoo.registry import find_model

    spec, terminal = find_model(name), Terminal(quiet, as_json)
    if spec.caution:
        terminal.note(spec.caution)
    half = pick_dtype(dtype, pick_device(), spec.dtype) == torch.float16
    found = fetch_all(spec, variant=spec.variant if half else None, update=True, say=terminal.note)
    folders = {"pipeline": str(found.folder), **{part: str(folder) for part, folder in found.parts.items()}}
    if spec.init == "analytic" and spec.moments is not None and ":" in spec.moments:
        folders["moments"] = str(fetch_file(spec.moments))
    for part, place in folders.items():
        terminal.line(f"{part}: {place}")
    terminal.json({"name": spec.name, "here": folders})


@models.command()
def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is in use: it is converted or unpacked again when needed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Remove what nothing uses: conversions and downloads never finished, and conversions that were superseded.

    Downloaded checkpoints are in the Hub's cache, which `hf cache` manages.
    """
    from unleak.zoo.cache import leftovers
    from unleak.zoo.fetch import in_use

    terminal, freed, gone = Terminal(quiet, as_json), 0, []
    for leftover in leftovers(in_use(), everything=everything):
        if not dry_run and not leftover.remove():
            terminal.note(f"{leftover.path}: being made just now, left alone")
            continue
        freed += leftover.size
        gone.append({"path": str(leftover.path), "bytes": leftover.size, "why": leftover.why})
        terminal.line(f"{leftover.path}: {leftover.size / 1e9:.3g} GB, {leftover.why}")
    terminal.note(f"{freed / 1e9:.3g} GB {'would be' if dry_run else 'are'} free")
    terminal.json({"planned" if dry_run else "removed": gone, "bytes": freed})


def _mentions(spec: "ModelSpec", text: str) -> bool:
    words = (spec.name, spec.family, spec.source, spec.pipeline, spec.summary, spec.licence, spec.terms)
    return any(text.lower() in word.lower() for word in words)


def _files(spec: "ModelSpec") -> list[Path]:
    from unleak.zoo.fetch import here

    return here(spec)


def _values(spec: "ModelSpec") -> dict[str, Any]:
    return asdict(spec) | {"here": [str(folder) for folder in _files(spec)]}


def _in_words(spec: "ModelSpec") -> dict[str, str]:
    files = [
        f"{file.path} ({f'{file.size / 1e9:.3g} GB' if file.size else 'size not known'}, "
        f"{f'sha256 {file.sha256}' if file.sha256 else 'hash: that of the Hub at the revision'})"
        for file in spec.files
    ]
    moments = {f"{spec.moments}": "", **{place: f" at {size}" for size, place in spec.moments_at.items()}}
    return {
        "name": f"{spec.name}: {spec.summary}",
        "source": f"{spec.source} at {spec.revision or 'its newest revision'}",
        "files": ", ".join(files),
        "made of it": f"the {spec.part} of {spec.base}" if spec.part else "a pipeline" if spec.convert else "",
        "pipeline": f"{spec.pipeline}, {spec.dtype} on an accelerator",
        "licence": "; ".join(filter(None, (spec.licence, spec.terms))),
        "settings": ", ".join(f"{name} {value}" for name, value in spec.defaults.items()),
        "video": f"{spec.fps:g} frames a second" if spec.fps else "",
        "recommended": f"start {spec.start or 'medium of its family'}, init {spec.init}; from {spec.why}",
        "moments": ", ".join(place + size for place, size in moments.items()) if spec.moments else "none known",
        "not verified": ", ".join(spec.unverified),
        "here": ", ".join(map(str, _files(spec))) or "no",
    }
