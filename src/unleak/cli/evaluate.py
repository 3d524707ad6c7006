"""`unleak evaluate`: the paper's metrics of a folder of videos."""

from pathlib import Path
from typing import Any

from unleak.cli.errors import WRONG_INPUT
from unleak.cli.evaluate_options import Estimators, EvaluateOutput, Measured, Packages
from unleak.cli.options import CommandLine, command
from unleak.cli.processes import launched
from unleak.cli.studies import listening


@command
def evaluate(
    measured: Measured, estimators: Estimators, packages: Packages, output: EvaluateOutput, typed: CommandLine
) -> int:
    """Motion score, MS-Err, dynamic degree, consistency, alignment, flicker, warping error, FVD, IS, with intervals.

    Without --features, consistency and alignment are SSIM, and say so. FVD is computed with I3D and nothing else;
    numbers that cd-fvd, torch-fidelity or vbench made are called theirs. A video that cannot be measured is named and
    left out; the others are measured, and the exit status is 2. Under `accelerate launch -m unleak evaluate ...` the
    videos are shared out over the processes.
    """
    with launched() as processes:
        terminal = output.terminal(quiet=not processes.is_main)
        if (folder := output.prepare) is not None:
            status = processes.from_main(lambda: prepare(measured, folder, typed, terminal))
            processes.outlive_main()
            return status
        from unleak.measure.registry import extend
        from unleak.study.evaluate.kept import RECORD
        from unleak.study.evaluate.run import evaluate as measure

        for file in measured.extend or ():
            extend(file)
        with listening(terminal) as listener:
            found = measure(
                **measured.arguments(),
                networks=estimators.networks(packages),
                export=output.export,
                out=output.out,
                overwrite=output.overwrite,
                device=estimators.device,
                listener=listener,
                processes=processes,
                about={"reproduce": typed.text(out=output.out)},
            )
        if processes.is_main:
            for line in found.lines:
                terminal.line(line)
            terminal.line(str(output.out / RECORD))
            terminal.json(found.record)
        processes.outlive_main()
        return WRONG_INPUT if found.failed else 0


def prepare(measured: Measured, folder: Path, typed: CommandLine, terminal: Any) -> int:
    """Write photos and a list for `unleak generate` from the dataset of the preset; the exit status."""
    from unleak.study.evaluate.ucf101 import prepare_dataset

    if measured.preset != "ucf101" or not measured.reference:
        raise ValueError("--prepare goes with --preset ucf101 and --reference DIR of the dataset")
    for name in typed.words:
        if name not in ("prepare", "preset", "reference"):
            raise ValueError(
                f"--prepare writes photos and a list, and has no use for {typed.options[name]}; leave it out"
            )
    with listening(terminal) as listener:
        made, photos, failed = prepare_dataset(measured.reference, folder, listener=listener)
    terminal.note(f"{photos} photos; now: unleak generate {made} --out VIDEOS, and evaluate them with --prompts {made}")
    terminal.line(str(made))
    terminal.json({"list": str(made), "photos": photos, "failed": failed})
    return WRONG_INPUT if failed else 0
