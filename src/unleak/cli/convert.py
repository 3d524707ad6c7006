"""`unleak convert`: original checkpoints to pipeline folders, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from unleak.cli.options import BASIC, MEMORY, MODEL, OUTPUT, Group, argument, command, option
from unleak.cli.studies import Spoken
from unleak.cli.terminal import Terminal

FAMILIES = ("dynamicrafter", "videocrafter1", "svd", "pia", "animate-anything")


@dataclass(frozen=True)
class Conversion(Group):
    """What is converted, and what is known of it."""

    panel = BASIC

    family: Annotated[str, argument("FAMILY", "|".join(FAMILIES))]
    source: Annotated[Path, argument("CHECKPOINT", "Original file; or a folder, to go back.")]
    out: Annotated[Path, argument("OUT", "Folder to write; or the file, .ckpt or .safetensors.")]
    variant: Annotated[str | None, option("SIZE", "256, 512 or 1024, where a pruned file does not say.")] = None
    config: Annotated[
        Path | None, option("FILE", "The original YAML configuration of another variant.", panel=MODEL)
    ] = None
    tokenizer: Annotated[
        str | None,
        option(
            "FOLDER|ID",
            "CLIP's vocabulary; by default that of open_clip if installed, else from the Hub.",
            panel=MODEL,
        ),
    ] = None
    base: Annotated[Path | None, option("FOLDER", "A pipeline to take what the file lacks from.", panel=MODEL)] = None
    personalised: Annotated[
        bool,
        option("", "pia: the base is a fine-tuned one, whose input layer is kept.", "--personalised", panel=MODEL),
    ] = False
    norms: Annotated[
        str | None,
        option(
            "pia|diffusers",
            "pia: whose normalisation the weights were trained with; PIA's own by default.",
            panel=MODEL,
        ),
    ] = None
    ema: Annotated[bool, option("", "svd: the averaged weights, if there are any.", "--ema/--no-ema", panel=MODEL)] = (
        True
    )
    dtype: Annotated[
        str | None, option("NAME", "float32, float16 or bfloat16; by default as in the file.", panel=MEMORY)
    ] = None
    overwrite: Annotated[bool, option("", "Replace OUT if it exists.", "--overwrite", panel=OUTPUT)] = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family} is unknown: give one of {', '.join(FAMILIES)}")
        if self.out.exists() and not self.overwrite:
            raise ValueError(f"{self.out} exists; give --overwrite or another name")
        takes = set() if self.is_back else _TAKES[self.family]
        if unknown := [f"--{name}" for name in self.given if name not in takes]:
            way = f"{self.family} {'folder, which is turned back,' if self.is_back else 'checkpoint'}"
            raise ValueError(f"{', '.join(unknown)}: a {way} takes {_listed(takes)}")

    @property
    def is_back(self) -> bool:
        """Whether the source is a folder of ours, to be turned into a checkpoint."""
        # Animate-Anything is published as a folder, and PIA's file may be given by its own.
        ours = any((self.source / name).is_file() for name in ("model_index.json", "config.json"))
        return ours and self.family != "animate-anything"

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        names = ("variant", "config", "tokenizer", "base", "dtype", "norms")
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        found |= {} if self.ema else {"no-ema": True}
        return found | ({"personalised": True} if self.personalised else {})


@command
def convert(asked: Conversion, output: Spoken) -> None:
    """Turn an original checkpoint into a folder of safetensors that every command takes; a folder is turned back.

    Strict: every weight of the file is used or kept, and nothing in it is run.
    """
    terminal = output.terminal()
    from unleak.zoo.hub import quiet as libraries_quiet

    with libraries_quiet():  # they would show bars of their own
        if asked.is_back:
            about = _back(asked.family, asked.source, asked.out)
        else:
            about = _convert(asked.family, asked.source, asked.out, asked.given, terminal)
    terminal.line(f"{asked.out}: {about['tensors'] if asked.is_back else about['is']}{' tensors' * asked.is_back}")
    terminal.json({"out": str(asked.out), "family": asked.family, **about})


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
