"""Train the next nano's denoiser from scratch on one or two CPU cores: hours, in steps that resume where they stopped.

    python recipes/nano/pretrain.py recipes/nano/pretrain.yaml [KEY=VALUE ...]

The recipe's keys are the fields of `Recipe`.
`output`/state.safetensors holds everything (a run that finds it goes on), log.txt the course.

What makes it quicker than `unleak train` from scratch, beside the kernels of `unleak.families.nano.fast`:

- the target at every noise level is E[x_0 | x_t] over the nine motions of the canvas, under the law of which
  `prior_still` rests: at high noise it varies far less than the clip, at low noise it is the clip;
- more clips move than the law says where motion is visible (a share `still_low` rests below sigma 4, `still_high` above
  12): the target stays that of the law;
- two linear read-outs, before and after the middle block, have to name the motion at every position; they are
  thrown away;
- the network begins as a linear map that hands the image through (`pass_image`), so that copying need not be learned.
"""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from canvases import CHANNELS, MOTIONS, NUM_FRAMES, SIZE, clips, load_code
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from einops import einsum
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unleak.core.process import VE
from unleak.core.timenoise import TimeNoise
from unleak.data.atomic import written_whole
from unleak.families.nano.autoencoder import PATCH
from unleak.families.nano.fast import FastDenoiser
from unleak.families.nano.parts import CONTEXT
from unleak.train.optimizer import Muon

WIDTHS = (
    96,
    128,
)  # of the 16x16 and the 8x8 grid; 96 is three for each of the 32 groups of a normalisation: see pass_image
TIME_IDS = (6.0, 127.0, 0.0)  # fps, motion bucket, augmentation noise: constant, so that they tell nothing


class Recipe(BaseModel):
    """What one training is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clips: Path
    output: Path
    start: Path | None = None  # a state.safetensors to begin from, with its optimizer
    batch: int = 8
    steps: int = 20_000
    seed: int = 0
    lr: float = 1.5e-3
    other_lr: float = 7.5e-4  # of what Muon does not take: first and last layer, norms, biases, read-outs
    warmup: int = 50
    cooldown: int = 0  # last steps, over which the rates fall to zero
    ema: float = 0.998
    ln_sigma: tuple[float, float] = (0.7, 1.6)  # mean and deviation: SVD's published law
    wide_share: float = 0.1  # log-uniform on [10, 700] instead
    prior_still: float = 0.85
    still_low: float = 0.2
    still_high: float = 0.85
    readout: float = 0.3
    dropout: float = 0.06  # of the image, for guidance
    beta_m: float = 0.0  # above 0: TimeNoise on the image, with exponent a
    a: float = 5.0
    save_seconds: float = 300.0


def denoiser() -> UNetSpatioTemporalConditionModel:
    """Return the untrained network: convolutions on 16x16 cells, transformers on 8x8; residual branches are zero."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=SIZE // PATCH,
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=WIDTHS,
        num_attention_heads=(2, 2),
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=NUM_FRAMES,
    )
    for name, module in unet.named_modules():
        if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
            _zero(module.conv2)
        elif isinstance(module, TransformerSpatioTemporalModel):
            _zero(module.proj_out)
        elif name.endswith("attn2"):  # the image's embedding tells nothing that its latents do not
            _zero(module.to_v)
    return unet


def _zero(layer: Any) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def pass_image(unet: Any, deviation: Float[Tensor, " k"], *, lift: float = 2.0, carrier: float = 6.0) -> None:
    """Make the untrained network say x_0 = image at high noise: F = -image, through all levels.

    The last group normalisation would divide the amplitude of every frame away. The first `CHANNELS` of its groups of
    three therefore carry (constant, p, -p): the constant dwarfs p, a bias lifts both to where SiLU is nearly linear,
    and the last convolution takes their difference. Components are brought to the same size by their `deviation` on the
    way in.
    """
    first, last = (block.spatial_res_block.conv_shortcut for block in unet.up_blocks[-1].resnets)
    mixed = ((deviation**2 + 1) / 2).sqrt()  # of the noisy clip, near sigma 1
    unet.conv_in.weight[: 2 * CHANNELS].zero_()
    unet.conv_in.bias.zero_()
    for i in range(CHANNELS):
        unet.conv_in.weight[i, i, 1, 1] = 1 / mixed[i]
        unet.conv_in.weight[CHANNELS + i, CHANNELS + i, 1, 1] = 1 / deviation[i]
    fine, coarse = WIDTHS
    first.weight.zero_()
    first.weight[:, coarse:, 0, 0] = torch.eye(fine)
    first.bias.zero_()
    last.weight[: 3 * CHANNELS].zero_()
    last.bias.zero_()
    gate = 1 / (1 + math.exp(-lift))
    slope = gate + lift * gate * (1 - gate)
    norm, out = unet.conv_norm_out, unet.conv_out
    for tensor in (out.weight, out.bias, norm.bias):
        tensor.zero_()
    norm.weight.fill_(1.0)
    spread = (2 * carrier**2 / 9 + 2 / 3) ** 0.5
    for i in range(CHANNELS):
        constant, plus, minus = 3 * i, 3 * i + 1, 3 * i + 2
        last.bias[constant] = carrier
        for image in (CHANNELS + i, fine + CHANNELS + i):
            last.weight[plus, image], last.weight[minus, image] = 0.5, -0.5
        norm.weight[[plus, minus]], norm.bias[[plus, minus]] = spread, carrier / 3 + lift
        out.weight[i, plus, 1, 1], out.weight[i, minus, 1, 1] = -deviation[i] / (2 * slope), deviation[i] / (2 * slope)


