"""DynamiCrafter's network: time per step, peak memory and share of the matrix-multiply peak, side by side in one run.

    python benchmarks/lvdm_speed.py [--device cuda] [--dtype float16] [--rounds 5] [--compile]

The network has random weights: full size on a GPU, at 320x512 and 576x1024 of 16 frames; on a CPU a fifth of the
channels at one small size, and the rows of a GPU say so. A step is one guided evaluation (two branches). Three ways of
computing the same, which is checked first:

- straightforward: attention that keeps its scores, text repeated for every frame, convolutions over time in three
  dimensions, frames copied to and fro between space and time, the branches one after the other, frames decoded singly;
- SDPA: the same with `scaled_dot_product_attention`;
- unleak: as the pipeline does it. `--compile` adds the same with `compile_repeated_blocks`.

They take turns in every round, in both orders; the table has medians over rounds, ratios within rounds, and the highest
memory beside the weights. The peak is that of the best of several large matrix products of the same type.
"""

import argparse
import ctypes
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unleak.families.dynamicrafter.convert import VARIANTS
from unleak.families.lvdm.attention import Attention, Tokens
from unleak.families.lvdm.blocks import Condition, ResBlock, SpatialTransformer, TemporalTransformer
from unleak.families.lvdm.original import unet_config, vae_config
from unleak.families.lvdm.unet import LVDMUNet

FRAMES, TEXT, IMAGE = 16, 77, 16
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


# The straightforward formulation, on the same parameters.


def scores_kept(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def plain_attention(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def forward(self: Attention, x: Tensor, tokens: Tokens | None = None) -> Tensor:
        def read(context: Tensor, to_k: Any, to_v: Any) -> Tensor:
            parts = (self.to_q(x), to_k(context), to_v(context))
            q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=self.heads).contiguous() for t in parts)
            return rearrange(attend(q, k, v), "n h l d -> n l (h d)")

        if tokens is None:
            return self.to_out[0](read(x, self.to_k, self.to_v))
        out = read(tokens.text.repeat_interleave(tokens.frames, 0), self.to_k, self.to_v)
        assert tokens.image is not None
        assert tokens.per_frame
        return self.to_out[0](out + read(tokens.image, self.to_k_ip, self.to_v_ip))

    return forward


def plain_res(self: ResBlock, x: Tensor, condition: Condition) -> Tensor:
    embedding = self.embed(F.silu(condition.embedding.repeat_interleave(condition.frames, 0)))
    h = self.conv2(self.conv1(x) + embedding[:, :, None, None]) + self.shortcut(x)
    clips = y = rearrange(h, "(b f) c h w -> b c f h w", f=condition.frames).contiguous()
    for layer in self.temporal:
        y = F.conv3d(F.silu(layer.norm(y)), layer.conv.weight[..., None], layer.conv.bias, padding=(1, 0, 0))
    return rearrange(clips + y, "b c f h w -> (b f) c h w").contiguous()


def plain_spatial(self: SpatialTransformer, x: Tensor, condition: Condition) -> Tensor:
    tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c").contiguous())
    for block in self.transformer_blocks:
        tokens = block(tokens, condition.tokens)
    return x + rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=x.shape[2]).contiguous()


def plain_temporal(self: TemporalTransformer, x: Tensor, condition: Condition) -> Tensor:
    clips = rearrange(x, "(b f) c h w -> b c f h w", f=condition.frames).contiguous()
    tokens = self.proj_in(rearrange(self.norm(clips), "b c f h w -> (b h w) f c").contiguous())
    for block in self.transformer_blocks:
        tokens = block(tokens)
    b, (height, width) = len(clips), x.shape[2:]
    found = rearrange(self.proj_out(tokens), "(b h w) f c -> b c f h w", b=b, h=height, w=width)
    return rearrange(clips + found, "b c f h w -> (b f) c h w").contiguous()


