"""The rows: each a function of the setup that returns what it measured."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import lvdm_speed as lvdm
from unleak.families.videocrafter1.convert import VARIANTS as VIDEOCRAFTER1

FRAMES = 16


@dataclass(frozen=True)
class Setup:
    """The device, and how large the networks are on it."""

    device: str
    dtype: torch.dtype
    rounds: int
    small: bool
    """A rehearsal: a share of the channels, small videos."""

    @classmethod
    def of(cls, device: str) -> "Setup":
        small = device == "cpu"
        return cls(device, torch.bfloat16, 1 if small else 5, small)

    @property
    def about(self) -> dict[str, Any]:
        name = "CPU" if self.small else torch.cuda.get_device_name()
        return {"device": name, "torch": torch.__version__, "rehearsal": self.small}

    @property
    def frames(self) -> int:
        """Of a video."""
        return 4 if self.small else FRAMES

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of a video in pixels."""
        return (64, 64) if self.small else (height, width)

    def seconds(self, run: Callable[[], Any]) -> float:
        lvdm.synchronise(self.device)
        began = time.perf_counter()
        run()
        lvdm.synchronise(self.device)
        return time.perf_counter() - began

    def peak_gib(self, run: Callable[[], Any]) -> float | None:
        """The most that the allocator held during a run, weights included; None on a CPU, which does not count it."""
        if self.small:
            run()
            return None
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)

    def peak_of_known_gib(self, run: Callable[[], Any]) -> float | None:
        """Return the same of a run that was timed before; a rehearsal does not make it again."""
        return None if self.small else self.peak_gib(run)

    def forget(self) -> None:
        """Give memory back before the next row."""
        gc.collect()
        torch.compiler.reset()
        if not self.small:
            torch.cuda.empty_cache()


def alternating(ways: dict[str, Callable[[], Any]], setup: Setup) -> dict[str, float]:
    """Median seconds of each way; in every round all take their turn, in both orders."""
    if not setup.small:  # a rehearsal's times mean nothing
        for way in ways.values():
            way()  # the first time is slower
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(setup.rounds):
        for name in (list(ways), list(ways)[::-1])[number % 2]:
            times[name].append(setup.seconds(ways[name]))
    return {name: statistics.median(values) for name, values in times.items()}


@torch.no_grad()
def matmul(setup: Setup) -> dict[str, Any]:
    return {"TFLOP/s": round(lvdm.matmul_peak(setup.device, setup.dtype) / 1e12, 2), "dtype": str(setup.dtype)[6:]}


# A step of each family's network: both branches of guidance


def lvdm_case(setup: Setup, height: int, width: int, *, compiled: bool = False) -> lvdm.Case:
    height, width = setup.size(height, width)
    share = 10 if setup.small else 1
    as_told = {"device": setup.device, "dtype": setup.dtype, "frames": setup.frames, "compiled": compiled}
    return lvdm.build(height, width, share=share, **as_told)


@torch.no_grad()
def dynamicrafter(setup: Setup) -> dict[str, Any]:
    """Straightforward, with fused attention only, ours, and ours compiled."""
    case = lvdm_case(setup, 320, 512, compiled=not setup.small)
    work, peak = lvdm.operations(case), lvdm.matmul_peak(setup.device, setup.dtype)

    def taken(way: lvdm.Way) -> None:
        with way.within(case):
            way.step(case)

    ways = {way.name: partial(taken, way) for way in lvdm.ways(1, compiled=not setup.small)}
    times = alternating(ways, setup)
    memory = setup.peak_of_known_gib(ways["unleak"])
    rounded = {f"s, {name}": round(seconds, 4) for name, seconds in times.items()}
    return {**rounded, "share of peak": round(work / times["unleak"] / peak, 3), "GiB": memory}


def network_row(make: Callable[[Setup], tuple[nn.Module, dict[str, Any]]], setup: Setup) -> dict[str, Any]:
    """A network eager and compiled: time of a step, peak memory, share of the matrix-multiply peak."""
    network, inputs = make(setup)
    network.eval()
    with torch.no_grad():
        with lvdm.FlopCounterMode(display=False) as counter:
            network(**inputs)
        ways: dict[str, Callable[[], Any]] = {"eager": lambda: network(**inputs)}
        if not setup.small:  # compiling takes longer than a rehearsal may
            fused = torch.compile(network)
            ways["compiled"] = lambda: fused(**inputs)
        times = alternating(ways, setup)
        memory = setup.peak_of_known_gib(ways["eager"])
        peak = lvdm.matmul_peak(setup.device, setup.dtype)
    rounded = {f"s, {name}": round(seconds, 4) for name, seconds in times.items()}
    return {**rounded, "share of peak": round(counter.get_total_flops() / times["eager"] / peak, 3), "GiB": memory}