class Clips:
    """Draws the clips of canvases; with `varied`, mirrored and turned."""

    def __init__(self, folder: Path, split: str = "train"):
        self.code, self.varied = load_code(folder), split == "train"
        files = sorted((folder / "canvases" / split).glob("[0-9]*.npy"))
        if not files:
            raise SystemExit(f"no canvases in {folder / 'canvases' / split}: run recipes/nano/canvases.py first")
        self.files = [np.load(path, mmap_mode="r") for path in files]

    def draw(self, g: torch.Generator, count: int) -> Float[Tensor, "b 9 12 16 16 k"]:
        """Draw the nine clips of each of `count` canvases."""
        drawn = []
        for _ in range(count):
            file = self.files[int(torch.randint(len(self.files), (), generator=g))]
            canvas = torch.from_numpy(file[int(torch.randint(len(file), (), generator=g))].copy())
            if self.varied:
                mirrored, flipped, turned = (torch.rand(3, generator=g) < torch.tensor([0.5, 0.2, 0.2])).tolist()
                canvas = canvas.flip([d for d, yes in ((2, mirrored), (1, flipped)) if yes])
                canvas = canvas.transpose(1, 2) if turned else canvas
            drawn.append(canvas)
        return clips(self.code, torch.stack(drawn).float() / 127.5 - 1)


def draw_sigma(g: torch.Generator, recipe: Recipe) -> Float[Tensor, " b"]:
    """Draw noise levels."""
    mean, deviation = recipe.ln_sigma
    sigma = (mean + deviation * torch.randn(recipe.batch, generator=g)).exp()
    wide = (math.log(10) + torch.rand(recipe.batch, generator=g) * math.log(70)).exp()
    return torch.where(torch.rand(recipe.batch, generator=g) < recipe.wide_share, wide, sigma).clamp(0.01, 700)


def batch(source: Clips, g: torch.Generator, recipe: Recipe) -> tuple[Tensor, ...]:
    """Return x_t, sigma, its target, the image's latents as the network sees them, and P(motion | x_t)."""
    every, sigma = source.draw(g, recipe.batch), draw_sigma(g, recipe)
    towards = ((sigma.log() - math.log(4)) / math.log(3)).clamp(0, 1)
    still = recipe.still_low + towards * (recipe.still_high - recipe.still_low)
    rests = torch.rand(recipe.batch, generator=g) < still
    motion = torch.where(rests, 0, torch.randint(1, len(MOTIONS), (recipe.batch,), generator=g))
    clip = every[torch.arange(recipe.batch), motion]
    x = clip + sigma.view(-1, 1, 1, 1, 1) * torch.randn(clip.shape, generator=g)
    posterior, target = oracle(x, sigma, every, recipe.prior_still)
    image = every[:, 0, 0]
    if recipe.beta_m:
        process = VE(sigma_min=0.002, sigma_max=700.0)
        at = torch.tensor([process.fraction_of(process.level_at_sigma(float(s))) for s in sigma])
        image, _ = TimeNoise(recipe.beta_m, recipe.a)(image, at, generator=g)
    kept = torch.rand(recipe.batch, generator=g) >= recipe.dropout
    return x, sigma, target, image * kept.view(-1, 1, 1, 1), posterior


def oracle(
    x: Float[Tensor, "b f h w k"],
    sigma: Float[Tensor, " b"],
    every: Float[Tensor, "b m f h w k"],
    prior_still: float,
) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b f h w k"]]:
    """Return P(motion | x_t) and E[x_0 | x_t] of a clip that is one of `every`, the first with `prior_still`."""
    prior = torch.full((every.shape[1],), (1 - prior_still) / (every.shape[1] - 1))
    prior[0] = prior_still
    distance = (x[:, None] - every).square().sum((2, 3, 4, 5))
    posterior = (prior.log() - distance / (2 * sigma[:, None] ** 2)).softmax(1)
    return posterior, einsum(posterior, every, "b m, b m f h w c -> b f h w c")


