"""`unleak diagnose`: does this model lose motion to its image, or is something else the cause?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import BASIC, CommandLine, Group, Memory, Video, command, number, option, to_text, whole
from unleak.cli.studies import Spoken, listening


@dataclass(frozen=True)
class Clips(Group):
    """The clips that the model is tested on."""

    panel = BASIC

    videos: Annotated[
        list[str] | None, option("SOURCE", "Folder, file or pattern of real videos that move; repeatable.")
    ] = None
    photos: Annotated[
        Path | None, option("PHOTO|FOLDER", "Photos to make clips of known motion of; adds the exact yardstick.")
    ] = None
    quick: Annotated[
        bool, option("", "An answer in half a minute: fewer clips, levels and steps, wide intervals.", "--quick")
    ] = False
    start: Annotated[
        str | None, option("START,START,...", "Levels to restart from: 0.94T,0.86T, sigma=100, ...", parse=to_text)
    ] = None
    clips: Annotated[int | None, option("N", "Number of clips, by default 8.", parse=whole(1, 10_000))] = None
    seeds: Annotated[int | None, option("N", "Noises for each clip, by default 2.", parse=whole(1, 100))] = None
    seed: Annotated[int, option("N", "Seed of the first noise.", parse=whole(0, 2**62))] = 0
    mask: Annotated[
        Path | None, option("FILE", "Picture that is white where all clips move, for models that take one.")
    ] = None
    batch_size: Annotated[int, option("N", "Clips to run at once.", parse=whole(1, 256))] = 4
    seconds_per_video: Annotated[
        float, option("S", "Time to read a clip before its video is skipped.", parse=number(0.001, 86_400))
    ] = 60.0

    def __post_init__(self) -> None:
        if bool(self.videos) == (self.photos is not None):
            raise ValueError(
                "give --videos DIR (real clips that move) or --photos DIR (to make clips of known motion), one of them"
            )


@dataclass(frozen=True)
class DiagnoseOutput(Spoken):
    """Where the page goes."""

    out: Annotated[
        Path | None,
        option("FOLDER", "Folder for the page, the picture, the table and JSON; by default out/MODEL-diagnosis."),
    ] = None
    overwrite: Annotated[bool, option("", "Replace an older diagnosis.", "--overwrite")] = False


@command
def diagnose(tested: Clips, video: Video, memory: Memory, output: DiagnoseOutput, typed: CommandLine) -> None:
    """Tell whether a model loses motion to its image (conditional image leakage), and from which noise level on.

    Clips that move are noised and sampled on from there, with their first frame and without it: motion that can still
    be seen in the noise has to come back. Settings that make videos stand still are checked too.
    """
    terminal = output.terminal()
    spec = video.spec()
    refuse_unmeasurable()
    from unleak.data.atomic import check_writable
    from unleak.data.decode_worker import Decoding, default_workers
    from unleak.study.diagnose.examine import suspects
    from unleak.study.diagnose.leakage import RECORD
    from unleak.study.diagnose.run import diagnose as examine
    from unleak.study.place import free_folder

    out = output.out or Path("out") / f"{Path(spec.name).name}-diagnosis"
    out = free_folder(out, overwrite=output.overwrite, record=RECORD)
    check_writable(out.parent)
    with listening(terminal) as listener:
        done = examine(
            video.model,
            videos=tested.videos or (),
            photos=tested.photos,
            quick=tested.quick,
            start=tested.start,
            clips=tested.clips,
            seeds=tested.seeds,
            seed=tested.seed,
            mask=tested.mask,
            batch_size=tested.batch_size,
            decoding=Decoding(default_workers(), tested.seconds_per_video),
            loading=memory.loading,
            listener=listener,
            about={"reproduce": typed.text(out=out)},
            request=video.request(),
        )
    saved = done.save(out)
    for sentence in done.verdict.sentences:
        terminal.line(sentence)
    for cause in suspects(done):
        terminal.line(f"Look also at {cause.name}: {cause.text}.")
    terminal.line(str(saved))
    terminal.json({"page": str(saved), **done.record})
