"""Train the next nano's denoiser from scratch on one or two CPU cores: hours, in steps that resume where they stopped.

    python recipes/nano/pretrain.py recipes/nano/pretrain.yaml [KEY=VALUE ...]

The recipe's keys are the fields of `Recipe`. Files that canvases.py writes while the training runs are used too.
`output`/state.safetensors holds everything (a run that finds it goes on), log.txt the course.

What makes it quicker than `unleak train` from scratch, beside the kernels of `unleak.families.nano.fast`:

- the target at every noise level is E[x_0 | x_t] over the seven motions of the canvas, under the law of which
  `prior_still` rests: at high noise it varies far less than the clip, at low noise it is the clip;
- more clips move than the law says where motion is visible (a share `still_low` rests below sigma 4, `still_high` above
  12): the target stays that of the law;
- two linear read-outs, after the first and after the middle block, have to name the motion at every position; they are
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
from canvases import CHANNELS, FRAMES, MOTIONS, NUM_FRAMES
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
from unleak.families.nano.fast import FastDenoiser
from unleak.train.optimizer import Muon

WIDTH = 2 * CHANNELS  # the noisy clip and the image pass side by side
CONTEXT = 16
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
    lr: float = 4e-3
    other_lr: float = 1e-3  # of what Muon does not take: first and last layer, norms, biases, read-outs
    warmup: int = 50
    cooldown: int = 0  # last steps, over which the rates fall to zero
    ema: float = 0.998
    ln_sigma: tuple[float, float] = (0.7, 1.6)  # mean and deviation: SVD's published law
    wide_share: float = 0.1  # log-uniform on [10, 700] instead
    prior_still: float = 0.85
    still_low: float = 0.2
    still_high: float = 0.85
    readout: float = 0.3
    dropout: float = 0.1  # of the image, for guidance
    beta_m: float = 0.0  # above 0: TimeNoise on the image, with exponent a
    a: float = 5.0
    save_seconds: float = 120.0


def denoiser() -> UNetSpatioTemporalConditionModel:
    """Return the untrained network: one level of 8x8, 7.7 M parameters; residual branches are zero."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",),
        up_block_types=("CrossAttnUpBlockSpatioTemporal",),
        block_out_channels=(WIDTH,),
        num_attention_heads=(2,),
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

    The last group normalisation would divide the amplitude of every frame away. Each of its groups of four therefore
    carries (constant, p, q, -p - q), as in the autoencoder's encoder, and a bias lifts them to where SiLU is nearly
    linear. Components are brought to the same size by their `deviation` on the way in.
    """
    first, last = (block.spatial_res_block.conv_shortcut for block in unet.up_blocks[0].resnets)
    mixed = ((deviation**2 + 1) / 2).sqrt()  # of the noisy clip, near sigma 1
    unet.conv_in.weight.zero_()
    unet.conv_in.bias.zero_()
    for i in range(CHANNELS):
        unet.conv_in.weight[i, i, 1, 1] = 1 / mixed[i]
        unet.conv_in.weight[CHANNELS + i, CHANNELS + i, 1, 1] = 1 / deviation[i]
    half = torch.eye(WIDTH) / 2
    first.weight.copy_(torch.cat([half, half], 1)[:, :, None, None])
    for parameter in (first.bias, last.weight, last.bias):
        parameter.zero_()
    gate = 1 / (1 + math.exp(-lift))
    slope, level = gate + lift * gate * (1 - gate), lift * gate
    last.bias[::4] = carrier
    norm, out = unet.conv_norm_out, unet.conv_out
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    for i in range(CHANNELS):
        group, at = i // 2 * 4, i // 2 * 4 + 1 + i % 2
        last.weight[at, CHANNELS + i], last.weight[group + 3, CHANNELS + i] = -1, 1
        norm.weight[at], norm.bias[at] = (3 * carrier**2 / 16 + 0.5) ** 0.5, carrier / 4 + lift
        out.weight[i] = 0
        out.weight[i, at, 1, 1] = deviation[i] / slope
        out.bias[i] = -deviation[i] * level / slope


class Latents:
    """Canvases of a folder of files; new files are seen within a minute."""

    def __init__(self, folder: Path):
        self.folder, self.files, self.looked = folder, {}, 0.0  # type: ignore[var-annotated]

    def draw(self, g: torch.Generator, count: int) -> Float[Tensor, "b 67 8 8 k"]:
        """Draw canvases."""
        if time.monotonic() - self.looked > 60:
            self.looked = time.monotonic()
            for path in self.folder.glob("[0-9]*.npy"):
                self.files.setdefault(path, np.load(path, mmap_mode="r"))
        if not self.files:
            raise SystemExit(f"no clips in {self.folder}: run recipes/nano/canvases.py first")
        names = sorted(self.files)
        drawn = []
        for _ in range(count):
            file = self.files[names[int(torch.randint(len(names), (), generator=g))]]
            drawn.append(torch.from_numpy(file[int(torch.randint(len(file), (), generator=g))].astype("float32")))
        return torch.stack(drawn)


def draw_sigma(g: torch.Generator, recipe: Recipe) -> Float[Tensor, " b"]:
    """Draw noise levels."""
    mean, deviation = recipe.ln_sigma
    sigma = (mean + deviation * torch.randn(recipe.batch, generator=g)).exp()
    wide = (math.log(10) + torch.rand(recipe.batch, generator=g) * math.log(70)).exp()
    return torch.where(torch.rand(recipe.batch, generator=g) < recipe.wide_share, wide, sigma).clamp(0.01, 700)


def batch(latents: Latents, g: torch.Generator, recipe: Recipe) -> tuple[Tensor, ...]:
    """Return x_t, sigma, its target, the image's latents as the network sees them, and P(motion | x_t)."""
    canvases, sigma = latents.draw(g, recipe.batch), draw_sigma(g, recipe)
    towards = ((sigma.log() - math.log(4)) / math.log(3)).clamp(0, 1)
    still = recipe.still_low + towards * (recipe.still_high - recipe.still_low)
    rests = torch.rand(recipe.batch, generator=g) < still
    motion = torch.where(rests, 0, torch.randint(1, MOTIONS, (recipe.batch,), generator=g))
    clips = canvases[:, FRAMES.flatten()].unflatten(1, FRAMES.shape)
    clip = clips[torch.arange(recipe.batch), motion]
    x = clip + sigma.view(-1, 1, 1, 1, 1) * torch.randn(clip.shape, generator=g)
    prior = torch.full((MOTIONS,), (1 - recipe.prior_still) / (MOTIONS - 1))
    prior[0] = recipe.prior_still
    distance = (x[:, None] - clips).square().sum((2, 3, 4, 5))
    posterior = (prior.log() - distance / (2 * sigma[:, None] ** 2)).softmax(1)
    target = einsum(posterior, clips, "b m, b m f h w c -> b f h w c")
    image = canvases[:, 0]
    if recipe.beta_m:
        process = VE(sigma_min=0.002, sigma_max=700.0)
        at = torch.tensor([process.fraction_of(process.level_at_sigma(float(s))) for s in sigma])
        image, _ = TimeNoise(recipe.beta_m, recipe.a)(image, at, generator=g)
    kept = torch.rand(recipe.batch, generator=g) >= recipe.dropout
    return x, sigma, target, image * kept.view(-1, 1, 1, 1), posterior


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
        self.latents = Latents(recipe.clips / "latents" / "train")
        self.unet = denoiser()
        sample = self.latents.draw(torch.Generator().manual_seed(0), 64)[:, 0]
        pass_image(self.unet, sample.flatten(0, 2).std(0))
        self.readouts = nn.ModuleList([nn.Linear(WIDTH, MOTIONS) for _ in range(2)])
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
        x, sigma, target, image, posterior = batch(self.latents, g, recipe)
        s = sigma.view(-1, 1, 1, 1, 1)
        out, features = predict(self.network, x, sigma, image)
        loss = (out - (x - (s**2 + 1) * target) / (s * (s**2 + 1).sqrt())).square().mean()
        entropy = sum(
            -(posterior[:, None, None, None] * read(F.layer_norm(h.float(), (WIDTH,))).log_softmax(-1)).sum(-1).mean()
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
