"""The training loop: every optimizer step is a function of (recipe, step, state), so that a run can be cut anywhere."""

import math
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from rich.console import Console
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unleak.data.atomic import check_writable, written_whole
from unleak.families.denoisers import VIEWS, denoiser_class
from unleak.train import checkpoint
from unleak.train.cache import build_cache, cache_folder
from unleak.train.config import Recipe, RecipeError, SyntheticData, differing_keys, dump_recipe, parse_recipe
from unleak.train.data import Order, StepSampler, batches, open_dataset
from unleak.train.draws import generator, key
from unleak.train.ema import EMA
from unleak.train.export import export_folder, write_adapters, write_pipeline
from unleak.train.failures import Failures
from unleak.train.log import Counter, DivergedError, Log
from unleak.train.networks import load_denoiser, named_again, trained_weights
from unleak.train.objectives import Objective, faults, objective_class
from unleak.train.optimizer import kept_by, make_optimizer
from unleak.train.readout import MotionReadout
from unleak.train.sharding import as_parts_of, own_part, shard, synchronise
from unleak.train.step import TrainingStep
from unleak.train.texts import Texts
from unleak.train.together import alone_in, lost, together
from unleak.train.validation import Validation
from unleak.zoo.registry import ModelSpec, find_model

_A_LONG_RUN = timedelta(days=30)  # one process may fill a cache, or make videos, while all others wait
_LARGE = 1_000_000_000  # weights of a text encoder that gives its place up once all captions are encoded


def train(recipe: Recipe, *, quiet: bool = False) -> Path:
    """Run `recipe`, or go on with it if its output folder holds a checkpoint, and return what it made: a folder.

    The output folder holds `pipeline/` (EMA weights) or, of adapters, `lora/`; `recipe.yaml` (every default written
    out), `log.jsonl` and `checkpoints/`. Progress goes to stderr unless `quiet`. Raises RecipeError when the recipe
    cannot be run or differs from the one that wrote the checkpoint, and DivergedError when the numbers are no longer
    finite.
    """
    with ExitStack() as opened:
        try:
            return _train(recipe, quiet, opened)
        except RuntimeError as error:
            if lost(error):
                raise ConnectionError("another process of this run has ended; what it said tells why") from error
            raise