def made(setup: Setup, cls: Any, **config: Any) -> Any:
    with torch.device(setup.device):
        return cls(**config).to(setup.dtype)


def noise(setup: Setup, *shape: int) -> Tensor:
    return torch.randn(shape, device=setup.device, dtype=setup.dtype)


def latents(setup: Setup) -> tuple[int, int]:
    height, width = setup.size(320, 512)
    return height // 8, width // 8


def videocrafter1(setup: Setup) -> tuple[nn.Module, dict[str, Any]]:
    config = lvdm.unet_config(VIDEOCRAFTER1["512"]["unet_config"]["params"])
    if setup.small:
        config |= {"model_channels": 32, "attention_head_dim": 32}
    inputs = {"sample": noise(setup, 2, 4, setup.frames, *latents(setup)), "timestep": 500}
    return made(setup, lvdm.LVDMUNet, **config), inputs | {"encoder_hidden_states": noise(setup, 2, 77 + 16, 1024)}


def svd(setup: Setup) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers import UNetSpatioTemporalConditionModel

    from unleak.families.svd.convert import UNET

    config = dict(UNET)
    if setup.small:
        config |= {"block_out_channels": (32, 32, 64, 64), "num_attention_heads": (1, 1, 2, 2)}
    sample = noise(setup, 2, setup.frames, 8, *latents(setup))
    inputs = {"sample": sample, "timestep": torch.tensor(1.6, device=setup.device)}
    inputs |= {"encoder_hidden_states": noise(setup, 2, 1, 1024), "added_time_ids": noise(setup, 2, 3)}
    return made(setup, UNetSpatioTemporalConditionModel, **config), inputs


def animate_anything(setup: Setup) -> tuple[nn.Module, dict[str, Any]]:
    from unleak.families.animate_anything.unet import AnimateAnythingUNet

    small = {"block_out_channels": (32, 64, 64, 64), "attention_head_dim": 32} if setup.small else {}
    unet = made(setup, AnimateAnythingUNet, motion_mask=True, motion_strength=True, **small)
    size = latents(setup)
    inputs = {"sample": noise(setup, 2, 4, setup.frames, *size), "timestep": 500, "mask": noise(setup, 1, 1, 1, *size)}
    inputs |= {"condition_latent": noise(setup, 2, 4, 1, *size), "motion": torch.tensor([5.0], device=setup.device)}
    return unet, inputs | {"encoder_hidden_states": noise(setup, 2, 77, 1024)}


def pia(setup: Setup) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    from unleak.families.pia.norms import use_norms

    small = {"block_out_channels": (32, 64, 64, 64)} if setup.small else {}
    with torch.device(setup.device):
        image = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, **small)
        adapter = MotionAdapter(use_motion_mid_block=False, conv_in_channels=9, **small)
        unet = UNetMotionModel.from_unet2d(image, adapter, load_weights=False)
    size = latents(setup)
    inputs = {"sample": noise(setup, 2, 9, setup.frames, *size), "timestep": 500}
    inputs["encoder_hidden_states"] = noise(setup, 2 * setup.frames, 77, 768)
    return use_norms(unet.to(setup.dtype)), inputs


# Memory, attaching, offloading


@torch.no_grad()
def large_video(setup: Setup) -> dict[str, Any]:
    """Whether a step of 1024x576, the weights and the VAE fit 16 GB."""
    case = lvdm_case(setup, 576, 1024)
    memory = setup.peak_gib(lambda: case.step(branches=2))
    decoding = setup.peak_gib(lambda: case.decode(1))
    return {"GiB, step": memory, "GiB, decoding": decoding, "bound": "16 GB"}


