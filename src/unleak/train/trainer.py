"""Train a recipe: every optimizer step is a function of (recipe, step, state), so a run can be stopped anywhere."""

import math
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unleak.data.atomic import written_whole
from unleak.train import checkpoint
from unleak.train.cache import build_cache, cache_folder, check_cache
from unleak.train.check import check, shapes_of
from unleak.train.config import Recipe, RecipeError, differing_keys, dump_recipe, parse_recipe
from unleak.train.data import Order, StepSampler, batches, open_dataset
from unleak.train.draws import generator, key
from unleak.train.ema import EMA
from unleak.train.export import export, export_folder, write_run
from unleak.train.failures import Failures
from unleak.train.log import Counter, DivergedError, Log
from unleak.train.networks import load_view, trained_weights
from unleak.train.objectives import objective_class
from unleak.train.optimizer import lr_at, make_optimizer
from unleak.train.readout import MotionReadout
from unleak.train.sharding import InParts, Whole, own_part
from unleak.train.state import TrainingState
from unleak.train.step import TrainingStep
from unleak.train.stop import Stop
from unleak.train.texts import Texts
from unleak.train.together import alone_in, lost, together
from unleak.train.validation import Validation

__all__ = ["Trainer", "train"]

_A_LONG_RUN = timedelta(days=30)  # one process may fill a cache, or make videos, while all others wait
_LARGE = 1_000_000_000  # weights of a text encoder that leaves the accelerator once all captions are encoded


def train(recipe: Recipe, *, quiet: bool = False) -> Path:
    """Run `recipe`, or go on with it if its output folder holds a checkpoint, and return the folder that it made.

    The output folder gets `pipeline/` (with the average weights) or, of adapters, `lora/`; `recipe.yaml` (every default
    written out), `log.jsonl` and `checkpoints/`. Progress goes to stderr unless `quiet`. Raises RecipeError if the
    recipe cannot be run or differs from the one that wrote the checkpoint, ValueError if the checkpoint is damaged or
    does not fit the network, DivergedError when the numbers are no longer finite, and KeyboardInterrupt after Ctrl-C,
    once a checkpoint of the step is saved.
    """
    with ExitStack() as opened:
        try:
            return Trainer(recipe, opened, quiet=quiet).run()
        except RuntimeError as error:
            if lost(error):
                raise ConnectionError("another process of this run has ended; its own message says why") from error
            raise