def predict(
    network: FastDenoiser, x: Float[Tensor, "b f h w c"], sigma: Float[Tensor, " b"], image: Float[Tensor, "b h w c"]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return F of the v-parametrisation, x_0 = x / (s^2 + 1) - s / sqrt(s^2 + 1) F, and the features to read out."""
    scaled = x / (sigma.view(-1, 1, 1, 1, 1) ** 2 + 1).sqrt()
    ids = torch.tensor(TIME_IDS).expand(len(x), 3)
    joined = torch.cat([scaled, image[:, None].expand_as(x)], -1)
    return network(joined, 0.25 * sigma.log(), torch.zeros(len(x), CONTEXT), ids)


class Training:
    """The network, its read-outs, its average and its optimizer."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.step = recipe, 0
        self.source = Clips(recipe.clips)
        self.unet = denoiser()
        sample = self.source.draw(torch.Generator().manual_seed(0), 64)[:, 0, 0]
        pass_image(self.unet, sample.flatten(0, 2).std(0))
        self.readouts = nn.ModuleList([nn.Linear(WIDTHS[1], len(MOTIONS)) for _ in range(2)])
        self.weights = dict(self.unet.named_parameters())
        self.weights |= {f"readout.{name}": p for name, p in self.readouts.named_parameters()}
        self.average = {name: p.detach().clone() for name, p in self.weights.items()}
        outer = ("conv_in.", "conv_out.", "readout.")
        hidden = {n: p for n, p in self.weights.items() if p.ndim >= 2 and not n.startswith(outer)}
        self.rest = [p for n, p in self.weights.items() if n not in hidden]
        self.optimizer = Muon(hidden.values(), self.rest, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.network = FastDenoiser(self.unet)

    def advance(self) -> tuple[float, float]:
        """Take one step; return the loss and the read-outs' cross-entropy (of both)."""
        recipe = self.recipe
        g = torch.Generator().manual_seed(recipe.seed * 10**7 + self.step)
        x, sigma, target, image, posterior = batch(self.source, g, recipe)
        s = sigma.view(-1, 1, 1, 1, 1)
        out, features = predict(self.network, x, sigma, image)
        loss = (out - (x - (s**2 + 1) * target) / (s * (s**2 + 1).sqrt())).square().mean()
        entropy = sum(
            -(posterior[:, None, None, None] * read(F.layer_norm(h.float(), (WIDTHS[1],))).log_softmax(-1))
            .sum(-1)
            .mean()
            for read, h in zip(self.readouts, features, strict=True)
        )
        (loss + recipe.readout * entropy).backward()
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        pace = min(1.0, (self.step + 1) / recipe.warmup)
        if recipe.cooldown:
            pace *= min(1.0, (recipe.steps - self.step) / recipe.cooldown)
        for group in self.optimizer.param_groups:
            group["lr"] = pace * (recipe.lr if group["orthogonal"] else recipe.other_lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        kept = min(recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.weights.values()], 1 - kept)
        return loss.item(), float(entropy.detach())

    def save(self, path: Path) -> None:
        """Write everything that a later run needs; `average.` is the model."""
        tensors = {f"weights.{name}": p.detach() for name, p in self.weights.items()}
        tensors |= {f"average.{name}": p for name, p in self.average.items()}
        for name, p in self.weights.items():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        with written_whole(path) as temporary:
            save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, {"step": str(self.step)})

    @torch.no_grad()
    def load(self, path: Path, *, step: int) -> None:
        """Go on from a state."""
        stored, self.step = load_file(path), step
        for name, p in self.weights.items():
            p.copy_(stored[f"weights.{name}"])
            self.average[name] = stored[f"average.{name}"]
            keys = ("step", "momentum", "exp_avg", "exp_avg_sq")
            self.optimizer.state[p] = {
                k: stored[f"optimizer.{k}.{name}"] for k in keys if f"optimizer.{k}.{name}" in stored
            }


def course(training: Training) -> Iterator[str]:
    """Train to the end; a line every 25 steps."""
    recipe, state = training.recipe, training.recipe.output / "state.safetensors"
    losses, began, saved = [], time.monotonic(), time.monotonic()
    while training.step < recipe.steps:
        losses.append(training.advance())
        if training.step % 25 == 0:
            loss, entropy = np.mean(losses[-25:], axis=0)
            seconds, began = (time.monotonic() - began) / 25, time.monotonic()
            yield f"step {training.step} loss {loss:.4f} motion {entropy:.3f} {seconds:.2f} s"
        if time.monotonic() - saved > recipe.save_seconds or training.step == recipe.steps:
            training.save(state)
            saved = time.monotonic()
    unet = denoiser()
    unet.load_state_dict({n: p for n, p in training.average.items() if not n.startswith("readout.")})
    unet.half().save_pretrained(recipe.output / "unet")
    yield f"the denoiser is {recipe.output / 'unet'}"


def main(path: Path, changes: list[str]) -> None:
    """Train what the recipe says."""
    keys = yaml.safe_load(path.read_text()) | {k: yaml.safe_load(v) for k, v in (c.split("=", 1) for c in changes)}
    recipe = Recipe(**keys)
    training, state = Training(recipe), recipe.output / "state.safetensors"
    if state.exists():
        from safetensors import safe_open

        with safe_open(state, "pt") as file:
            training.load(state, step=int(file.metadata()["step"]))
    elif recipe.start:
        training.load(recipe.start, step=0)
    recipe.output.mkdir(parents=True, exist_ok=True)
    with (recipe.output / "log.txt").open("a") as log:
        for line in course(training):
            print(line, flush=True)
            print(line, file=log, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