def nano(setup: Setup, **settings: Any) -> Any:
    import unleak

    pipe = unleak.load("nano", device=setup.device, dtype="float32", **settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def called(steps: int) -> dict[str, Any]:
    """Arguments of a call at the size that the shipped model was trained on."""
    from PIL import Image

    from unleak.zoo.registry import find_model

    defaults = find_model("nano").defaults
    width, height = defaults["width"], defaults["height"]
    size = {"height": height, "width": width, "num_frames": defaults["num_frames"]}
    image = Image.effect_noise((width, height), 90).convert("RGB")
    return {"image": image, **size, "num_inference_steps": steps, "output_type": "latent"}


def attached(setup: Setup) -> dict[str, Any]:
    """The shipped model plain, and with a lower start and every strategy that fits."""
    import unleak

    plain, fixed = nano(setup), nano(setup)
    unleak.apply(fixed, start="0.9T", init="unit", strategies=[unleak.GuidanceInterval(high="1.0T")])
    call = called(3 if setup.small else 25)
    ways = {"plain": lambda: plain(**call), "attached": lambda: fixed(**call)}
    times = alternating(ways, setup)
    return {f"s, {name}": round(seconds, 4) for name, seconds in times.items()}


def offloading(way: str, setup: Setup) -> dict[str, Any]:
    """Peak memory of a way to offload, against the estimate of `unleak doctor`."""
    from unleak.animate.memory import estimate
    from unleak.animate.sample import Settings
    from unleak.zoo.registry import find_model

    spec = find_model("nano")
    told = estimate(spec, Settings.for_model(spec), torch.float32).peak(way) / 2**30
    if setup.small:
        return {"GiB, estimate": round(told, 3), "GiB": None}
    pipe = nano(setup, offload=way)
    call = called(9) | {"output_type": "np"}
    memory = setup.peak_gib(lambda: pipe(**call))
    return {"GiB, estimate": round(told, 3), "GiB": memory}


# Training


def training(precision: str, setup: Setup, *, sharded: bool = False) -> dict[str, Any]:
    """Forward, backward and a fused AdamW step of DynamiCrafter's network, one clip."""
    case = lvdm_case(setup, 320, 512)
    unet = case.unet.float().train().requires_grad_(True)
    if sharded:
        from torch.distributed import destroy_process_group, init_process_group
        from torch.distributed.fsdp import fully_shard

        backend = "gloo" if setup.small else "nccl"
        store = torch.distributed.HashStore()
        init_process_group(backend, store=store, rank=0, world_size=1)
        fully_shard(unet)
    dtype = getattr(torch, precision)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=True)
    scaler = torch.amp.GradScaler(setup.device, enabled=dtype == torch.float16)
    sample, tokens = case.sample[:1].float(), case.tokens[:1].float()

    def step() -> None:
        with torch.autocast(setup.device, dtype):
            predicted = unet(sample, 500, tokens, return_dict=False)[0]
        scaler.scale(F.mse_loss(predicted.float(), torch.zeros_like(predicted))).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    try:
        seconds = alternating({"step": step}, setup)["step"]
        return {"s": round(seconds, 4), "GiB": setup.peak_of_known_gib(step)}
    finally:
        if sharded:
            destroy_process_group()


def nano_training(setup: Setup) -> dict[str, Any]:
    """Steps a second of the shipped network, at the batch of its recipes."""
    unet = nano(setup).unet.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    config, batch = unet.config, 2 if setup.small else 32
    side, frames = config.sample_size if isinstance(config.sample_size, int) else 16, config.num_frames
    sample = torch.randn(batch, frames, config.in_channels, side, side, device=setup.device)
    states = torch.randn(batch, 1, config.cross_attention_dim, device=setup.device)
    ids = torch.zeros(batch, 3, device=setup.device)

    def step() -> None:
        predicted = unet(sample, torch.tensor(1.0, device=setup.device), states, ids, return_dict=False)[0]
        predicted.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = alternating({"step": step}, setup)["step"]
    return {"steps/s": round(1 / seconds, 2), "batch": batch, "GiB": setup.peak_of_known_gib(step)}


ROWS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "matmul": matmul,
    "step dynamicrafter 512x320": dynamicrafter,
    "step videocrafter1 512x320": partial(network_row, videocrafter1),
    "step svd 512x320": partial(network_row, svd),
    "step animate-anything 512x320": partial(network_row, animate_anything),
    "step pia 512x320": partial(network_row, pia),
    "memory dynamicrafter 1024x576": large_video,
    "attached nano": attached,
    **{f"offload nano {way}": partial(offloading, way) for way in ("none", "model", "group", "sequential")},
    "train dynamicrafter float16": partial(training, "float16"),
    "train dynamicrafter bfloat16": partial(training, "bfloat16"),
    "train dynamicrafter bfloat16 fsdp": partial(training, "bfloat16", sharded=True),
    "train nano": nano_training,
}
