"""`unleak convert`: original checkpoints to pipeline folders, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from unleak.cli.options import JsonOption, QuietOption
from unleak.cli.terminal import Terminal

FAMILIES = ("dynamicrafter", "videocrafter1", "svd", "pia", "animate-anything")


def convert(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="|".join(FAMILIES))],
    source: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Original file; or a folder, to go back.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; or the file, .ckpt or .safetensors.")],
    variant: Annotated[str | None, typer.Option(help="256, 512 or 1024, where a pruned file does not say.")] = None,
    config: Annotated[Path | None, typer.Option(help="The original YAML configuration of another variant.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|ID", help="CLIP's vocabulary; by default that of open_clip if installed, else from the Hub."
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A pipeline to take what the file lacks from.")
    ] = None,
    personalised: Annotated[
        bool, typer.Option("--personalised", help="pia: the base is a fine-tuned one, whose input layer is kept.")
    ] = False,
    norms: Annotated[
        str | None,
        typer.Option(
            metavar="pia|diffusers", help="pia: whose normalisation the weights were trained with; PIA's own."
        ),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="svd: the averaged weights, if there are any.")] = True,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; by default as in the file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn an original checkpoint into a folder of safetensors that every command takes; a folder is turned back.

    Strict: every weight of the file is used or kept, and nothing in it is run.
    """
    terminal = Terminal(quiet, as_json)
    if family not in FAMILIES:
        raise ValueError(f"family {family} is unknown: give one of {', '.join(FAMILIES)}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give --overwrite or another name")
    given: dict[str, Any] = {
        "variant": variant,
        "config": config,
        "tokenizer": tokenizer,
        "base": base,
        "dtype": dtype,
        "norms": norms,
    }
    given = {name: value for name, value in given.items() if value is not None} | ({} if ema else {"no-ema": True})
    given |= {"personalised": True} if personalised else {}
    # Animate-Anything is published as a folder, and PIA's file may be given by its own.
    ours = any((source / name).is_file() for name in ("model_index.json", "config.json"))
    back = ours and family != "animate-anything"
    takes = set() if back else _TAKES[family]
    if unknown := [f"--{name}" for name in given if name not in takes]:
        way = f"{family} {'folder, which is turned back,' if back else 'checkpoint'}"
        raise ValueError(f"{', '.join(unknown)}: a {way} takes {_listed(takes)}")
    from unleak.zoo.hub import quiet as libraries_quiet

    with libraries_quiet():  # they would show bars of their own
        about = _back(family, source, out) if back else _convert(family, source, out, given, terminal)
    terminal.line(f"{out}: {about['tensors' if back else 'is']}{' tensors' if back else ''}")
    terminal.json({"out": str(out), "family": family, **about})


_LVDM = {"variant", "config", "tokenizer", "base", "dtype"}
_TAKES: Mapping[str, set[str]] = {
    "dynamicrafter": _LVDM,
    "videocrafter1": _LVDM,
    "svd": {"base", "no-ema"},
    "pia": {"base", "personalised", "norms"},
    "animate-anything": set(),
}


def _listed(options: set[str]) -> str:
    return ", ".join(f"--{option}" for option in sorted(options)) or "no such option"


def _convert(family: str, source: Path, out: Path, given: Mapping[str, Any], terminal: Terminal) -> dict[str, Any]:
    base = given.get("base")
    if family == "pia":
        from unleak.families.pia.convert import convert as adapter
        from unleak.families.pia.convert import convert_pipeline

        if base is None and (of_pipeline := [name for name in ("personalised", "norms") if name in given]):
            raise ValueError(f"--{of_pipeline[0]}: it is about a whole pipeline; give --base FOLDER too")
        if base is None:
            adapter(source, out)
            return {"is": "a motion adapter; --base FOLDER, of Stable Diffusion 1.5, makes a pipeline of it"}
        convert_pipeline(source, base, out, personalised="personalised" in given, norms=given.get("norms"))
        return {"is": "a PIA pipeline"}
    if family == "animate-anything":
        from unleak.families.animate_anything.convert import convert as animate_anything

        animate_anything(source, out)
        return {"is": "an Animate-Anything pipeline"}
    if family == "svd":
        from unleak.families.svd.convert import convert as svd

        parameters = svd(source, out, base=base, ema="no-ema" not in given)
        alone = "the UNet of Stable Video Diffusion; --base FOLDER, of the whole model, makes a pipeline of it"
        return {"is": alone if base is None else "a Stable Video Diffusion pipeline", "parameters": parameters}
    return _lvdm(family, source, out, given, terminal)


def _lvdm(family: str, source: Path, out: Path, given: Mapping[str, Any], terminal: Terminal) -> dict[str, Any]:
    from unleak.families.lvdm.folder import convert
    from unleak.zoo.words import clip_words

    spec = _family(family)
    variant, base = given.get("variant"), given.get("base")
    if variant is not None and variant not in spec.variants:
        raise ValueError(f"--variant {variant}: {family} has {', '.join(spec.variants)}")
    if "config" in given and variant is not None:
        raise ValueError("--variant and --config: give one of them")
    done = convert(
        spec,
        source,
        out,
        variant=variant,
        config=_yaml(given["config"]) if "config" in given else None,
        tokenizer=lambda: clip_words(given.get("tokenizer")),
        base=base,
        dtype=_dtype(given.get("dtype")),
    )
    if done.dropped:
        terminal.note(f"left behind, of training only: {', '.join(done.dropped)}")
    if done.leftovers:
        terminal.note(f"{len(done.leftovers)} tensors that nothing uses are kept in {out / 'original.safetensors'}")
    terminal.note(f"tokenizer: {done.tokenizer}")
    about = {"variant": done.variant, "parameters": done.parameters, "leftovers": list(done.leftovers)}
    about["tokenizer"] = done.tokenizer
    return {"is": f"a {family} pipeline ({done.variant}), {done.parameters / 1e6:,.1f} M parameters", **about}


def _back(family: str, source: Path, out: Path) -> dict[str, Any]:
    if family == "svd":
        from unleak.families.svd.convert import restore as svd

        return {"tensors": svd(source, out)}
    if family == "pia":
        from diffusers import MotionAdapter

        from unleak.families.pia.convert import original_of, write_checkpoint

        part = source / "motion_adapter" if (source / "motion_adapter").is_dir() else source
        original = original_of(MotionAdapter.from_pretrained(part, local_files_only=True))
        write_checkpoint(original, out)
        return {"tensors": len(original)}
    from unleak.families.lvdm.folder import restore

    _family(family)
    return {"tensors": restore(source, out)}


def _family(name: str) -> Any:
    if name == "dynamicrafter":
        from unleak.families.dynamicrafter.convert import FAMILY
    else:
        from unleak.families.videocrafter1.convert import FAMILY
    return FAMILY


def _yaml(path: Path) -> Any:
    import yaml

    from unleak.data.reading import read_text

    try:
        content = yaml.safe_load(read_text(path, most=2**20))
    except RecursionError:
        raise ValueError(f"--config {path}: no YAML file that is read: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last ones are of tags
        raise ValueError(f"--config {path}: no YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {path}: no configuration; the original ones have model: params:")
    return content


def _dtype(name: str | None) -> Any:
    import torch

    if name is None:
        return None
    if name not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"--dtype {name}: give float32, float16 or bfloat16")
    return getattr(torch, name)