@contextmanager
def straightforward(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within, networks compute in the straightforward way."""
    with (
        patch.object(Attention, "forward", plain_attention(attend)),
        patch.object(ResBlock, "forward", plain_res),
        patch.object(SpatialTransformer, "forward", plain_spatial),
        patch.object(TemporalTransformer, "forward", plain_temporal),
        patch.object(LVDMUNet, "memory_format", torch.contiguous_format),
    ):
        yield


@dataclass
class Case:
    """A size, and the networks and inputs for it."""

    unet: LVDMUNet
    vae: AutoencoderKL
    sample: Tensor
    tokens: Tensor
    compiled: LVDMUNet | None = None

    def step(self, *, branches: int, unet: LVDMUNet | None = None) -> Tensor:
        """One guided evaluation, `branches` of the two at once."""
        parts = zip(self.sample.split(branches), self.tokens.split(branches), strict=True)
        return torch.cat([(unet or self.unet)(x, 500, tokens, return_dict=False)[0] for x, tokens in parts])

    def decode(self, at_once: int) -> Tensor:
        latents = rearrange(self.sample[:1, :4], "b c f h w -> (b f) c h w")
        return torch.cat([self.vae.decode(part).sample for part in latents.split(at_once)])

    def to(self, memory_format: torch.memory_format) -> None:
        for network in (self.unet, self.vae):
            network.to(memory_format=memory_format)  # type: ignore[call-overload]


def build(
    height: int, width: int, *, share: int, device: str, dtype: torch.dtype, compiled: bool, frames: int = FRAMES
) -> Case:
    """Build networks with a `share`-th of the channels, and inputs for videos of height x width pixels."""
    torch.manual_seed(0)
    params = VARIANTS["512"]
    config = unet_config(params["unet_config"]["params"])
    config |= {"model_channels": config["model_channels"] // share, "dropout": 0.0}
    config |= {"attention_head_dim": config["model_channels"] // 5}
    first_stage = params["first_stage_config"]["params"]
    first_stage = first_stage | {"ddconfig": first_stage["ddconfig"] | {"ch": 32 * (128 // share // 32 or 1)}}
    with torch.device(device):
        unet, vae = LVDMUNet(**config), AutoencoderKL(**vae_config(first_stage, scaling_factor=0.18215))
        sample = torch.randn(2, 8, frames, height // 8, width // 8, dtype=dtype)
        tokens = torch.randn(2, TEXT + IMAGE * frames, 1024, dtype=dtype)
    case = Case(unet.to(dtype).eval(), vae.to(dtype).eval(), sample, tokens)
    if compiled:
        case.compiled = LVDMUNet(**config).to(device, dtype).eval()
        case.compiled.load_state_dict(unet.state_dict(), assign=True)
        case.compiled.compile_repeated_blocks()
    return case


@dataclass
class Way:
    """How to take a step and to decode."""

    name: str
    step: Callable[[Case], Tensor]
    decode: Callable[[Case], Tensor] | None
    memory_format: torch.memory_format = torch.channels_last
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    @contextmanager
    def within(self, case: Case) -> Iterator[None]:
        case.to(self.memory_format)
        if self.attend is None:
            yield
        else:
            with straightforward(self.attend):
                yield


def ways(frames_at_once: int, *, compiled: bool) -> list[Way]:
    def plain(name: str, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Way:
        step, decode = (lambda case: case.step(branches=1)), (lambda case: case.decode(1))
        return Way(name, step, decode, torch.contiguous_format, attend)

    ours = Way("unleak", lambda case: case.step(branches=2), lambda case: case.decode(frames_at_once))
    extra = [Way("unleak, compiled", lambda case: case.step(branches=2, unet=case.compiled), None)] if compiled else []
    return [plain("straightforward", scores_kept), plain("SDPA", F.scaled_dot_product_attention), ours, *extra]


# Measures


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def resident(kind: str) -> int:
    return int(re.search(rf"{kind}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024  # type: ignore[index]


def measured(run: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds (on a CPU of processor time, so that what else it does counts little), and the highest GiB above what
    was held before."""
    synchronise(device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cpu":
        if RESET.exists():
            ctypes.CDLL(None).malloc_trim(0)  # what was freed would be taken again unseen
            RESET.write_text("5")
        before = resident("VmRSS") if RESET.exists() else 0
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = clock()
    run()
    synchronise(device)
    seconds = clock() - began
    peak = (resident("VmHWM") if RESET.exists() else before) if device == "cpu" else torch.cuda.max_memory_allocated()
    return seconds, (peak - before) / 2**30


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of ten products of large square matrices."""
    side = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = [measured(lambda: a @ b, device)[0] for _ in range(10)]
    return 2 * side**3 / min(times)


def operations(case: Case) -> int:
    """Multiplications and additions of a step, counted on our own way."""
    with FlopCounterMode(display=False) as counter:
        case.step(branches=2)
    return counter.get_total_flops()


def report(
    height: int, width: int, *, share: int, device: str, dtype: torch.dtype, rounds: int, compiled: bool
) -> None:
    case = build(height, width, share=share, device=device, dtype=dtype, compiled=compiled)
    peak, work = matmul_peak(device, dtype), operations(case)
    kinds = ways(max(2**20 // (height * width), 1), compiled=compiled)
    outputs = []
    for way in kinds:  # the first time is slower, and shows that all compute the same
        with way.within(case):
            outputs.append(way.step(case).float())
    scale = outputs[0].abs().max()
    for way, output in zip(kinds, outputs, strict=True):
        off = ((output - outputs[0]).abs().max() / scale).item()
        assert off < (1e-4 if dtype == torch.float32 else 5e-2), f"{way.name} is off by {off:.1e}"
    steps: dict[str, list[tuple[float, float]]] = {way.name: [] for way in kinds}
    decodes: dict[str, list[tuple[float, float]]] = {way.name: [] for way in kinds}
    for i in range(rounds):
        for way in (kinds, kinds[::-1])[i % 2]:
            with way.within(case):
                steps[way.name].append(measured(lambda way=way: way.step(case), device))
                if way.decode is not None:
                    decodes[way.name].append(measured(lambda way=way: way.decode(case), device))
    name = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    parameters = sum(p.numel() for p in case.unet.parameters()) / 1e6
    print(f"\n{width}x{height}x{FRAMES}, {parameters:.0f} M parameters, {str(dtype)[6:]}, {name}; {rounds} rounds;")
    print(f"{work / 1e12:.2f} TFLOP a step; matrix products reach {peak / 1e12:.2f} TFLOP/s\n")
    print(
        "| | s/step | of straightforward | of SDPA | share of peak | GiB/step | of straightforward | s/decode | GiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    first, second = kinds[0].name, kinds[1].name
    for way in kinds:
        seconds = [t for t, _ in steps[way.name]]
        memory, base = max(m for _, m in steps[way.name]), max(m for _, m in steps[first])
        ratios = [
            statistics.median(t / u for t, (u, _) in zip(seconds, steps[other], strict=True))
            for other in (first, second)
        ]
        median = statistics.median(seconds)
        cells = [f"{median:.3f}", *(f"{ratio:.2f}" for ratio in ratios), f"{work / median / peak:.0%}"]
        cells += [f"{memory:.2f}", f"{memory / base:.2f}"]
        decoded = decodes[way.name]
        cells += (
            [f"{statistics.median(t for t, _ in decoded):.2f}", f"{max(m for _, m in decoded):.2f}"]
            if decoded
            else ["", ""]
        )
        print(f"| {way.name} | {' | '.join(cells)} |")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=int, default=None, help="of the channels: 1 is full size, 5 a fifth")
    parser.add_argument("--size", default=None, metavar="WxH", help="one size instead of the usual ones")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    sizes = [(320, 512), (576, 1024)] if not on_cpu else [(192, 320)]
    if arguments.size:
        width, height = map(int, arguments.size.split("x"))
        sizes = [(height, width)]
    dtypes = [arguments.dtype] if arguments.dtype else ["float32"] if on_cpu else ["float16", "bfloat16"]
    for height, width in sizes:
        for dtype in dtypes:
            report(
                height,
                width,
                share=arguments.share or (5 if on_cpu else 1),
                device=arguments.device,
                dtype=getattr(torch, dtype),
                rounds=arguments.rounds,
                compiled=arguments.compile,
            )
    if on_cpu:
        print("\n512x320x16 and 1024x576x16 at full size, float16 and bfloat16, on a GPU: not measured")


if __name__ == "__main__":
    main()
