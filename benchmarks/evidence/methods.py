"""What is compared: each method makes one video for each (scene, noise)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

import unleak
from benchmarks.evidence.scenes import Law, Scene
from unleak.data.pixels import to_unit
from unleak.families.svd.view import SVDView
from unleak.families.view import Levels
from unleak.study.diagnose.oracle import Predict, euler, one_step, posterior_mean, restart
from unleak.zoo.registry import find_model

Job = tuple[Scene, int]
Videos = UInt8[np.ndarray, "n f h w 3"]
Make = Callable[[Sequence[Job]], Videos]

SIGMA_MAX = 700.0


class Model:
    """A trained model and the oracle that shares its autoencoder. Network and decoder run in bfloat16 (autocast), the
    sampler in float32: on twelve clips no camera moved by more than 0.01 px/frame otherwise."""

    def __init__(self, name: str, protocol: dict[str, Any]):
        self.protocol, self.law = protocol, Law.of(protocol)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipe = unleak.load(name).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.device = device
        self.view = SVDView(self.pipe, {"fps": 7, "motion_bucket_id": 127})
        # One law, one autoencoder: the variants share their moments.
        self.moments = unleak.AnalyticInit.from_pretrained(Path(find_model("nano").source) / "moments.safetensors")
        for part in (self.pipe.unet, self.pipe.vae.decoder):
            part.forward = in_bfloat16(part.forward, device)

    def animate(
        self,
        jobs: Sequence[Job],
        *,
        guidance: str | None = None,
        start: str = "1.0T",
        init: str = "standard",
        mode: str = "rescale",
        steps: int | None = None,
        strategies: tuple[Any, ...] = (),
    ) -> Videos:
        """The pipeline's own videos."""
        low, high = map(float, (guidance or self.protocol["guidance"]).split(":"))
        noise = self.moments if init == "analytic" else init
        with unleak.applied(self.pipe, start=start, init=noise, mode=mode, strategies=list(strategies)):
            frames = self.pipe(
                [scene.image for scene, _ in jobs],
                num_inference_steps=steps or self.protocol["steps"], min_guidance_scale=low, max_guidance_scale=high,
                decode_chunk_size=96, generator=[self.generator(*job) for job in jobs], output_type="np",
            ).frames  # fmt: skip
        return (np.asarray(frames) * 255).round().astype(np.uint8)

    def real(self, jobs: Sequence[Job], *, offset: int = 0) -> Videos:
        """Clips that move as the law draws; another `offset` draws others."""
        return np.stack([scene.videos[self.law.draw(seed_of(scene, noise) + offset)] for scene, noise in jobs])

    @torch.inference_mode()
    def reconstructed(self, jobs: Sequence[Job]) -> Videos:
        """The same through the autoencoder: the best that latents can hold."""
        return self.decode(self.encode(self.real(jobs)))

    @torch.inference_mode()
    def oracle(self, jobs: Sequence[Job], *, sigma: float = SIGMA_MAX) -> Videos:
        """Samples of the exact posterior over the law, by the pipeline's own steps and noise, from sigma."""
        predict = self.ideal([scene for scene, _ in jobs])
        return self.decode(euler(predict, (sigma**2 + 1) ** 0.5 * self.noise(jobs), self.sigmas(sigma)))

    @torch.inference_mode()
    def restarted(self, jobs: Sequence[Job], *, sigma: float, who: str, at_once: bool = False) -> Videos:
        """A clip that moves, noised to sigma, then sampled (or predicted `at_once`), without guidance, by `who`: the
        model, the model without its image, or the oracle."""
        clips = self.encode(np.stack([scene.videos[noise % 2] for scene, noise in jobs]))
        scenes = [scene for scene, _ in jobs]
        predict = (
            self.ideal(scenes) if who == "oracle" else self.network(scenes, image=who != "model without its image")
        )
        if at_once:
            return self.decode(one_step(predict, clips, sigma, self.noise(jobs)))
        return self.decode(restart(predict, clips, self.sigmas(sigma), self.noise(jobs)))

    def ideal(self, scenes: Sequence[Scene]) -> Predict:
        clips = torch.stack([self.encode(scene.videos) for scene in scenes])
        return posterior_mean(clips, torch.from_numpy(self.law.probabilities).float().to(self.device))

    def network(self, scenes: Sequence[Scene], *, image: bool) -> Predict:
        pictures = to_unit(torch.from_numpy(np.stack([scene.videos[0, 0] for scene in scenes])).to(self.device))
        condition = (self.view.encode_condition if image else self.view.without_image)(pictures)
        return lambda x_t, sigma: self.view.predict_clean(x_t, Levels(torch.ones_like(sigma), sigma), condition)

    def sigmas(self, sigma: float) -> Float[Tensor, " n"]:
        with unleak.applied(self.pipe, start=f"sigma={sigma}"):
            grid = unleak.summary(self.pipe, num_inference_steps=self.protocol["steps"]).after
        return torch.tensor(grid, device=self.device)

    def noise(self, jobs: Sequence[Job]) -> Float[Tensor, "b c f h w"]:
        eps = [torch.randn(12, 24, 8, 8, generator=self.generator(*job)) for job in jobs]
        return rearrange(torch.stack(eps), "b f c h w -> b c f h w").to(self.device)

    def encode(self, videos: Videos) -> Float[Tensor, "b c f h w"]:
        return self.view.encode_video(to_unit(torch.from_numpy(videos).to(self.device)))

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Videos:
        frames = self.pipe.decode_latents(rearrange(latents, "b c f h w -> b f c h w"), latents.shape[2], 96)
        pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte()
        return rearrange(pixels, "b c f h w -> b f h w c").cpu().numpy()

    @staticmethod
    def generator(scene: Scene, noise: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(scene, noise))


