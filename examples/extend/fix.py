"""A fix from outside the package: one file, one line in the registry.

    python examples/extend/fix.py            lists the fixes, this one among them

Used as a plugin, this module is named in the group `unleak.plugins` of a package's entry points; then the command line
has `--fix fade=0.5:0.3` too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import unleak
from unleak.attach.strategies.evaluations import Evaluation, condition_of, evaluations
from unleak.attach.strategies.registry import Fix, Number


@dataclass(frozen=True)
class Fade:
    """Show the conditional branch the photo's latents times `strength` in the first `share` of the steps."""

    strength: float = 0.5
    share: float = 0.3

    def fits(self, pipeline: type, seam: Any, process: Any = None) -> None:
        """Raise ValueError where the photo does not enter the denoiser as latents."""
        condition_of(pipeline, seam, "Fade")

    def check(self, pipe: Any, seam: Any) -> None:
        """Raise ValueError where the photo does not enter the denoiser as latents."""
        self.fits(type(pipe), seam)

    @contextmanager
    def attached(self, pipe: Any, seam: Any, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""

        def answer(evaluation: Evaluation) -> Any:
            if evaluation.branch == "unconditional" or evaluation.progress > self.share:
                return evaluation.run()
            image = evaluation.image().clone()
            conditional = image[len(image) // 2 :] if evaluation.branch == "both" else image
            conditional *= self.strength
            return evaluation.run(image)

        with evaluations(pipe, seam, answer):
            yield


unleak.register_fix(
    Fix(
        "fade",
        Fade,
        "Fade the photo in the first steps.",
        (
            Number("strength", "share of the photo that is left", default=0.5),
            Number("share", "of the steps", default=0.3),
        ),
    )
)

if __name__ == "__main__":
    for fix in unleak.fixes():
        print(f"{fix.syntax:<45} {fix.help}")
