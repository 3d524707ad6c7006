"""The methods: each makes one video of a scene from one noise."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unleak
from benchmarks.evidence2.scenes import Scene
from unleak.families.view import view_of
from unleak.study.diagnose.leakage import Clips, decoded, encoded, oracle, sampled
from unleak.zoo.registry import find_model


class Animator:
    """A trained model, and the oracle that shares its autoencoder and its sampler."""

    def __init__(self, name: str, protocol: dict[str, Any]):
        self.protocol = protocol
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipe = unleak.load(name).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.side = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    @cached_property
    def moments(self) -> Any:
        """Those that ship with nano: one law and one autoencoder, so the variants share them."""
        return unleak.AnalyticInit.from_pretrained(Path(find_model("nano").source) / "moments.safetensors")

    def video(self, scene: Scene, what: dict[str, Any], noise: int) -> Clips:
        match what.get("yardstick"):
            case "real":
                return scene.drawn(noise)
            case "oracle":
                return self.ideal(scene, noise)
        seed = 100_000 + 100 * scene.index + noise
        inputs = {"height": self.side, "width": self.side, "num_frames": self.protocol["num_frames"]}
        inputs |= {"num_inference_steps": self.protocol["steps"], "noise_aug_strength": 0.0}
        if "guidance" in what:
            inputs |= {"min_guidance_scale": 1.0, "max_guidance_scale": what["guidance"]}
        if "try" in what:
            return unleak.fix(self.pipe, image=scene.image, budget=what["try"], seed=seed, **inputs).frames
        init = self.moments if what.get("init") == "analytic" else "standard"
        fixes = [unleak.parse_fix(text) for text in what.get("fixes", ())]
        start, mode = what.get("start", "1.0T"), what.get("mode", "rescale")
        with unleak.applied(self.pipe, start=start, init=init, mode=mode, strategies=fixes):
            generator = torch.Generator().manual_seed(seed)
            frames = self.pipe(scene.image, generator=generator, output_type="np", **inputs).frames[0]
        return (np.asarray(frames) * 255).round().astype(np.uint8)

    @torch.inference_mode()
    def ideal(self, scene: Scene, noise: int) -> Clips:
        """A sample of the exact posterior over the law: what a model without any leak would make."""
        view = view_of(self.pipe, {})
        clips = encoded(view, scene.videos)[None]
        levels = view.levels("1.0T", self.protocol["steps"])
        generator = torch.Generator().manual_seed(100_000 + 100 * scene.index + noise)
        eps = torch.randn(clips.shape[2:], generator=generator)[None].to(clips)
        predict = oracle(view, clips, torch.from_numpy(scene.probabilities).to(clips))
        begun = float(np.hypot(levels[0].alpha, levels[0].sigma)) * eps
        return decoded(view, sampled(predict, view.add_noise, begun, levels))[0]