def in_bfloat16(forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            output = forward(*args, **kwargs)
        return output.float() if isinstance(output, Tensor) else tuple(o.float() for o in output)

    return cast


def seed_of(scene: Scene, noise: int) -> int:
    return 100_000 + 100 * scene.index + noise


def knob(name: str, value: Any) -> dict[str, Any]:
    """The arguments of `Model.animate` for one value of a knob."""
    match name:
        case "guidance":
            return {"guidance": value}
        case "guidance interval":
            low, high = (f"sigma={sigma}" if sigma else None for sigma in value)
            return {"strategies": (unleak.GuidanceInterval(high=high, low=low),)}
        case "condition noise":
            return {"strategies": (unleak.ConditionNoise(value),)}
        case "low-pass condition":
            return {"strategies": (unleak.LowPass(value, interval=(0.0, 0.1)),)}
        case "start":
            return {"start": f"sigma={value}"}
    raise AssertionError(name)


def label(name: str, value: Any) -> str:
    match name:
        case "guidance interval":
            low, high = value
            return f"guidance only {f'from sigma {high} down' if high else ''}{f' to {low}' if low else ''}"
        case "condition noise":
            return f"condition noise {value}"
        case "low-pass condition":
            return f"low-pass condition {value}"
    return f"{name} {value}"


def compared(protocol: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Callable[[Model], Make]]:
    """The rows of the table, in its order, for any model of the naive variant."""
    best = chosen["start"]
    rows: dict[str, Callable[[Model], Make]] = {
        "real clips": lambda model: model.real,
        "real clips, drawn again": lambda model: partial(model.real, offset=50),
        "real clips through the autoencoder": lambda model: model.reconstructed,
        "oracle": lambda model: model.oracle,
        f"oracle, start {best}": lambda model: partial(model.oracle, sigma=float(best)),
        "plain": lambda model: model.animate,
    }

    def add(name: str, **arguments: Any) -> None:
        rows[name] = lambda model: partial(model.animate, **arguments)

    add("guidance 1", guidance="1:1")
    for name, value in chosen.items():
        if name != "start" and (name, value) != ("guidance", "1:1"):  # that is the row above
            add(label(name, value), **knob(name, value))
    for sigma in protocol["starts"]:
        for init in ("standard", "unit", "analytic"):
            add(f"start {sigma}, {init}", start=f"sigma={sigma}", init=init)
    add(f"start {best}, guidance 1", start=f"sigma={best}", guidance="1:1")
    add(f"start {best}, truncate", start=f"sigma={best}", mode="truncate")
    return rows


def equal_evaluations(model: Model, sigma: float) -> int:
    """Steps of the whole schedule that leave the protocol's number of them below sigma when cut there."""
    wanted = model.protocol["steps"]
    with unleak.applied(model.pipe, start=f"sigma={sigma}", mode="truncate"):
        for steps in range(wanted, 8 * wanted):
            grid = unleak.summary(model.pipe, num_inference_steps=steps).after
            if grid is not None and len(grid) - 1 >= wanted:
                return steps
    raise AssertionError("no schedule is that long")
