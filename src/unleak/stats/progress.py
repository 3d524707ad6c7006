"""Keep on disk how far a run has come: a run that was killed goes on from there as if it had not been."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.atomic import written_whole
from unleak.data.reading import Record, parse_json
from unleak.stats.shards import differences

__all__ = ["Progress"]


class _About(Record):
    """What stands beside the moments in a file of progress."""

    settings: dict[str, Any]
    position: Annotated[int, Field(ge=0, lt=2**53)]
    skipped: dict[str, str]
    count: Annotated[int, Field(ge=1, lt=2**53)]
    meta: dict[str, Any]


@dataclass
class Progress:
    """What is done of a run: the first `position` clips of its order. `moments` is None before the first batch."""

    position: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)
    moments: LatentMoments | None = None

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Replace the file at `path`, at once; `settings` are what must not change before it is read again."""
        assert self.moments is not None
        about = {
            "settings": settings,
            "position": self.position,
            "skipped": {str(video): reason for video, reason in self.skipped.items()},
            "count": self.moments.count,
            "meta": asdict(self.moments.meta),
        }
        tensors = {"mean": self.moments.mean, "mean_square": self.moments.mean_square}
        content = save(tensors, {"unleak_progress": json.dumps(about)})
        with written_whole(path) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(cls, path: Path, settings: dict[str, Any]) -> "Progress":
        """Read the progress at `path`, none if there is no file; ValueError if it is of a run with other settings."""
        if not path.exists():
            return cls()
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {})["unleak_progress"]
                mean, mean_square = file.get_tensor("mean"), file.get_tensor("mean_square")
            about = parse_json(text, _About, str(path))
            moments = LatentMoments(about.count, mean, mean_square, MomentsMeta(**about.meta))
        except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not the progress of a run, or damaged; move or delete it") from error
        begun = about.settings
        settings = json.loads(json.dumps(settings))
        if begun != settings:
            raise ValueError(
                f"{path} is of a run that was begun otherwise ({differences(begun, settings)}); "
                "give its settings to go on, or delete it to begin again"
            )
        skipped = {Path(video): reason for video, reason in about.skipped.items()}
        return cls(about.position, skipped, moments)