def _train(recipe: Recipe, quiet: bool, opened: ExitStack) -> Path:
    started = time.monotonic()
    accelerator = _accelerator(recipe)
    main = accelerator.is_main_process
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet or not main)
    with together():
        spec = check(recipe)
    with together():
        if main:
            opened.enter_context(alone_in(recipe.output))
    with together():
        resumed = _resume(recipe)
    shape = shapes_of(recipe)[0]
    validation = Validation(recipe, recipe.validation, spec, shape) if recipe.validation else None
    clips = open_dataset(recipe.data)
    if hasattr(clips, "close"):
        opened.callback(clips.close)
    failures = Failures(recipe, clips, console, main=main)
    denoiser = load_denoiser(recipe)
    weights = trained_weights(recipe, denoiser)
    if resumed and not resumed.parts:
        resumed.put(weights)
    in_parts = recipe.sharding == "fsdp" and accelerator.num_processes > 1
    if in_parts:  # before anything is on the accelerator: the whole network may be too large for it
        shard(denoiser.networks.values(), accelerator.device)
        weights = named_again(denoiser, weights)
    objective = objective_class(denoiser)(recipe, denoiser)
    texts = _texts(recipe, objective, clips, accelerator, console)
    for name, part in denoiser.pipe.components.items():
        cut = in_parts and name in denoiser.networks
        idle = name in ("transformer", "transformer_2") and name not in denoiser.networks and validation is None
        if isinstance(part, nn.Module) and name != "text_encoder" and not cut and not idle:
            part.to(accelerator.device)
    dataset = _dataset(recipe, clips, objective, accelerator, console, failures)
    step = resumed.step if resumed else 0
    with together():
        if main:
            with written_whole(recipe.output / "recipe.yaml") as temporary:
                temporary.write_text(dump_recipe(recipe))
            checkpoint.sweep(recipe.output / "checkpoints")

    readout = MotionReadout(denoiser.pipe.unet, recipe.data.num_frames) if recipe.motion_readout else None
    if readout and resumed and resumed.readout:
        readout.linear.load_state_dict(resumed.readout)
    read = {f"readout.{n}": p for n, p in readout.linear.named_parameters()} if readout else {}
    for network in denoiser.networks.values():
        network.train()
    optimizer = make_optimizer(recipe, weights | read)
    ema = EMA(weights, recipe.ema_decay)
    module = accelerator.prepare_model(TrainingStep(objective, readout), evaluation_mode=in_parts)
    optimizer = accelerator.prepare_optimizer(optimizer)
    if resumed:
        _restore(resumed, weights, ema, optimizer, accelerator)
    accelerator.wait_for_everyone()

    order = Order(
        seed=recipe.seed,
        length=len(dataset),
        batch_size=recipe.batch_size,
        groups=getattr(clips, "groups", None),
    )
    sampler = StepSampler(
        order,
        steps=range(step, recipe.steps),
        accumulation=recipe.accumulation,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
    )
    feed = batches(dataset, sampler, workers=recipe.data.workers)
    with Log(recipe, accelerator, console, step) as log:
        while step < recipe.steps:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(recipe, step)
            # For layers that draw by themselves (dropout): a function of the step, like every other random number here.
            torch.manual_seed(key(recipe.seed, "layers", step, accelerator.process_index))
            for piece in range(recipe.accumulation):
                batch = _on_device(next(feed), accelerator)
                failures.add(batch.pop("failures"))
                read_clips = _clips(batch, sampler.clips(step, piece))
                generators = [generator(recipe.seed, "clip", p) for p in sampler.positions(step, piece)]
                last = piece == recipe.accumulation - 1
                if in_parts:
                    synchronise(denoiser.networks.values(), last)
                with _attention(accelerator), nullcontext() if last or in_parts else accelerator.no_sync(module):
                    tokens = texts([_caption(clips, clip) for clip in read_clips]) if texts else None
                    prepared = objective.prepare(batch, tokens, generators)
                    level, loss, misread = module(prepared, batch.get("velocity"))
                    total = loss if misread is None else loss + recipe.motion_readout * misread
                    accelerator.backward(total.mean() / recipe.accumulation)
                log.add(level, loss, misread, clips=[_name(clips, clip) for clip in read_clips], step=step + 1)
            norm = accelerator.clip_grad_norm_((weights | read).values(), recipe.clip or math.inf)
            norm = norm.full_tensor() if in_parts else norm
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            ema.update(weights, step)
            log.advance(step)

            out_of_time = _out_of_time(recipe, accelerator, started)
            if step % recipe.log_every == 0 or step == recipe.steps:
                log.write(step, lr=lr_at(recipe, step - 1), gradient_norm=norm)
            if step % recipe.checkpoint_every == 0 or step == recipe.steps or out_of_time:
                log.check(step)
                with together():
                    _check_finite(weights, step)
                if in_parts:
                    checkpoint.save_parts(
                        recipe.output / "checkpoints",
                        step,
                        recipe.model_dump(mode="json"),
                        _tensors(weights, ema, optimizer),
                        scaler=_scaler(accelerator),
                        keep=recipe.keep,
                    )
                else:
                    with together():
                        if main:
                            _save(recipe, step, weights, readout, ema, optimizer, accelerator)
            if recipe.validation and validation and (step % recipe.validation.every == 0 or step == recipe.steps):
                made = validation.make(step, denoiser, weights, ema.average, accelerator, console, in_parts=in_parts)
                with together():
                    if main:
                        validation.keep(step, made, accelerator, console)
            if out_of_time:
                break
    with together():
        if main and in_parts:
            export(recipe, export_folder(recipe))
        elif main:
            _write(recipe, denoiser, weights, ema)
    # The reducer of several processes goes before their group. What refers to the group last ends gloo's threads: the
    # reducer keeps Python's lock meanwhile, and a thread that still lets go of what it gathered waits for that lock.
    del module
    accelerator.free_memory()
    accelerator.end_training()
    return export_folder(recipe)


def export(recipe: Recipe, folder: Path) -> Path:
    """Write the EMA weights of the newest checkpoint as a pipeline folder, or the adapters; a run in progress is not
    disturbed."""
    if folder.exists() and not (folder / "recipe.yaml").exists():  # every export has one
        raise RecipeError(f"{folder} exists and is no pipeline of a training run: give --export a new folder")
    found = checkpoint.latest(recipe.output / "checkpoints")
    if found is None:
        raise RecipeError(f"no checkpoint in {recipe.output / 'checkpoints'} to export: train first")
    check_writable(folder.parent)
    loaded = checkpoint.load(found)
    denoiser = load_denoiser(recipe)
    weights = trained_weights(recipe, denoiser)
    average = loaded.ema
    if loaded.parts:
        average = {name: torch.zeros_like(weight.detach()) for name, weight in weights.items()}
        checkpoint.load_parts(loaded.parts, {"ema": average}, alone=True)
    (write_adapters if recipe.lora else write_pipeline)(denoiser, weights, average, recipe, folder)
    return folder


def lr_at(recipe: Recipe, step: int) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then constant, or down to 0 at `steps`."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    done = min(1.0, max(0, step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[recipe.schedule]
    return recipe.lr * warm * decay


