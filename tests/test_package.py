"""The face of the package: light to import, every name there, one version."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unleak

ROOT = Path(__file__).parents[1]


def test_import_is_light():
    code = "import sys, unleak; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "unleak" in loaded
    assert not {"torch", "diffusers", "transformers", "numpy", "PIL", "av", "cv2"}.intersection(loaded)


@pytest.mark.parametrize("name", unleak.__all__)
def test_public_name_resolves(name):
    value = getattr(unleak, name)
    assert name in dir(unleak)
    assert name == "__version__" or (value.__name__ == name and value.__doc__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'unleak' has no attribute 'aply'"):
        unleak.aply  # noqa: B018


@pytest.mark.parametrize(
    ("file", "pattern"),
    [("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## (\S+)")],
)
def test_version_is_the_same_everywhere(file, pattern):
    written = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert written is not None
    assert written[1] == unleak.__version__ == importlib.metadata.version("unleak")
