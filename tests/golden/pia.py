from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from einops import repeat
from torch import Tensor

from tests.golden.case import FORWARD, Case
from unleak.families.pia.convert import adapter_of
from unleak.families.pia.norms import use_norms
from unleak.families.pia.pipeline import assemble


def pipeline_of(case: Case) -> object:
    """The recorded checkpoint, converted: the image network's weights as the base, PIA's own as the adapter."""
    weights = case.weights()
    base = UNet2DConditionModel(**case.config["config"])
    image = {name: tensor for name, tensor in weights.items() if "motion_modules" not in name}
    image["conv_in.weight"] = image["conv_in.weight"][:, :4]
    base.load_state_dict(image)
    adapter = adapter_of(weights, base=base, **case.config["motion"])
    parts = SimpleNamespace(vae=None, text_encoder=None, tokenizer=None, unet=base)
    return assemble(parts, adapter)


@torch.no_grad()
def run_unet(case: Case) -> None:
    unet = pipeline_of(case).unet.eval()

    def predict(frames: int, t: Tensor) -> Tensor:
        text = repeat(case["in.encoder_hidden_states"], "b n d -> (b f) n d", f=frames)
        return unet(case["in.sample"][:, :, :frames], t, encoder_hidden_states=text).sample

    outputs = {"sample": (4, case["in.timesteps"]), "sample_3_frames_t481": (3, torch.tensor(481))}
    use_norms(unet, "diffusers")
    for name, inputs in outputs.items():
        with pytest.raises(AssertionError, match="of its range"):
            case.compare(name, predict(*inputs), share=100 * FORWARD)
    use_norms(unet, "pia")
    for name, inputs in outputs.items():
        case.compare(name, predict(*inputs), share=FORWARD / 10)


CASES = {"pia_unet": run_unet}
