"""What people feed to `unleak train`: a line for each fault, status 2, nothing loaded, nothing written."""

import os
import pickle
import re
from pathlib import Path

import pytest

from unleak.train.config import load_recipe

RECIPE = """
model: tiny
output: trained
steps: 2
batch_size: 2
condition: {noise: timenoise, beta_m: 15}
data: {kind: folder, path: clips, num_frames: 2, fps: 7, size: [16, 16]}
"""


class Touches:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return Path.touch, (Path("hacked"),)


HOSTILE = pickle.dumps({"optimizer": Touches()})


@pytest.fixture
def here(tiny_folder, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_folder)
    (tmp_path / "clips").symlink_to(clips)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def test_control(here, unleak):
    assert unleak("train", "recipe.yaml", "--dry-run").status == 0
    assert unleak("train", "recipe.yaml", "--quiet", "--set", "steps=1").status == 0


# ---- single values: --set KEY=VALUE, and the one line that comes ---------------------------------------------------

VALUES = {
    "stepps=5": "stepps: unknown key.*did you mean steps",
    "condition.beta=5": "condition.beta: unknown key.*did you mean beta_m",
    "sigma.pmean=0": "sigma.pmean: unknown key.*p_mean",
    "data.paths=x": "data.paths: unknown key.*path",
    "5=5": "5: unknown key",
    "steps=many": r"steps: .*valid integer.*given 'many'",
    "steps=2.5": r"steps: .*valid integer.*given 2.5",
    "steps=0": r"steps: .*greater than or equal to 1.*given 0",
    "steps=-3": r"steps: .*greater than or equal to 1.*given -3",
    "steps=1e3": r"steps: .*integer",
    "steps=true": r"steps: .*valid integer.*given True",
    "steps=null": r"steps: .*valid integer.*given None",
    "steps=": r"steps: .*valid integer.*given None",
    "steps=[2]": r"steps: .*valid integer.*given \[2\]",
    "steps={a: 1}": r"steps: .*valid integer",
    "steps='2'": r"steps: .*valid integer.*given '2'",
    "steps=2024-01-01": r"steps: .*valid integer.*2024-01-01",
    "steps=1:30": r"steps: .*valid integer.*given '1:30'",
    f"steps={'9' * 5000}": r"--set steps=9+.*: not YAML that is read: .*mend it",
    f"steps={10**30}": r"steps: .*less than 100000000",
    "steps=100000000": r"steps: .*less than 100000000.*given 100000000",
    "warmup_steps=2000000000": r"warmup_steps: .*less than",
    "batch_size=2000000000": r"batch_size: .*less than or equal to 65536.*given 2000000000",
    "keep=2000000000": r"keep: .*less than or equal to 10000",
    "lr=1e300": r"lr: .*less than or equal to 10.*given 1e\+300",
    "weight_decay=1e300": r"weight_decay: .*less than or equal to",
    "max_hours=1e300": r"max_hours: .*less than or equal to",
    "sigma.p_mean=1000": r"sigma.p_mean: .*less than or equal to 20.*given 1000",
    "sigma.p_std=1e300": r"sigma.p_std: .*less than or equal to 20",
    "flow.mean=-1e300": r"flow.mean: .*greater than or equal to -20",
    "condition.beta_m=1e300": r"condition.beta_m: .*less than or equal to",
    "condition={noise: pixel, p_mean: 1e300}": r"condition.p_mean: .*less than or equal to 20",
    "data.size=[1000000000, 16]": r"data.size.0: .*less than or equal to 8192.*given 1000000000",
    "data.num_frames=100000": r"data.num_frames: .*less than or equal to 10000",
    "data.clips_per_video=2000000000": r"data.clips_per_video: .*less than or equal to 10000",
    "data.workers=100000": r"data.workers: .*less than or equal to 256",
    "data.fps=1e-300": r"data.fps: .*greater than or equal to 0.001",
    "data.fps=1e300": r"data.fps: .*less than or equal to 240",
    f"data.buckets={[[16, 16, 2]] * 1001}": r"data.buckets: .*at most 1000 items",
    f"data.path={'x' * 5000}": r"data.path: must name a file or folder; it is longer than 4096 bytes",
    "trainable=lora lora.rank=2000000000": r"lora.rank: .*less than or equal to 8192",
    "validation={photos: clips, steps: 1000000}": r"validation.steps: .*less than or equal to 10000",
    "validation={photos: clips, seed: -1}": r"validation.seed: .*greater than or equal to 0",
    f"optimizer={'x' * 5000}": r"optimizer: .*given 'x{59}\.\.\.\)$",
    f"condition.noise={'x' * 5000}": r"condition: noise should be one of .*given 'x{59}\.\.\.\)$",
    "seed=-1": r"seed: .*greater than or equal to 0",
    f"seed={2**63}": r"seed: .*less than",
    "seed=0.5": r"seed: .*valid integer.*given 0.5",
    "lr=0": r"lr: .*greater than 0.*given 0",
    "lr=-1e-4": r"lr: .*greater than 0.*given -0.0001",
    "lr=.nan": r"lr: .*finite number",
    "lr=.inf": r"lr: .*finite number",
    "lr=1e999": r"lr: .*finite number",
    "lr=fast": r"lr: .*valid number.*given 'fast'",
    "lr=false": r"lr: .*valid number.*given False",
    "betas=[0.9]": r"betas.1: missing",
    "betas=[0.9, 0.99, 0.999]": r"betas: .*at most 2",
    "betas=0.9": r"betas: .*array.*given 0.9",
    "betas=[0.9, 1.5]": r"betas.1: .*less than 1.*given 1.5",
    "optimizer=sgd": r"optimizer: .*'adamw'.* or 'muon' \(given 'sgd'",
    "schedule=0": r"schedule: .*'constant', 'cosine' or 'linear'.*given 0",
    "mixed_precision=fp8": r"mixed_precision: .*'no', 'bf16' or 'fp16'.*given 'fp8'",
    "mixed_precision=false": r"mixed_precision: .*'no', 'bf16' or 'fp16'.*given False",
    "gradient_checkpointing=no": r"gradient_checkpointing: .*boolean.*given 'no'",
    "gradient_checkpointing=1": r"gradient_checkpointing: .*boolean.*given 1",
    "report_to=comet": r"report_to: .*'none', 'tensorboard'.*given 'comet'",
    "init=zero": r"init: .*'pretrained' or 'random'.*given 'zero'",
    "trainable=some": r"trainable: must be .*'all'.*a list of patterns.*given 'some'",
    "trainable=[]": r"trainable: .*given \[\]",
    "batch_size=3 accumulation=2": r"batch_size 3 cannot be cut into 2 equal pieces: choose an accumulation",
    "condition=none": r"condition: must be a mapping such as {noise: timenoise.*given 'none'",
    "condition={}": r"condition: noise is missing: say for example {noise: timenoise",
    "condition.noise=loud": r"condition: noise should be one of 'none', 'pixel', 'timenoise' \(given 'loud'\)",
    "condition={noise: none, beta_m: 5}": r"condition.beta_m: unknown key",
    "condition.a=0": r"condition.a: .*greater than 0.*given 0",
    "condition.dropout=1.1": r"condition.dropout: .*less than or equal to 1",
    "condition.per_frame=true condition.reference=true": r"per_frame and reference exclude each other",
    "sigma.uniform_range=[700, 10]": r"sigma.uniform_range: must be \[low, high\] with low < high",
    "sigma.uniform_share=1": r"sigma.uniform_share: .*less than 1",
    "sigma=[1, 2]": r"sigma: must be a mapping such as {p_mean: -1.2",
    "data=clips": r"data: must be a mapping such as {kind: folder.*given 'clips'",
    "data.kind=laion": r"data: kind should be one of 'synthetic', 'folder'.*\(given 'laion'\)",
    "data.size=16": r"data.size: .*array.*given 16",
    "data.size=[16, 16, 3]": r"data.size: .*at most 2",
    "data.size=[16, 0]": r"data.size.1: .*greater than or equal to 1",
    "data.size=[16, 17]": r"data.size: clips of 16x17 pixels; this model needs multiples of 16",
    "data.num_frames=1.5": r"data.num_frames: .*integer",
    "data.path=''": r"data.path: must name a file or folder.*given ''",
    "data.path=none": r"error: none: no such file or folder",
    "data.path=recipe.yaml": r"recipe.yaml: not a video",
    "data.fps=0": r"data.fps: .*greater than or equal to 0.001.*given 0",
    "data.num_frames=900": r"clips: 2 of 2 videos cannot be used.*max_failures",
    "data.workers=-1": r"data.workers: .*greater than or equal to 0",
    "motion_readout=1": r"motion_readout: needs clips of known motion",
    "data={kind: synthetic}": r"data.photos: missing",
    "data={kind: synthetic, photos: none}": r"none: No such file or directory",
    "data={kind: synthetic, photos: clips}": r"no photo in clips: expected at least one of .jpeg",
    "data={kind: synthetic, photos: clips, motion: {spin: 1}}": r"data.motion: unknown spin; known are max_speed",
    "data={kind: synthetic, photos: clips, motion: {max_speed: fast}}": r"data.motion.max_speed: .*valid number",
    "output=''": r"output: must name a file or folder.*given ''",
    "output=recipe.yaml": r"recipe.yaml: cannot be written to \(Not a directory\); choose another folder",
    "output=/proc/none": r"/proc/none: cannot be written to .*; choose another folder",
    "output=.": r"recipe.yaml.*would be replaced; choose another folder",
    'output="a\\0b"': r"output: ",
    "model=''": r"model: .*at least 1 character.*given ''",
    "model=5": r"model: .*string.*given 5",
    "model=nanoo": r"model 'nanoo' is unknown: did you mean nano\?",
    "model=clips": r"model clips: no pipeline there",
    "keep=0": r"keep: .*greater than or equal to 1",
    "max_hours=0": r"max_hours: .*greater than 0",
    "data={kind: synthetic, photos: clips, motion: {still: 1.5}}": r"data.motion: still must be at most 1",
    "data={kind: synthetic, photos: clips, motion: {min_speed: -1}}": r"data.motion: min_speed must be 0 or more",
    "data={kind: synthetic, photos: clips, motion: {min_speed: 2}}": r"data.motion: min_speed must be at most",
    "data={kind: synthetic, photos: clips, motion: {directions: 2.5}}": r"data.motion: directions must be a whole",
    "lr=!!bool maybe": r"--set lr=!!bool maybe: not YAML that is read: .*mend it",
    "lr=!!timestamp soon": r"--set lr=!!timestamp soon: not YAML that is read: .*mend it",
    "lr": r"--set lr: expected key=value",
    "=5": r"--set =5: expected key=value",
    "steps.x=5": r"--set steps.x=5: steps is not a mapping",
    "data..size=5": r"--set data..size=5: expected key=value",
    "lr=[1": r"--set lr=\[1: not YAML that is read: .*mend it",
    "lr=!!python/object/apply:os.system ['touch hacked']": r"--set lr=.*: not YAML.*could not determine a constructor",
    "lr=*x": r"--set lr=\*x: not YAML.*alias",
}


