"""No pickle runs: nothing in the sources can, and every loader is tried with one that would."""

import ast
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "unleak").rglob("*.py"))
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ONLY_IN = {"torch.distributed.checkpoint": "train/checkpoint.py"}
MUST_SAY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def faults(tree, place):
    """What of a module could run a pickle."""
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            harmless = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} <= {"UnpicklingError"}
            if name.split(".")[0] in FORBIDDEN and not harmless:
                found.append(f"{place}:{node.lineno}: import of {name}")
            for module, file in ONLY_IN.items():
                if name.startswith(module) and place != file:
                    found.append(f"{place}:{node.lineno}: import of {name}, which is for {file}")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in MUST_SAY:
                keyword, value = MUST_SAY[called]
                if said.get(keyword) != str(value):
                    found.append(f"{place}:{node.lineno}: {called} without {keyword}={value}")
            hashed = called == "torch.jit.load" and place == "measure/extractors.py"  # of a file whose hash is known
            if called in ("torch.serialization.add_safe_globals", "torch.hub.load", "torch.jit.load") and not hashed:
                found.append(f"{place}:{node.lineno}: {called}")
            if called in ("eval", "exec") or called.endswith((".FileSystemReader", ".load_state_dict_from_url")):
                found.append(f"{place}:{node.lineno}: {called}")
    return found


def test_no_module_can_run_a_pickle():
    assert len(SOURCES) > 100
    assert not [
        fault
        for path in SOURCES
        for fault in faults(ast.parse(path.read_text()), path.relative_to(ROOT / "src" / "unleak").as_posix())
    ]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch.distributed.checkpoint as dcp",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, mmap_mode='r')",
        "torch.serialization.add_safe_globals([f])",
        "torch.jit.load(path)",
        "reader = dcp.FileSystemReader(path)",
    ],
)
def test_the_guard_can_fail(line):
    assert len(faults(ast.parse(line), "zoo/hub.py")) == 1


class Shell:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _checkpoint(path):
    from unleak.families.checkpoint import read_checkpoint

    read_checkpoint(path)


def _moments(path):
    from unleak.core.moments import LatentMoments

    LatentMoments.load(path)


def _progress(path):
    from unleak.stats.progress import Progress

    Progress.load(path, {})


def _training(path):
    from unleak.train import checkpoint

    checkpoint.newest(path.parent.parent)


def _latents(path):
    from unleak.train.cache import LatentCache

    LatentCache(path.parent)


def _raft(path):
    from unleak.measure.raft import Raft

    Raft(path)


def _fidelity(path):
    from unleak.measure.adapters.torch_fidelity import TorchFidelity

    TorchFidelity(path)


def _folder(path):
    from unleak.zoo import hub

    hub.load(str(path.parent.parent), dtype=torch.float32, device="cpu")


# Each loader, with the name of the file that it opens.
LOADERS = [
    (_checkpoint, "model.ckpt"),
    (_checkpoint, "model.safetensors"),
    (_moments, "moments.safetensors"),
    (_moments, "initial_noise.pt"),
    (_progress, "moments.safetensors.progress"),
    (_training, "step-00000001/.metadata"),
    (_training, "step-00000001/optimizer.pt"),
    (_training, "step-00000001/tensors-00001.safetensors"),
    (_training, "step-00000001/state.json"),
    (_latents, "first_frames.npy"),
    (_latents, "latents.npy"),
    (_raft, "raft.pth"),
    (_fidelity, "inception.pth"),
    (_folder, "unet/diffusion_pytorch_model.bin"),
    (_folder, "unet/diffusion_pytorch_model.safetensors"),
    (_folder, "unet/config.json"),
    (_folder, "model_index.json"),
]


@pytest.mark.parametrize("form", ["plain", "torch", "old torch"])
@pytest.mark.parametrize(("load", "name"), LOADERS)
def test_no_loader_runs_a_pickle(tmp_path, load, name, form):
    path, marker = tmp_path / "given" / name, tmp_path / "ran"
    path.parent.mkdir(parents=True)
    if load is _training and not name.endswith("state.json"):
        (path.parent / "state.json").write_text(json.dumps({"step": 1, "recipe": {}}))
    if load is _folder:
        shutil.copytree(ROOT / "src/unleak/families/nano/weights", tmp_path / "given", dirs_exist_ok=True)
        (path.parent / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    if form == "plain":
        path.write_bytes(pickle.dumps(Shell(marker)))
    else:
        with path.open("wb") as file:
            torch.save(Shell(marker), file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises((ValueError, OSError, ModuleNotFoundError)):
        load(path)
    assert not marker.exists()


def test_such_a_file_would_make_its_folder(tmp_path):
    torch.save(Shell(tmp_path / "ran"), tmp_path / "file")
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "ran").exists()
