"""Moments that know which clips they are of, so that none is counted twice."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from unleak.core.moments import LatentMoments
from unleak.data.reading import Record, read_json
from unleak.stats.shards import Part, joined

__all__ = ["Gathered", "merged"]


class _Report(Record):
    parts: list[Any]


@dataclass(frozen=True)
class Gathered:
    """Moments and the parts of runs that they are of, as far as that is known."""

    moments: LatentMoments
    parts: tuple[Part, ...] = ()

    @classmethod
    def load(cls, file: Path) -> "Gathered":
        """Read FILE.safetensors and the parts that FILE.json beside it lists, without which a shard is refused."""
        moments, report = LatentMoments.load(file), file.with_suffix(".json")
        try:
            parts = tuple(Part.parse(values, str(report)) for values in read_json(report, _Report).parts)
        except (FileNotFoundError, ValueError) as error:
            if re.search(r"\.\d+-of-\d+$", file.stem):
                raise ValueError(
                    f"{file} is a shard, but {report} does not say of which run; keep the two files of a shard together"
                ) from error
            parts = ()
        return cls(moments, parts)


def merged(all_of_them: Sequence[Gathered], *, max_failures: float) -> Gathered:
    """Merge moments; another order gives the same up to rounding. Raises what `joined` does."""
    parts = joined([part for one in all_of_them for part in one.parts], max_failures=max_failures)
    return Gathered(reduce(LatentMoments.merge, [one.moments for one in all_of_them]), tuple(parts))
