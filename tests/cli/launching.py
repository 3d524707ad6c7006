"""Commands in two processes, as `accelerate launch` and `torchrun` start them."""

import subprocess
import sys

__all__ = ["LAUNCHERS", "launch"]

LAUNCHERS = {
    # With --cpu it would start a single process, whatever number is asked for; --multi_gpu needs no GPU for this.
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
    "torchrun": [
        *("torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
    ],
}


def launch(launcher, tmp_path, *arguments):
    command = [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "unleak", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