def check(recipe: Recipe) -> ModelSpec:
    """Raise RecipeError for what this model, or this folder, does not allow; nothing is loaded, nothing written."""
    spec = find_model(recipe.model)
    if spec.pipeline not in VIEWS:
        known = ", ".join(VIEWS)
        raise RecipeError(f"model: {spec.name} is a {spec.pipeline}; those that can be trained are {known}")
    found = faults(recipe, denoiser_class(spec.pipeline))
    for height, width, frames in shapes_of(recipe):
        if height % spec.size_multiple or width % spec.size_multiple:
            found.append(
                f"data.size: clips of {height}x{width} pixels; this model needs multiples of {spec.size_multiple}"
            )
        if (frames - 1) % spec.frame_multiple:
            found.append(f"data.num_frames: {frames}; this model needs multiples of {spec.frame_multiple}, plus 1")
    found += [
        f"{key}: needs {package}, which is not installed; pip install {package}"
        for key, package in _packages(recipe)
        if find_spec(package) is None
    ]
    if recipe.sharding == "fsdp":
        found += _whole_only(recipe)
    made = export_folder(recipe)
    if made.exists() and checkpoint.latest(recipe.output / "checkpoints") is None:
        found.append(f"output: {made} is of another run: choose another output, or move it away")
    if found:
        raise RecipeError("\n".join(dict.fromkeys(found)))
    check_writable(recipe.output)
    return spec


def _packages(recipe: Recipe) -> list[tuple[str, str]]:
    """Key of the recipe -> the package it needs."""
    needed: list[tuple[str, str]] = [("report_to", recipe.report_to)] if recipe.report_to != "none" else []
    needed += [("optimizer: adamw8bit", "bitsandbytes")] if recipe.optimizer == "adamw8bit" else []
    needed += [("validation: its motion score", "cv2")] if recipe.validation else []
    return needed + ([("trainable: lora", "peft")] if recipe.lora else [])


def _whole_only(recipe: Recipe) -> list[str]:
    """What of a recipe cannot be done with weights in parts."""
    found = []
    if recipe.optimizer != "adamw":
        found.append(f"optimizer: {recipe.optimizer} needs whole weights; with sharding: fsdp give adamw")
    if recipe.motion_readout:
        found.append("motion_readout: needs whole weights; with sharding: fsdp leave it away")
    if recipe.experts == "both":
        found.append(
            "experts: both: the processes would wait for each other's parts of a network that not all of them use in a "
            "step; with sharding: fsdp train high and low in two runs"
        )
    return found


def shapes_of(recipe: Recipe) -> list[tuple[int, int, int]]:
    """(height, width, frames) of a recipe's clips: of each bucket, or the one."""
    data = recipe.data
    if isinstance(data, SyntheticData):
        return [(data.size, data.size, data.num_frames)]
    return data.buckets or [(*data.size, data.num_frames)]


def _accelerator(recipe: Recipe) -> Accelerator:
    AcceleratorState._reset_state()  # the precision of an earlier run in this process
    # Of two experts a step may use one: its gradients are all that there are to add up.
    unused = DistributedDataParallelKwargs(find_unused_parameters=recipe.experts == "both")
    accelerator = Accelerator(
        mixed_precision=recipe.mixed_precision,
        log_with=None if recipe.report_to == "none" else recipe.report_to,
        project_dir=recipe.output,
        # Said here, so that the environment that `accelerate launch` makes of its own settings does not say otherwise.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[unused, InitProcessGroupKwargs(timeout=_A_LONG_RUN)],
    )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RecipeError(
            f"accelerate is configured for {accelerator.distributed_type.value}: run `accelerate config` without it; "
            "for weights in parts give sharding: fsdp in the recipe"
        )
    if recipe.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise RecipeError("mixed_precision: fp16 needs an accelerator and this machine has none: use bf16 or no")
    pieces = recipe.accumulation * accelerator.num_processes
    if recipe.batch_size % pieces:
        raise RecipeError(
            f"batch_size: {recipe.batch_size} clips cannot be shared by {accelerator.num_processes} processes times "
            f"{recipe.accumulation} accumulation pieces: choose a multiple of {pieces}"
        )
    return accelerator


def _resume(recipe: Recipe) -> checkpoint.Checkpoint | None:
    folder = recipe.output / "checkpoints"
    found = checkpoint.latest(folder)
    if found is None:
        return None
    resumed = checkpoint.load(found)
    if changed := differing_keys(recipe, parse_recipe(resumed.recipe)):
        raise RecipeError(
            f"{found} was made by another recipe, differing in {', '.join(changed)}: "
            "restore these or choose another output"
        )
    return resumed


def _dataset(
    recipe: Recipe, clips: Any, objective: Objective, accelerator: Accelerator, console: Console, failures: Failures
) -> Any:
    if recipe.data.cache is None:
        return clips
    folder = cache_folder(recipe.data, clips, objective.denoiser.pipe.vae, latents=recipe.latents)
    with accelerator.main_process_first(), Counter("latent cache", console) as counter:
        return build_cache(
            folder,
            clips,
            lambda video: objective.encoded(video.to(accelerator.device)),
            progress=counter,
            failed=failures.add,
        )


