"""The training loop: every optimizer step is a function of (recipe, step, state), so that a run can be cut anywhere."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unleak.data.atomic import check_writable, written_whole
from unleak.data.pixels import to_unit
from unleak.families.svd.denoiser import SVDDenoiser
from unleak.train import checkpoint
from unleak.train.cache import build_cache, cache_folder
from unleak.train.config import Recipe, RecipeError, differing_keys, dump_recipe, parse_recipe
from unleak.train.data import StepSampler, batches, open_dataset
from unleak.train.draws import Draws, build_condition, draw, generator, key, sigma_distribution
from unleak.train.ema import EMA
from unleak.train.log import Counter, DivergedError, Log
from unleak.train.loss import edm_loss
from unleak.train.optimizer import make_optimizer
from unleak.train.readout import MotionReadout
from unleak.zoo import hub
from unleak.zoo.registry import find_model

_TRAINED = "StableVideoDiffusionPipeline"


def train(recipe: Recipe, *, quiet: bool = False) -> Path:
    """Run `recipe`, or go on with it if its output folder holds a checkpoint, and return the finished pipeline folder.

    The output folder holds `pipeline/` (EMA weights), `recipe.yaml` (every default written out), `log.jsonl` and
    `checkpoints/`. Progress goes to stderr unless `quiet`. Raises RecipeError when the recipe cannot be run or differs
    from the one that wrote the checkpoint, and DivergedError when the numbers are no longer finite.
    """
    started = time.monotonic()
    accelerator = _accelerator(recipe)
    console = Console(
        stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet or not accelerator.is_main_process
    )
    resumed = _resume(recipe)
    _check(recipe)
    clips = open_dataset(recipe.data)
    pipe = load_pipeline(recipe)
    pipe.to(accelerator.device)
    denoiser = SVDDenoiser(pipe)
    dataset = _dataset(recipe, clips, denoiser, accelerator, console)
    step = resumed.step if resumed else 0
    if accelerator.is_main_process:
        recipe.output.mkdir(parents=True, exist_ok=True)
        with written_whole(recipe.output / "recipe.yaml") as temporary:
            temporary.write_text(dump_recipe(recipe))
        checkpoint.sweep(recipe.output / "checkpoints")

    unet = pipe.unet
    if resumed:
        unet.load_state_dict(resumed.model)
    weights = _trainable(unet, recipe)
    readout = MotionReadout(unet, recipe.data.num_frames) if recipe.motion_readout else None
    if readout and resumed and resumed.readout:
        readout.linear.load_state_dict(resumed.readout)
    read = {f"readout.{n}": p for n, p in readout.linear.named_parameters()} if readout else {}
    optimizer = make_optimizer(recipe, weights | read)
    ema = EMA(weights, recipe.ema_decay)
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    denoiser.unet, optimizer = accelerator.prepare((readout or unet).train(), optimizer)
    if resumed:
        optimizer.load_state_dict(resumed.optimizer)
        ema.load(resumed.ema)
        if accelerator.scaler is not None and resumed.scaler is not None:
            accelerator.scaler.load_state_dict(resumed.scaler)
    accelerator.wait_for_everyone()

    sampler = StepSampler(
        seed=recipe.seed,
        length=len(dataset),
        steps=range(step, recipe.steps),
        batch_size=recipe.batch_size,
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
                batch = {name: tensor.to(accelerator.device) for name, tensor in next(feed).items()}
                generators = [generator(recipe.seed, "clip", p) for p in sampler.positions(step, piece)]
                last = piece == recipe.accumulation - 1
                with _attention(accelerator), nullcontext() if last else accelerator.no_sync(denoiser.unet):
                    sigma, loss = _losses(recipe, denoiser, batch, generators)
                    total, misread = loss, None
                    if readout and readout.velocity is not None:
                        misread = (readout.velocity - batch["velocity"]).square().sum(1)
                        total = loss + recipe.motion_readout * misread
                    accelerator.backward(total.mean() / recipe.accumulation)
                log.add(sigma, loss, misread)
            norm = accelerator.clip_grad_norm_((weights | read).values(), recipe.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            ema.update(weights, step)
            log.advance(step)

            out_of_time = False
            if step % recipe.log_every == 0 or step == recipe.steps:
                log.write(step, lr=lr_at(recipe, step - 1), gradient_norm=norm)
                out_of_time = _out_of_time(recipe, accelerator, started)
            if step % recipe.checkpoint_every == 0 or step == recipe.steps or out_of_time:
                _check_finite(weights, step)
                if accelerator.is_main_process:
                    _save(recipe, step, unet, readout, ema, optimizer, accelerator)
            if out_of_time:
                break
    if accelerator.is_main_process:
        _export(pipe, ema.average, recipe, recipe.output / "pipeline")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return recipe.output / "pipeline"


def export(recipe: Recipe, folder: Path) -> Path:
    """Write the EMA weights of the newest checkpoint as a pipeline folder; a run in progress is not disturbed."""
    if folder.exists() and not (folder / "recipe.yaml").exists():  # every export has one
        raise RecipeError(f"{folder} exists and is no pipeline of a training run: give --export a new folder")
    found = checkpoint.latest(recipe.output / "checkpoints")
    if found is None:
        raise RecipeError(f"no checkpoint in {recipe.output / 'checkpoints'} to export: train first")
    check_writable(folder.parent)
    average = checkpoint.load(found).ema
    _export(load_pipeline(recipe), average, recipe, folder)
    return folder


def lr_at(recipe: Recipe, step: int) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then constant, or down to 0 at `steps`."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    done = min(1.0, max(0, step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[recipe.schedule]
    return recipe.lr * warm * decay


def load_pipeline(recipe: Recipe) -> Any:
    """The recipe's pipeline in float32, frozen; with `init: random` the UNet is drawn from its config and the seed."""
    pipe = hub.load(recipe.model, dtype=torch.float32, device="cpu")
    if recipe.init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(recipe.seed, "init"))
            pipe.unet = type(pipe.unet).from_config(pipe.unet.config)
    for module in (pipe.vae, pipe.image_encoder, pipe.unet):
        module.requires_grad_(False)
    return pipe


