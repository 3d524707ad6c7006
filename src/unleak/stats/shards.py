"""One run over many processes: who takes which videos, and what may be put together again."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field

from unleak.data.image import MediaError
from unleak.data.reading import Record, parse_values

__all__ = ["Part", "Shard", "check_failures", "differences", "joined"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/4`, as the command line has it. Raises ValueError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard {text}: give which of how many, such as 1/4, 2/4, 3/4 and 4/4")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `count`-th item: shards are as even as can be, and each item is in one."""
        return items[self.index - 1 :: self.count]

    def file(self, path: Path) -> Path:
        """Return `path` for a whole run, and `NAME.2-of-4.SUFFIX` for a shard."""
        return path if self.count == 1 else path.with_name(f"{path.stem}.{self.index}-of-{self.count}{path.suffix}")


class _Run(Record):
    """The settings of a run, and what it is of."""

    model_config = ConfigDict(extra="allow")

    videos: Annotated[int, Field(ge=0, lt=2**53)]
    model: str
    seed: int


class _Part(Record):
    run: _Run
    shard: str
    skipped: Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True)
class Part:
    """Which clips moments are of: a shard of the run that `run`, its settings and a hash of its videos' names, is."""

    run: dict[str, Any]
    shard: Shard
    skipped: int
    """Its videos that could not be used."""

    @classmethod
    def parse(cls, values: Any, where: str) -> "Part":
        """Read what `record` gave; ValueError, in a line that begins with `where`, for anything else."""
        parsed = parse_values(values, _Part, where)
        return cls(parsed.run.model_dump(), Shard.parse(parsed.shard), parsed.skipped)

    @property
    def record(self) -> dict[str, Any]:
        """Return what a report in JSON says."""
        return {"run": self.run, "shard": str(self.shard), "skipped": self.skipped}


def joined(parts: Iterable[Part], *, max_failures: float) -> list[Part]:
    """Join the parts of merged moments; the shards of a complete run become the run.

    ValueError if clips would count twice, or if shards are of different runs; MediaError if more than the share
    `max_failures` of the videos of a run that was cut into shards could not be used.
    """
    runs: dict[str, list[Part]] = {}
    for part in parts:
        runs.setdefault(json.dumps(part.run, sort_keys=True), []).append(part)
    whole, pieces = list[Part](), list[list[Part]]()
    for group in runs.values():
        shards = sorted({part.shard for part in group}, key=lambda shard: (shard.count, shard.index))
        if len(shards) < len(group) or len({shard.count for shard in shards}) > 1:
            held = ", ".join(sorted(str(part.shard) for part in group))
            raise ValueError(
                f"some clips would count twice: shards {held} of one run ({group[0].run['model']}, seed "
                f"{group[0].run['seed']}); give each of one cut once"
            )
        skipped = sum(part.skipped for part in group)
        if len(shards) == shards[0].count:
            whole.append(Part(group[0].run, Shard(), skipped))
        else:
            pieces.append(group)
        if shards[0].count > 1:
            check_failures(skipped, group[0].run["videos"], max_failures)
    if len(pieces) > 1:
        first, other = pieces[0][0], pieces[1][0]
        raise ValueError(
            f"shards {first.shard} and {other.shard} are of different runs ({differences(first.run, other.run)}); "
            "merge the shards of one run"
        )
    return whole + [part for group in pieces for part in group]


def check_failures(skipped: int, videos: int, max_failures: float, first: str = "") -> None:
    """Raise MediaError if more than the share `max_failures` of a run's `videos` could not be used."""
    if skipped > max_failures * videos:
        raise MediaError(
            f"{skipped} of {videos} videos cannot be used, more than the share of {max_failures:g} allowed "
            f"(--max-failures){'; the first: ' if first else ''}{first}"
        )


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say in what two runs differ, such as `fps 7.0 and 6.0, seed 0 and 1`."""
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return ", ".join(
        "other videos" if name == "names" else f"{name} {ours.get(name)} and {theirs.get(name)}" for name in names
    )