@pytest.mark.parametrize("change", VALUES, ids=lambda change: change[:40])
def test_a_wrong_value(here, refused, change):
    sets = [item for text in re.split(r" (?=[a-z_.]+=)", change) for item in ("--set", text)]
    refused("train", "recipe.yaml", "--quiet", *sets, reasons=[VALUES[change]])


# ---- whole files ---------------------------------------------------------------------------------------------------

NOT_A_MAPPING = r"recipe.yaml: expected a mapping of recipe keys, found "
NOT_YAML = r"recipe.yaml: not YAML"
BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (k + 1, k + 1, k, k) for k in range(97, 122))
FILES = {
    "empty": (b"", NOT_A_MAPPING + "nothing"),
    "a comment": (b"# later\n", NOT_A_MAPPING + "nothing"),
    "a list": (b"- steps: 5\n", NOT_A_MAPPING + "list"),
    "a word": (b"nano", NOT_A_MAPPING + "str"),
    "a number": (b"5", NOT_A_MAPPING + "int"),
    "two documents": (b"steps: 1\n---\nsteps: 2\n", NOT_YAML + ".*single document"),
    "an open bracket": (b"steps: [", NOT_YAML + ".*line 1"),
    "a tab": (b"data:\n\tkind: folder\n", NOT_YAML + ".*line 2"),
    "a photo": (b"\x89PNG\r\n\x1a\n\0\0", NOT_YAML + ": no text in UTF-8; give the file of a recipe"),
    "UTF-16": (RECIPE.encode("utf-16"), NOT_YAML + ": no text in UTF-8"),
    "zero bytes": (b"\0" * 100, NOT_YAML + ".*special characters"),
    "endless": (
        lambda path: path.unlink() or path.symlink_to("/dev/zero"),
        r"recipe.yaml: a device; give a regular file",
    ),
    "a folder": (lambda path: path.unlink() or path.mkdir(), r"recipe.yaml: a folder; give a regular file"),
    "nested deeply": (b"[" * 20_000, r"recipe.yaml: not YAML that is read: nested too deeply"),
    "a bomb of aliases": (BOMB, NOT_YAML + r".*\*a is an alias"),
    "itself": (b"a: &a [*a]", NOT_YAML + r".*\*a is an alias"),
    "a merge": (RECIPE.encode() + b"<<: {steps: 3}", r"recipe.yaml: <<: unknown key"),
    "a key twice": (RECIPE.encode() + b"steps: 9\n", NOT_YAML + ".*steps is given twice.*line 8"),
    "a key that is a list": (b"? [1, 2]\n: 3\n", NOT_YAML + ".*a key that is no word"),
    "a key that is a date": (b"!!timestamp 2024-01-01: 3\n", NOT_YAML + ".*a key that is no word"),
    "a Python object": (b"steps: !!python/object/apply:os.getpid []", NOT_YAML + ".*could not determine a constructor"),
    "a Python name": (b"steps: !!python/name:os.system", NOT_YAML + ".*could not determine a constructor"),
    "half a character": (RECIPE.encode() + b'init: "\\ud800"\n', r"recipe.yaml: holds what no text can hold"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_wrong_file(here, refused, what):
    content, reason = FILES[what]
    refused("train", "recipe.yaml", reasons=[reason], files={"recipe.yaml": content})


def test_every_fault_is_a_line_contradictions_too(here, refused):
    content = """
model: 5
outputs: trained
steps: many
batch_size: 3
accumulation: 2
lr: -1
motion_readout: 1.0
sigma: {p_mean: low, uniform_range: [9, 1]}
condition: {noise: timenoise, per_frame: true, reference: true, beta: 5, dropout: 2}
data: {kind: folder, path: clips, size: 16}
"""
    faults = [
        r"model: .*string.*given 5",
        r"output: missing",
        r"data.size: .*array.*given 16",
        r"steps: .*integer.*given 'many'",
        r"accumulation: batch_size 3 cannot be cut into 2 equal pieces",
        r"sigma.p_mean: .*number.*given 'low'",
        r"sigma.uniform_range: must be \[low, high\]",
        r"condition.reference: per_frame and reference exclude each other",
        r"condition.dropout: .*less than or equal to 1.*given 2",
        r"condition.beta: unknown key; did you mean beta_m\?",
        r"lr: .*greater than 0.*given -1",
        r"outputs: unknown key; did you mean output\?",
    ]
    files = {"recipe.yaml": content.encode()}
    refused("train", "recipe.yaml", reasons=["^error: recipe.yaml: " + fault for fault in faults], files=files)
    valid_data = ["--set", "data.size=[16, 16]"]  # of data that is wrong itself, nothing is known
    faults[2] = r"motion_readout: needs clips of known motion"
    refused(
        *("train", "recipe.yaml", *valid_data),
        reasons=["^error: recipe.yaml: " + fault for fault in (*faults[:2], *faults[3:-1], faults[2], faults[-1])],
    )


# ---- what stands in the output folder already, and on the command line ---------------------------------------------

CHECKPOINT = "trained/checkpoints/step-00000001"
AROUND = {
    "no recipe": (["none.yaml"], r"none.yaml: No such file or directory", {}),
    "no argument": ([], r"Missing argument 'RECIPE'", {}),
    "two recipes": (["recipe.yaml", "recipe.yaml"], r"unexpected extra argument", {}),
    "an unknown option": (["recipe.yaml", "--steps", "5"], r"No such option.*--steps", {}),
    "an empty name": ([""], r": a folder; give a regular file", {}),
    "nothing to export": (["recipe.yaml", "--export", "new"], r"no checkpoint in trained/checkpoints to export", {}),
    "export over photos": (
        ["recipe.yaml", "--export", "clips"],
        r"clips exists and is no pipeline of a training run: give --export a new folder",
        {},
    ),
    "somebody's pipeline": (
        ["recipe.yaml"],
        r"output: trained/pipeline is of another run: choose another output, or move it away",
        {"trained/pipeline/model_index.json": b"{}"},
    ),
    "an empty checkpoint": (
        ["recipe.yaml"],
        CHECKPOINT + r"/state.json is damaged \(.*No such file",
        {f"{CHECKPOINT}/x": b""},
    ),
    "a damaged checkpoint": (
        ["recipe.yaml"],
        CHECKPOINT + r"/state.json is damaged \(.*; no other checkpoint is good: choose another output to begin again",
        {f"{CHECKPOINT}/state.json": b"{"},
    ),
    "a hostile checkpoint": (
        ["recipe.yaml"],
        CHECKPOINT + r"/state.json is damaged \(.*; no other checkpoint is good: choose another output",
        {f"{CHECKPOINT}/state.json": b"{}", f"{CHECKPOINT}/optimizer.pt": HOSTILE},
    ),
    "a model of another kind": (
        ["recipe.yaml", "--set", "model=other"],
        r"model: other is a CogVideoXImageToVideoPipeline; those that can be trained are StableVideoDiffusionPipeline",
        {"other/model_index.json": b'{"_class_name": "CogVideoXImageToVideoPipeline"}'},
    ),
}


@pytest.mark.parametrize("what", AROUND)
def test_what_is_there_already(here, refused, what):
    arguments, reason, files = AROUND[what]
    refused("train", *arguments, reasons=[reason], files=files)


def test_a_recipe_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match=r"recipe\.yaml: a pipe; give a regular file"):
        load_recipe(tmp_path / "recipe.yaml")
