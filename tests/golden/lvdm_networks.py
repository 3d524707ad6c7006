from typing import Any

import torch
from torch import nn

from tests.golden.case import Case
from unleak.families.lvdm.convert import from_original
from unleak.families.lvdm.original import linear_projection_config, resampler_config, unet_config
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.unet import LVDMUNet
from unleak.families.videocrafter1.projection import LinearProjection

NETWORK = 1e-5
"""Share of its range that the forward of a network may differ by; measured: below 1e-6."""


def filled(weights: dict[str, torch.Tensor], **components: nn.Module) -> None:
    """Put weights of the original's names into the components, all of them."""
    wanted = {name: {k: v.shape for k, v in module.state_dict().items()} for name, module in components.items()}
    filled, left, _ = from_original(weights, wanted)
    assert not left, f"not used: {sorted(left)}"
    for name, module in components.items():
        module.eval().load_state_dict(filled[name])


@torch.no_grad()
def run_unet(case: Case) -> None:
    unet = LVDMUNet(**unet_config(case.config["config"]))
    filled(case.weights(), unet=unet)

    def run(context: str, fps: Any = None) -> torch.Tensor:
        return unet(case["in.x"], case["in.timesteps"], case[context], fps=fps, return_dict=False)[0]

    fps = next((case[key] for key in ("in.fs", "in.fps") if key in case), None)
    runs = {
        "sample": lambda: run("in.context", fps),
        "sample_default_fs": lambda: run("in.context"),
        "sample_default_fps": lambda: run("in.context"),
        "sample_shared_context": lambda: run("in.context_shared", fps),
    }
    for output in case.outputs:
        ours = run("in.context", int(output[10:])) if output.startswith("sample_fps") else runs[output]()
        case.compare(output, ours, share=NETWORK)


@torch.no_grad()
def run_resampler(case: Case) -> None:
    resampler = Resampler(**resampler_config(case.config["config"]))
    filled(case.weights(), image_projection=resampler)
    case.compare("tokens", resampler(case["in.x"]), share=NETWORK)


@torch.no_grad()
def run_linear(case: Case) -> None:
    projection = LinearProjection(**linear_projection_config(case.config["config"]))
    filled(case.weights(), image_projection=projection)
    case.compare("tokens", projection(case["in.image_embeds"]), share=NETWORK)


CASES = {
    "dynamicrafter_unet_": run_unet,
    "dynamicrafter_resampler": run_resampler,
    "videocrafter_unet": run_unet,
    "videocrafter_resampler": run_resampler,
    "videocrafter_image_proj_linear": run_linear,
}