class Trainer:
    """One run of a recipe, ready for its next step. What has to be closed in the end is put on `opened`."""

    def __init__(self, recipe: Recipe, opened: ExitStack, *, quiet: bool = False):
        self.recipe = recipe
        self.accelerator = _accelerator(recipe)
        self.main = self.accelerator.is_main_process
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet or not self.main)
        self.stop = Stop(recipe.max_hours, self.accelerator)
        with together():
            spec = check(recipe)
        with together():
            if self.main:
                opened.enter_context(alone_in(recipe.output))
        with together():
            stored = _to_resume(recipe)
        shape = shapes_of(recipe)[0]
        self.validation = Validation(recipe, recipe.validation, spec, shape) if recipe.validation else None
        self.clips = open_dataset(recipe.data)
        opened.callback(self.clips.close)
        self.failures = Failures(recipe, self.clips, self.console, main=self.main)

        self.view = load_view(recipe)
        weights = trained_weights(recipe, self.view)
        if stored:  # before what takes long; the rest is compared once there is an optimizer
            with together():
                checkpoint.compare(stored, {f"model/{name}": weight for name, weight in weights.items()})
        in_parts = recipe.sharding == "fsdp" and self.accelerator.num_processes > 1
        self.sharing = InParts(self.accelerator) if in_parts else Whole(self.accelerator)
        # Before anything is on the accelerator: the whole network may be too large for it.
        self.weights = self.sharing.cut(self.view, weights)
        self.objective = objective_class(self.view)(recipe, self.view)
        self.texts = self._make_texts()
        self._move_to_accelerator()
        self.items = self._make_items()
        self._make_state(stored)

    def run(self) -> Path:
        """Train to the last step, or until a stop is asked for, and write what was made."""
        recipe, stopped = self.recipe, False
        feed = batches(self.items, self.sampler, workers=recipe.data.workers)
        with self.stop, Log(recipe, self.accelerator, self.console, self.step) as self.log:
            while self.step < recipe.steps and not stopped:
                norm = self.train_step(feed)
                stopped = self.stop.wanted()
                last = self.step == recipe.steps
                if self.step % recipe.log_every == 0 or last:
                    self.log.write(self.step, lr=lr_at(recipe, self.step - 1), gradient_norm=norm)
                if self.step % recipe.checkpoint_every == 0 or last or stopped:
                    self.save()
                if self.validation and (self.step % self.validation.config.every == 0 or last):
                    self.validate(self.validation)
        if stopped and self.step < recipe.steps:
            self.console.print(f"stopped at step {self.step}; the same command goes on")
            self.stop.raise_if_asked()
        return self.hand_over()

    def train_step(self, feed: Any) -> Float[Tensor, ""]:
        """Take one optimizer step on the next batches of `feed`, and return the norm of its gradient."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = lr_at(recipe, self.step)
        # For layers that draw by themselves (dropout): a function of the step, like every other random number here.
        torch.manual_seed(key(recipe.seed, "layers", self.step, self.accelerator.process_index))
        for piece in range(recipe.accumulation):
            batch = _on_device(next(feed), self.accelerator)
            self.failures.add(batch.pop("failures"))
            last = piece == recipe.accumulation - 1
            with _attention(self.accelerator), self.sharing.piece(self.module, self.view.networks, last=last):
                loss = self.losses(batch, piece)
                self.accelerator.backward(loss.mean() / recipe.accumulation)
        norm = self.accelerator.clip_grad_norm_(self.state.trained.values(), recipe.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.ema.update(self.weights, self.step)
        self.log.advance(self.step)
        return self.sharing.whole(norm)

    def losses(self, batch: dict[str, Any], piece: int) -> Float[Tensor, "b"]:
        """Compute the loss of each clip of a batch, that of the motion read-out included."""
        recipe, asked = self.recipe, self.sampler.clips(self.step, piece)
        read = [wanted if got is None else int(got) for got, wanted in zip(batch["clip"], asked, strict=True)]
        generators = [generator(recipe.seed, "clip", p) for p in self.sampler.positions(self.step, piece)]
        tokens = self.texts([self.clips.caption(clip) for clip in read]) if self.texts else None
        prepared = self.objective.prepare(batch, tokens, generators)
        level, loss, misread = self.module(prepared, batch.get("velocity"))
        self.log.add(level, loss, misread, clips=[self.clips.name(clip) for clip in read], step=self.step + 1)
        return loss if misread is None else loss + recipe.motion_readout * misread

    def save(self) -> None:
        """Write a checkpoint of this step. Raises DivergedError, and writes none, if a number is not finite."""
        self.log.check(self.step)
        with together():
            _check_finite(self.weights, self.step)
        scaler = self.accelerator.scaler
        about: dict[str, Any] = {"scaler": None if scaler is None else scaler.state_dict(), "keep": self.recipe.keep}
        where, recipe = self.recipe.output / "checkpoints", self.recipe.model_dump(mode="json")
        if self.sharing.in_parts:
            checkpoint.save(where, self.step, recipe, self.state.tensors(), alone=False, **about)
            return
        with together():
            if self.main:
                checkpoint.save(where, self.step, recipe, self.state.tensors(), **about)

    def validate(self, validation: Validation) -> None:
        """Make videos from the average weights, and keep them with their motion scores."""
        made = validation.make(
            self.step,
            self.view,
            self.weights,
            self.ema.average,
            self.accelerator,
            self.console,
            in_parts=self.sharing.in_parts,
        )
        with together():
            if self.main:
                validation.keep(self.step, made, self.accelerator, self.console)

    def hand_over(self) -> Path:
        """Write the pipeline with the average weights, or the adapters, and return its folder."""
        with together():
            if self.main and self.sharing.in_parts:
                export(self.recipe, export_folder(self.recipe))
            elif self.main:
                write_run(self.view, self.weights, self.ema.average, self.recipe, export_folder(self.recipe))
        # The reducer of several processes has to go before their group. What refers to the group last ends gloo's
        # threads: the reducer holds Python's lock meanwhile, and a thread that still lets go of what it gathered waits
        # for that lock.
        del self.module
        self.accelerator.free_memory()
        self.accelerator.end_training()
        return export_folder(self.recipe)

    def _make_texts(self) -> Texts | None:
        """Return what encodes captions, with all of them encoded if the recipe keeps a cache."""
        if not self.objective.texts_needed:
            return None
        encoder = self.view.pipe.text_encoder.to(self.accelerator.device)
        texts = Texts(self.view.encode_text, self.accelerator.device)
        if self.recipe.data.cache is not None:
            captions = [self.clips.caption(clip) for clip in range(len(self.clips))]
            with self.accelerator.main_process_first(), Counter("text cache", self.console) as counter:
                texts.keep(self.recipe.data.cache, captions, encoder, progress=counter)
            if sum(weight.numel() for weight in encoder.parameters()) > _LARGE:
                encoder.to("cpu")
        return texts

    def _move_to_accelerator(self) -> None:
        for name, part in self.view.pipe.components.items():
            cut = self.sharing.in_parts and name in self.view.networks
            other_expert = name in ("transformer", "transformer_2") and name not in self.view.networks
            idle = other_expert and self.validation is None
            if isinstance(part, nn.Module) and name != "text_encoder" and not cut and not idle:
                part.to(self.accelerator.device)

    def _make_items(self) -> Any:
        """Return what batches are made of: the clips, or their latents in the cache, which is filled first."""
        if self.recipe.data.cache is None:
            return self.clips
        vae = self.view.pipe.vae
        folder = cache_folder(self.recipe.data, self.clips, vae, latents=self.recipe.latents)

        def encode(video: Tensor) -> Any:
            return self.objective.encoded(video.to(self.accelerator.device))

        with self.accelerator.main_process_first(), Counter("latent cache", self.console) as counter:
            cache = build_cache(folder, self.clips, encode, progress=counter, failed=self.failures.add)
            check_cache(folder, cache, self.clips, encode)
        return cache

    def _make_state(self, stored: checkpoint.Stored | None) -> None:
        """Make the optimizer and the average, fill them and the weights from a checkpoint, and open the output."""
        recipe, unet = self.recipe, getattr(self.view.pipe, "unet", None)
        readout = MotionReadout(unet, recipe.data.num_frames) if recipe.motion_readout else None
        read = {f"readout.{name}": p for name, p in readout.linear.named_parameters()} if readout else {}
        for network in self.view.networks.values():
            network.train()
        self.ema = EMA(self.weights, recipe.ema_decay)
        self.module = self.sharing.wrap(TrainingStep(self.objective, readout))
        optimizer = make_optimizer(recipe, self.weights | read)
        self.state = TrainingState(self.weights, self.ema, optimizer, readout)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        if stored:
            with together():
                self.state.restore(stored)
            if self.accelerator.scaler is not None and stored.scaler is not None:
                self.accelerator.scaler.load_state_dict(stored.scaler)
        self.step = stored.step if stored else 0
        with together():
            if self.main:
                with written_whole(recipe.output / "recipe.yaml") as temporary:
                    temporary.write_text(dump_recipe(recipe))
                checkpoint.sweep(recipe.output / "checkpoints")
        self.accelerator.wait_for_everyone()
        order = Order(seed=recipe.seed, length=len(self.items), batch_size=recipe.batch_size, groups=self.clips.groups)
        self.sampler = StepSampler(
            order,
            steps=range(self.step, recipe.steps),
            accumulation=recipe.accumulation,
            processes=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
        )


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


def _to_resume(recipe: Recipe) -> checkpoint.Stored | None:
    """Return the newest checkpoint of a run of the same recipe, or None if there is none."""
    stored = checkpoint.newest(recipe.output / "checkpoints")
    if stored is None:
        return None
    try:
        written = parse_recipe(stored.recipe)
    except RecipeError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{stored.path / 'state.json'}: its recipe is not one ({reason}); move it away") from error
    if changed := differing_keys(recipe, written):
        raise RecipeError(
            f"{stored.path} was made by another recipe, differing in {', '.join(changed)}: "
            "restore these or choose another output"
        )
    return stored


def _on_device(batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    device = accelerator.device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def _attention(accelerator: Accelerator) -> AbstractContextManager[Any]:
    # On the CPU the backward pass of the fused attention kernel gains nothing from bfloat16. Plain matrix products do:
    # 1.27 s instead of 1.85 s for a whole step of the nano model. (In float32 the fused kernel is the faster one.)
    slow = accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()


def _check_finite(weights: dict[str, nn.Parameter], step: int) -> None:
    if broken := [name for name, weight in weights.items() if not own_part(weight).isfinite().all()]:
        raise DivergedError(f"step {step}: {len(broken)} weights are not finite, among them {broken[0]}")
