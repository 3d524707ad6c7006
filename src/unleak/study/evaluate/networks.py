"""What measures beside arithmetic: an optical flow, networks of features, and other packages. Nothing is downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unleak.measure import extractors
from unleak.measure.adapters.cd_fvd import CDFVD, MODELS
from unleak.measure.adapters.package import required, weights_digest
from unleak.measure.adapters.torch_fidelity import TorchFidelity
from unleak.measure.adapters.vbench import VBench
from unleak.measure.motion import DIS
from unleak.measure.raft import Raft
from unleak.study.evaluate.videos import Tools

__all__ = ["Networks"]


@dataclass(frozen=True)
class Networks:
    """The networks and packages of an evaluation, by file or name; what is None is not used."""

    flow: str = "dis"
    """`dis`, `raft` (weights in torch's cache), or a file with the weights of RAFT."""
    features: str | None = None
    """CLIP or DINO of transformers: a folder or a Hub id."""
    i3d: Path | None = None
    """`i3d_torchscript.pt`, for FVD."""
    i3d_sha256: str | None = None
    """SHA-256 of another file in its place; its distance is then not called FVD."""
    c3d: Path | None = None
    """C3D as torchscript, for IS; a program, so `c3d_sha256` is needed."""
    c3d_sha256: str | None = None
    videomae: str | None = None
    """VideoMAE of transformers, a folder or a Hub id, for a Frechet distance."""
    cd_fvd: tuple[str, ...] = ()
    """`i3d=FILE`, `videomae=FILE`: distances by the package cd-fvd."""
    torch_fidelity: Path | None = None
    """Weights of Inception, for the metrics of single frames by the package torch-fidelity."""
    vbench: str | None = None
    """Dimensions of VBench with commas between them, by the package vbench."""
    vbench_python: Path | None = None
    """The Python of the environment that has vbench; None: this one."""

    @property
    def packaged(self) -> dict[str, Path]:
        """Return the networks of cd-fvd and their files. ValueError for what is not understood."""
        found = dict[str, Path]()
        for text in self.cd_fvd:
            model, equals, file = text.partition("=")
            if not equals or not file or model not in MODELS or model in found:
                raise ValueError(f"--cd-fvd {text}: give i3d=FILE or videomae=FILE, each once")
            found[model] = Path(file)
        return found

    def check(self, *, references: bool) -> None:
        """Raise ValueError for what is missing or does not go together. `references`: there are real videos."""
        packaged = self.packaged
        if (self.i3d or self.videomae or packaged) and not references:
            raise ValueError("a Frechet distance compares with real videos: give --reference DIR")
        if (self.c3d is None) != (self.c3d_sha256 is None):
            raise ValueError("give --c3d FILE and --c3d-sha256 together: the file is a program")
        if self.i3d_sha256 is not None and self.i3d is None:
            raise ValueError("--i3d-sha256 is the hash of the file that --i3d names; give both")
        for file in (self.i3d, self.c3d):
            if file is not None and not file.is_file():
                raise ValueError(f"{file}: no such file; give a torchscript file")
        if self.torch_fidelity is not None and not self.torch_fidelity.is_file():
            raise ValueError(f"{self.torch_fidelity}: no such file; give torch-fidelity's weights of Inception")
        if self.vbench_python is not None and self.vbench is None:
            raise ValueError("--vbench-python is for --vbench DIMENSION,...; give both")
        for file, pinned in ((self.i3d, self.i3d_sha256 or extractors.I3D_SHA256), (self.c3d, self.c3d_sha256)):
            if file is not None and pinned is not None:
                extractors.check_hash(file, pinned)

    def check_packages(self) -> None:
        """Raise ValueError if a package that is asked for is not installed, or its weights are no weights."""
        if self.cd_fvd:
            required("cdfvd.fvd", "cd-fvd")
        if self.torch_fidelity is not None:
            TorchFidelity(self.torch_fidelity)

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers, as plain values: names, and hashes of files."""
        return {
            "flow": self.flow,
            "features": self.features,
            "networks": {
                "i3d": None if self.i3d is None else (self.i3d_sha256 or extractors.I3D_SHA256).lower(),
                "c3d": self.c3d_sha256 and self.c3d_sha256.lower(),
                "videomae": self.videomae,
                "cd-fvd": {name: weights_digest(file) for name, file in self.packaged.items()},
            },
        }

    def tools(self, device: Any) -> Tools:
        """Load them onto `device`. ValueError if one cannot be loaded."""
        networks: dict[str, Any] = {}
        if self.i3d is not None:
            wanted = (self.i3d_sha256 or extractors.I3D_SHA256).lower()
            network = extractors.i3d(self.i3d, sha256=wanted, device=device)
            pinned = wanted == extractors.I3D_SHA256
            networks["FVD" if pinned else f"Frechet distance by {network.name}"] = network
        if self.videomae is not None:
            networks["VideoMAE Frechet distance"] = extractors.VideoMAE(self.videomae, device=device)
        if self.c3d is not None:
            assert self.c3d_sha256 is not None
            networks["IS"] = extractors.TorchScript(self.c3d, sha256=self.c3d_sha256, device=device)
        networks |= {MODELS[model]: CDFVD(model, file, device=device) for model, file in self.packaged.items()}
        seen = None if self.features is None else extractors.ImageFeatures(self.features, device=device)
        return Tools(self._flow(device), seen, networks)

    def _flow(self, device: Any) -> Any:
        if self.flow == "dis":
            return DIS()
        try:
            return Raft(None if self.flow == "raft" else self.flow, device=device)
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error

    def bench(self, device: Any) -> VBench | None:
        """VBench with the dimensions asked for. ValueError for one it does not have."""
        if self.vbench is None:
            return None
        dimensions: Sequence[str] = [one.strip() for one in self.vbench.split(",") if one.strip()]
        return VBench(dimensions, python=self.vbench_python, device=str(device))
