"""Videos while training, from the average weights: plain and with the fixed start, and how much they move."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from unleak.animate.call import Call
from unleak.animate.noise import initial_noise
from unleak.animate.sample import NotFiniteError, sample
from unleak.animate.settings import Settings
from unleak.data.folder import find_images
from unleak.data.image import load_image
from unleak.data.video import write_video
from unleak.measure.motion import DIS, motion_score
from unleak.train.config import Recipe, ValidationConfig
from unleak.train.sharding import gather_anew, own_part
from unleak.zoo.classes import pipeline_class
from unleak.zoo.registry import ModelSpec

__all__ = ["Validation"]


class Validation:
    """Writes `validation/step-NNNNNNNN/PHOTO.plain.mp4` and `.fixed.mp4`, and a line of `validation.jsonl`.

    What cannot be asked of the model, and photos that are not there, raise at once.
    """

    def __init__(self, recipe: Recipe, config: ValidationConfig, spec: ModelSpec, shape: tuple[int, int, int]):
        self.folder, self.config = recipe.output, config
        self.photos = find_images([config.photos])[: config.most]
        height, width, num_frames = shape
        takes_text = Call.of(pipeline_class(spec.pipeline)).name("prompt") is not None
        common: dict[str, Any] = {"height": height, "width": width, "num_frames": num_frames, "seed": config.seed}
        common |= {"steps": config.steps, "prompt": config.caption if takes_text else None}
        self.settings = {
            "plain": Settings.for_model(spec, start="1.0T", init="standard", **common),
            "fixed": Settings.for_model(spec, start=config.start, **common),
        }
        self.noise = {name: initial_noise(settings, spec) for name, settings in self.settings.items()}
        self.flow = DIS()

    def make(
        self,
        step: int,
        view: Any,
        weights: Mapping[str, nn.Parameter],
        average: Mapping[str, Tensor],
        accelerator: Accelerator,
        console: Console,
        *,
        in_parts: bool = False,
    ) -> list[tuple[str, str, Any]]:
        """Make the `plain` and the `fixed` video of every photo; other processes return nothing.

        Weights in parts have to be asked for in every process, so all of them make these videos.
        """
        made = []
        if not (accelerator.is_main_process or in_parts):
            return []
        with _sampling(view, weights, average, accelerator):
            for photo in self.photos:
                image = load_image(photo)
                for name, settings in self.settings.items():
                    try:
                        frames = sample(view.pipe, image, settings, self.noise[name]).frames
                    except NotFiniteError as error:  # an early average can be far off; the run goes on
                        console.print(f"step {step}: no {name} video of {photo.name}: {error}")
                        continue
                    made.append((photo.stem, name, frames))
        return made

    def keep(
        self, step: int, made: list[tuple[str, str, Any]], accelerator: Accelerator, console: Console
    ) -> dict[str, float]:
        """Write them; mean motion per pair of frames, in pixels at 800x450, of the plain and of the fixed videos."""
        folder = self.folder / "validation" / f"step-{step:08d}"
        scores: dict[str, list[float]] = {name: [] for name in self.settings}
        for photo, name, frames in made:
            write_video(frames, folder / f"{photo}.{name}.mp4", fps=self.settings[name].fps)
            score = motion_score(frames, flow=self.flow)
            scores[name].append(score.value / len(score.per_pair))
        told = {name: sum(values) / len(values) for name, values in scores.items() if values}
        with (self.folder / "validation.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "motion": told}) + "\n")
        accelerator.log({f"motion/{name}": value for name, value in told.items()}, step=step)
        words = ", ".join(f"{name} {value:.2f}" for name, value in told.items()) or "nothing could be made"
        console.print(f"step {step}: motion of {len(self.photos)} videos, px per pair of frames: {words}")
        return told


@contextmanager
def _sampling(
    view: Any, weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor], accelerator: Accelerator
) -> Iterator[None]:
    """Make the pipeline ready to sample with the average weights; in the end all is as it was."""
    encoder = getattr(view.pipe, "text_encoder", None)
    place = None if encoder is None else next(encoder.parameters()).device
    networks = [(network, network.training) for network in view.networks.values()]
    for network, _ in networks:
        network.eval()
    if encoder is not None:
        encoder.to(accelerator.device)
    _swap(weights, average)
    view.pipe.set_progress_bar_config(disable=True)
    try:
        with torch.no_grad(), accelerator.autocast():
            yield
    finally:
        gather_anew(view.networks.values())
        _swap(weights, average)
        if encoder is not None:
            encoder.to(place)
        for network, training in networks:
            network.train(training)


@torch.no_grad()
def _swap(weights: Mapping[str, nn.Parameter], average: Mapping[str, Tensor]) -> None:
    """Exchange the two, a tensor at a time: a copy of all would double the memory."""
    for name, weight in weights.items():
        ours, others = own_part(weight.detach()), own_part(average[name])
        kept = ours.clone()
        ours.copy_(others)
        others.copy_(kept)
