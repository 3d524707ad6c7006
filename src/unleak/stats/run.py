"""A run of `unleak stats`: checked before anything is encoded, shared by processes, merged, written with its report."""

import glob
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unleak import __version__
from unleak.data.atomic import check_writable, written_whole
from unleak.data.decode_worker import Decoding
from unleak.data.image import MediaError
from unleak.stats.estimate import Estimate, estimate
from unleak.stats.gathered import Gathered, merged
from unleak.stats.shards import Shard
from unleak.zoo.hub import load
from unleak.zoo.registry import ModelSpec

__all__ = ["ENOUGH", "Run", "few", "files_to_merge"]

ENOUGH = 100
"""Clips: with N of them the variance comes out 1/N too low, here one per cent."""


@dataclass(frozen=True)
class Run:
    """What is to be gathered, and where it goes."""

    out: Path
    """As asked for: the file of a whole run."""
    spec: ModelSpec
    videos: tuple[Path, ...]
    source: str
    settings: dict[str, Any]
    """Of `estimate`."""
    decoding: Decoding
    max_failures: float
    shard: Shard
    """Of a single process; several processes cut the run themselves."""
    merge: tuple[Path, ...]
    before: Gathered | None
    """The sum of `merge`."""

    @classmethod
    def checked(cls, *, processes: int, merge: Sequence[Path], overwrite: bool, **values: Any) -> "Run":
        """Check what can be checked before anything is encoded. Raises ValueError in one line."""
        before = merged([Gathered.load(path) for path in merge], max_failures=values["max_failures"]) if merge else None
        run = cls(merge=tuple(merge), before=before, **values)
        check_files(run.out, run.shard, processes=processes, overwrite=overwrite)
        check_writable(run.out.parent)
        return run

    @property
    def file(self) -> Path:
        """Return the file of moments that this run writes; FILE.json beside it says how it was made."""
        return self.shard.file(self.out)

    def of(self, rank: int, count: int) -> "Run":
        """Return the part of process `rank` of `count`."""
        return self if count == 1 else replace(self, shard=Shard(rank + 1, count))

    @property
    def progress(self) -> Path:
        """Return the file in which this part keeps its progress."""
        return self.file.with_suffix(".progress")

    @property
    def share(self) -> int:
        """Return the number of videos of this part."""
        most, each = self.settings["max_clips"], self.settings["clips_per_video"]
        return len(self.shard.share(self.videos[: most and -(-most // each)]))

    def gather(self, device: Any, dtype: str | None, on_video: Callable[[str | None], None]) -> Estimate:
        """Encode the clips of this part, from where an earlier run was stopped. Errors as in `estimate`."""
        return estimate(
            load(self.spec, device=device, dtype=dtype, only=("vae",)),
            self.videos,
            **self.settings,
            max_failures=self.max_failures,
            model=self.spec.name,
            source=self.source,
            shard=self.shard,
            decoding=self.decoding,
            progress=self.progress,
            beside=self.before,
            on_video=on_video,
        )

    def write(self, estimates: Sequence[Estimate], say: Callable[[str], None]) -> dict[str, Any]:
        """Put together what all processes gathered, write it with its report, and return that."""
        gathered = [*([self.before] if self.before else []), *(done.gathered for done in estimates)]
        total = merged(gathered, max_failures=self.max_failures)
        moments = total.moments
        if moments.count == 0 and self.shard.count == 1:
            raise MediaError("none of the videos can be used; see the reasons above")
        shards = [part.shard for part in total.parts if part.shard.count > 1]
        if shards and self.shard.count == 1:
            there = ", ".join(map(str, shards))
            say(f"these are the shards {there} of a run; --merge {self.file} with the others when they are done")
        about: dict[str, Any] = {"unleak": __version__, "merged": [str(path) for path in self.merge]}
        if estimates:
            about |= {"model": self.spec.name, "videos": len(self.videos), "shard": str(self.shard)}
            about |= {"clips": sum(done.moments.count or 0 for done in estimates)}
            about |= {"settings": {**self.settings, "max_failures": self.max_failures}}
            skipped = [(video, reason) for done in estimates for video, reason in done.skipped.items()]
            about["skipped"] = [{"video": str(video), "reason": reason} for video, reason in skipped]
        about |= {"count": moments.count, "shape": list(moments.shape)}
        about |= {"isotropic_variance": moments.isotropic_variance}
        about["parts"] = [part.record for part in total.parts]
        with written_whole(self.file.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            moments.save(self.file)
        return about


def few(count: int | None) -> str | None:
    """Say what is wrong with moments of so few clips; None where they are enough, or nobody knows how many."""
    if not count or count >= ENOUGH:
        return None
    return (
        f"{count} clip{'s' * (count > 1)}: too few for moments to use: the variance comes out about {100 / count:.0f}"
        f" % too low, and the mean is that of these videos; give {ENOUGH} clips or more"
    )


def check_files(out: Path, shard: Shard, *, processes: int, overwrite: bool) -> None:
    """Raise ValueError for files that are in the way."""
    file = shard.file(out)
    for path in (file, file.with_suffix(".json"), file.with_suffix(".progress")):
        if path.is_dir():
            raise ValueError(f"{path} is a folder, where a file is to go; choose another --out")
    for path in (file, file.with_suffix(".json")):
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; give --overwrite, another --out, or --merge {file} to add to it")
    count = max(shard.count, processes)
    kept = re.compile(re.escape(out.stem) + r"(?:\.\d+-of-(\d+))?\.progress")
    for path in sorted(out.parent.glob("*.progress")):
        match = kept.fullmatch(path.name)
        if match and int(match[1] or 1) != count:
            raise ValueError(
                f"{path} is of a run cut in {match[1] or 1}, this one is cut in {count}; give as many processes or "
                "shards to go on, or delete it to begin again"
            )


def files_to_merge(patterns: Sequence[str]) -> list[Path]:
    """Find the files that --merge names. Raises ValueError for a file given twice and for a pattern without files."""
    files = list[Path]()
    for pattern in patterns:
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).exists() else [pattern]
        if not matches:
            raise ValueError(f"--merge {pattern}: no such files")
        files += map(Path, matches)
    for k, file in enumerate(files):
        if file.resolve() in (other.resolve() for other in files[:k]):
            raise ValueError(f"--merge {file} is given twice, so its clips would count twice; give it once")
    return files
