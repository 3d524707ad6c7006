"""What only several processes show, two of them, by gloo, without a launcher."""

import errno
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from unleak.train import checkpoint
from unleak.train.sharding import shard
from unleak.train.together import lost, together

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo, limits")


def _begin(rank, folder, body):
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    sys.stderr = (folder / f"{rank}.txt").open("w")
    try:
        body(rank, folder)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001, it is told
        traceback.print_exc()
    sys.stderr.close()
    dist.destroy_process_group()


def two(body, folder):
    """Run `body(rank, folder)` in two processes; what each had to say of its failures."""
    mp.spawn(_begin, (folder, body), nprocs=2)
    return [(folder / f"{rank}.txt").read_text() for rank in range(2)]


def _sharded(rank, folder):
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    shard([network], torch.device("cpu"))
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    tensors = {f"{kind}/{name}": weight.clone() for kind in ("model", "ema") for name, weight in weights.items()}
    checkpoints = folder / "checkpoints"
    checkpoint.save(checkpoints, 1, {"lr": 1}, tensors, scaler={"scale": 2.0}, keep=1, alone=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for full, largest in ((1, 5000), (0, 5000), (0, 90_000)):  # the part of one, of the other, and what only one writes
        if rank == full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
        with pytest.raises(OSError, match="File too large") as refusal:
            checkpoint.save(checkpoints, 2, {"long": "x" * 100_000}, tensors, keep=1, alone=False)
        assert (refusal.value.errno, refusal.value.filename) == (errno.EFBIG, str(checkpoints / "step-00000002"))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [path.name for path in checkpoints.iterdir()] == ["step-00000001"]
        dist.barrier()
    read = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    stored = checkpoint.newest(checkpoints)
    checkpoint.compare(stored, read)
    checkpoint.load(stored, read)
    assert all(torch.equal(read[name].to_local(), tensor.to_local()) for name, tensor in tensors.items())
    assert stored.scaler == {"scale": 2.0}
    checkpoint.save(checkpoints, 2, {"lr": 1}, tensors, keep=1, alone=False)
    dist.barrier()
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]


def _half_precision(rank, folder):
    """A gradient that overflows in one process is skipped by both, and the scale comes down in both."""
    torch.manual_seed(0)
    network = nn.Linear(4, 4)
    shard([network], torch.device("cpu"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for overflows in (False, True):
        before = network.weight.to_local().detach().clone()
        scaler.scale(network(torch.ones(2, 4)).square().mean()).backward()
        if overflows and rank == 1:
            network.weight.grad.to_local()[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(before, network.weight.to_local()) == overflows
        assert scaler.get_scale() == (512 if overflows else 1024)


def _agreed(rank, folder):
    for fails in (0, 1):
        with pytest.raises(FileNotFoundError, match="no such file: 'name'"), together():  # noqa: PT012
            if rank == fails:
                raise FileNotFoundError(errno.ENOENT, "no such file", "name")
    with together():
        pass
    if rank == 1:
        dist.destroy_process_group()
        dist.init_process_group("gloo", init_method=f"file://{folder}/alone", rank=0, world_size=1)
        return
    with pytest.raises(RuntimeError) as ended:
        dist.all_reduce(torch.zeros(1))
    assert lost(ended.value)


@pytest.mark.slow
def test_two_processes(tmp_path):
    """One start for all of them: it takes longer than they do."""
    assert two(_all, tmp_path) == ["", ""]


def _all(rank, folder):
    for body in (_sharded, _half_precision, _agreed):
        body(rank, Path(folder))