def _losses(
    recipe: Recipe, denoiser: SVDDenoiser, batch: dict[str, Tensor], generators: list[torch.Generator]
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """sigma and loss of every clip of a batch."""
    if "latents" in batch:
        x_0, first_frame = batch["latents"], batch["first_frame"]
    else:
        x_0, first_frame = denoiser.encode_video(to_unit(batch["video"])), batch["video"][:, 0]
    image = to_unit(first_frame)
    draws: Draws = draw(
        recipe.condition,
        sigma_distribution(recipe.sigma),
        generators,
        latent_shape=x_0.shape[1:],
        image_shape=image.shape[1:],
    ).to(x_0.device)
    if draws.pixel_noise is None:
        # The VAE encodes every frame on its own, so the clean image's latent is that of frame 0.
        raw = x_0[:, :, 0] / denoiser.scaling_factor
    else:
        raw = denoiser.encode_raw(image + draws.pixel_noise)
    condition = build_condition(
        raw, denoiser.embed_image(image), fps=batch["fps"], motion_bucket_id=batch["motion_bucket_id"], draws=draws
    )

    def predict(x_t: Tensor, sigma: Tensor) -> Tensor:
        return denoiser.predict_clean(x_t, sigma, condition)

    return draws.sigma, edm_loss(predict, x_0, draws.eps, draws.sigma, sigma_data=recipe.sigma.sigma_data)


def _accelerator(recipe: Recipe) -> Accelerator:
    accelerator = Accelerator(
        mixed_precision=recipe.mixed_precision,
        log_with=None if recipe.report_to == "none" else recipe.report_to,
        project_dir=recipe.output,
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


def _check(recipe: Recipe) -> None:
    """Raise RecipeError for what this model, or this folder, does not allow; nothing is loaded, nothing written."""
    spec, faults = find_model(recipe.model), []
    if spec.pipeline != _TRAINED:
        faults.append(f"model: {spec.name} is a {spec.pipeline}; a {_TRAINED} can be trained")
    size = recipe.data.size
    height, width = (size, size) if isinstance(size, int) else size
    if height % spec.size_multiple or width % spec.size_multiple:
        faults.append(
            f"data.size: clips of {height}x{width} pixels; this model needs multiples of {spec.size_multiple}"
        )
    if (recipe.output / "pipeline").exists() and checkpoint.latest(recipe.output / "checkpoints") is None:
        faults.append(f"output: {recipe.output / 'pipeline'} is of another run: choose another output, or move it away")
    if faults:
        raise RecipeError("\n".join(faults))
    check_writable(recipe.output)


def _dataset(recipe: Recipe, dataset: Any, denoiser: SVDDenoiser, accelerator: Accelerator, console: Console) -> Any:
    for reason in getattr(dataset, "failures", {}).values():
        console.print(f"skipped: {reason}")
    if recipe.data.cache is None:
        return dataset
    folder = cache_folder(recipe.data, dataset, denoiser.pipe.vae)
    with accelerator.main_process_first(), Counter("latent cache", console) as counter:
        return build_cache(folder, dataset, denoiser.encode_video, progress=counter)


def _trainable(unet: torch.nn.Module, recipe: Recipe) -> dict[str, torch.nn.Parameter]:
    patterns = ["*"] if recipe.trainable == "all" else recipe.trainable
    weights = {n: p for n, p in unet.named_parameters() if any(fnmatch(n, pattern) for pattern in patterns)}
    if not weights:
        example = next(name for name, _ in unet.named_parameters())
        raise RecipeError(f"trainable: no parameter of the UNet matches {', '.join(patterns)}; one is {example}")
    for parameter in weights.values():
        parameter.requires_grad_(True)
    return weights


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


def _check_finite(weights: dict[str, torch.nn.Parameter], step: int) -> None:
    if broken := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise DivergedError(f"step {step}: {len(broken)} weights are not finite, among them {broken[0]}")


def _save(
    recipe: Recipe,
    step: int,
    unet: torch.nn.Module,
    readout: MotionReadout | None,
    ema: EMA,
    optimizer: Any,
    accelerator: Accelerator,
) -> None:
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    state = checkpoint.Checkpoint(
        step,
        recipe.model_dump(mode="json"),
        unet.state_dict(),
        ema.average,
        optimizer.state_dict(),
        scaler,
        readout.linear.state_dict() if readout else None,
    )
    checkpoint.save(recipe.output / "checkpoints", state, keep=recipe.keep)


def _export(pipe: Any, average: dict[str, Tensor], recipe: Recipe, folder: Path) -> None:
    state = pipe.unet.state_dict()
    pipe.unet.load_state_dict({**state, **{name: t.to(state[name]) for name, t in average.items()}})
    pipe.unet.eval()
    with checkpoint.published(folder) as partial:
        with hub.quiet():
            if recipe.dtype == "fp16":
                pipe.to(torch.float16)
            pipe.save_pretrained(partial)
        index = partial / "model_index.json"
        # Without torchvision, transformers names a fallback class here that one with torchvision may not have.
        index.write_text(index.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor"))
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))