def _texts(
    recipe: Recipe, objective: Objective, clips: Any, accelerator: Accelerator, console: Console
) -> Texts | None:
    if not objective.texts_needed:
        return None
    encoder = objective.denoiser.pipe.text_encoder.to(accelerator.device)
    texts = Texts(objective.denoiser.encode_text, accelerator.device)
    if recipe.data.cache is not None:
        captions = [_caption(clips, clip) for clip in range(len(clips))]
        with accelerator.main_process_first(), Counter("text cache", console) as counter:
            texts.keep(recipe.data.cache, captions, encoder, progress=counter)
        if sum(weight.numel() for weight in encoder.parameters()) > _LARGE:
            encoder.to("cpu")
    return texts


def _on_device(batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    device = accelerator.device
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _clips(batch: dict[str, Any], asked: list[int]) -> list[int]:
    """The clips of a batch: those asked for, or what took their place."""
    return [wanted if got is None else int(got) for got, wanted in zip(batch["clip"], asked, strict=True)]


def _caption(clips: Any, clip: int) -> str:
    return str(clips.caption(clip)) if hasattr(clips, "caption") else ""


def _name(clips: Any, clip: int) -> str:
    return str(clips.name(clip)) if hasattr(clips, "name") else f"clip {clip}"


def _attention(accelerator: Accelerator) -> AbstractContextManager[Any]:
    # On the CPU the backward pass of the fused attention kernel gains nothing from bfloat16. Plain matrix products do:
    # 1.27 s instead of 1.85 s for a whole step of the nano model. (In float32 the fused kernel is the faster one.)
    slow = accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()


def _out_of_time(recipe: Recipe, accelerator: Accelerator, started: float) -> bool:
    if recipe.max_hours is None:
        return False
    late = torch.tensor(float(time.monotonic() - started > recipe.max_hours * 3600), device=accelerator.device)
    # Clocks differ a little between processes, and all must stop at the same step.
    return bool(accelerator.reduce(late) > 0)


def _check_finite(weights: dict[str, nn.Parameter], step: int) -> None:
    if broken := [name for name, weight in weights.items() if not own_part(weight).isfinite().all()]:
        raise DivergedError(f"step {step}: {len(broken)} weights are not finite, among them {broken[0]}")


def _tensors(weights: dict[str, nn.Parameter], ema: EMA, optimizer: Any) -> dict[str, Any]:
    """Of weights in parts, or of whole ones, what a checkpoint in parts holds."""
    model = {name: weight.detach() for name, weight in weights.items()}
    return {"model": model, "ema": ema.average, "optimizer": kept_by(optimizer, weights)}


def _restore(
    resumed: checkpoint.Checkpoint, weights: dict[str, nn.Parameter], ema: EMA, optimizer: Any, accelerator: Accelerator
) -> None:
    """Go on from a checkpoint, whole or in parts, with weights that are whole or in parts."""
    if accelerator.scaler is not None and resumed.scaler is not None:
        accelerator.scaler.load_state_dict(resumed.scaler)
    if resumed.parts:
        checkpoint.load_parts(resumed.parts, _tensors(weights, ema, optimizer))
        return
    ema.load(resumed.ema)
    if any(isinstance(weight, DTensor) for weight in weights.values()):
        state = resumed.optimizer["state"]
        for kept, stored in zip(kept_by(optimizer, weights).values(), state.values(), strict=True):
            for name, tensor in kept.items():
                tensor.copy_(as_parts_of(tensor, stored[name]))
        return
    optimizer.load_state_dict(resumed.optimizer)


def _save(
    recipe: Recipe,
    step: int,
    weights: dict[str, nn.Parameter],
    readout: MotionReadout | None,
    ema: EMA,
    optimizer: Any,
    accelerator: Accelerator,
) -> None:
    state = checkpoint.Checkpoint(
        step,
        recipe.model_dump(mode="json"),
        {name: weight.detach() for name, weight in weights.items()},
        ema.average,
        optimizer.state_dict(),
        _scaler(accelerator),
        readout.linear.state_dict() if readout else None,
    )
    checkpoint.save(recipe.output / "checkpoints", state, keep=recipe.keep)


def _scaler(accelerator: Accelerator) -> dict[str, Any] | None:
    """What float16's loss scaling keeps."""
    return accelerator.scaler.state_dict() if accelerator.scaler is not None else None


def _write(recipe: Recipe, denoiser: Any, weights: dict[str, nn.Parameter], ema: EMA) -> None:
    write = write_adapters if recipe.lora else write_pipeline
    write(denoiser, weights, ema.average, recipe, export_folder(recipe))
