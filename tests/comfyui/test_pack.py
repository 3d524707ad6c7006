"""The pack for ComfyUI: complete, self-contained, and removed without a trace."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from unleak import __version__
from unleak.cli import main
from unleak.comfyui import pack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def comfyui(tmp_path):
    """A folder that looks like ComfyUI's."""
    (tmp_path / "ComfyUI" / "custom_nodes" / "other").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "custom_nodes" / "other" / "nodes.py").write_text("mine")
    return tmp_path / "ComfyUI"


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_install_and_uninstall_leave_nothing_and_touch_nothing_else(comfyui, capsys):
    before = everything(comfyui)
    assert main(["comfyui", "install", str(comfyui)]) == 0
    assert str(comfyui / "custom_nodes" / "unleak") in capsys.readouterr().out
    assert before.items() < everything(comfyui).items()
    assert main(["comfyui", "uninstall", str(comfyui)]) == 0
    assert everything(comfyui) == before
    assert not (comfyui / "custom_nodes" / "unleak").exists()


def test_installing_again_upgrades(comfyui, monkeypatch):
    out, _ = pack.install(comfyui)
    fresh = everything(out)
    monkeypatch.setattr(pack, "pack_files", lambda: {"__init__.py": b"older", "gone.py": b"of an older pack"})
    pack.install(comfyui)
    assert (out / "gone.py").exists()
    monkeypatch.undo()
    pack.install(comfyui)
    assert everything(out) == fresh


def test_uninstall_keeps_what_it_did_not_write(comfyui, capsys):
    out, _ = pack.install(comfyui)
    (out / "mine.json").write_text("a workflow of mine")
    (out / "README.md").write_text("changed by me")
    assert main(["comfyui", "uninstall", str(comfyui)]) == 0
    assert sorted(path.name for path in out.rglob("*")) == ["README.md", "mine.json"]
    assert "mine.json" in capsys.readouterr().err


def test_python_caches_go_with_the_pack(comfyui):
    out, _ = pack.install(comfyui)
    (out / "unleak" / "core" / "__pycache__").mkdir()
    (out / "unleak" / "core" / "__pycache__" / "start.cpython-311.pyc").write_bytes(b"compiled")
    assert pack.uninstall(comfyui) == (out, [])
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["install", "nowhere"], "nowhere is no ComfyUI: it has no folder custom_nodes"),
        (["uninstall", "nowhere"], "nowhere is no ComfyUI"),
        (["uninstall", "ComfyUI"], "there is no pack of unleak in"),
        (["build", "ComfyUI"], "ComfyUI exists and is no pack of unleak"),
        (["build", "ComfyUI/custom_nodes/other/nodes.py"], "exists and is no pack of unleak"),
    ],
)
def test_a_wrong_folder_is_one_line(comfyui, monkeypatch, capsys, command, message):
    monkeypatch.chdir(comfyui.parent)
    before = everything(comfyui)
    assert main(["comfyui", *command]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert everything(comfyui) == before


@pytest.mark.parametrize("name", ["../../other/nodes.py", "/etc/passwd"])
def test_a_manifest_cannot_name_files_outside_the_pack(comfyui, name):
    out, _ = pack.install(comfyui)
    other = comfyui / "custom_nodes" / "other" / "nodes.py"
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    (out / ".unleak-pack.json").write_text(json.dumps({"unleak": "1", "files": {name: digest}}))
    with pytest.raises(ValueError, match="is damaged"):
        pack.uninstall(comfyui)
    assert other.read_text() == "mine"


def test_a_manifest_that_is_a_pipe_is_not_waited_for(comfyui):
    out, _ = pack.install(comfyui)
    (out / ".unleak-pack.json").unlink()
    os.mkfifo(out / ".unleak-pack.json")
    with pytest.raises(ValueError, match="is damaged"):
        pack.uninstall(comfyui)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "unleak"
    pack.build(out)
    return out


def test_every_import_of_the_pack_is_its_own_or_of_comfyuis_environment(built):
    allowed = {"torch", "numpy", "safetensors", "einops", "jaxtyping", "PIL", "av"}  # ComfyUI's, and the requirements
    optional = {"cv2", "scipy", "huggingface_hub"}  # inside functions only
    engine = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server"}
    for path in built.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                first = name.split(".")[0]
                known = allowed | engine | set(sys.stdlib_module_names) | (set() if id(node) in top else optional)
                assert first in known, f"{path.relative_to(built)}: {name}"


def test_the_pack_says_what_it_is(built):
    about = tomllib.loads((built / "pyproject.toml").read_text(encoding="utf-8"))
    assert about["project"]["version"] == __version__
    assert about["tool"]["comfy"].keys() >= {"PublisherId", "DisplayName"}
    wanted = [line.split(">=")[0] for line in (built / "requirements.txt").read_text().split()]
    assert wanted == ["jaxtyping", "safetensors"]
    assert [line.split(">=")[0] for line in about["project"]["dependencies"]] == wanted
    assert (built / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "custom_nodes" in (built / "README.md").read_text(encoding="utf-8")


IMPORT_ALL = """
import sys
for name in ("diffusers", "transformers", "accelerate", "peft", "unleak", "huggingface_hub"):
    sys.modules[name] = None
import importlib, pathlib
sys.path.insert(0, sys.argv[1])
pack = pathlib.Path(sys.argv[1]) / "packed"
for path in sorted((pack / "unleak").rglob("*.py")):
    name = ".".join(("packed", *path.relative_to(pack).with_suffix("").parts)).removesuffix(".__init__")
    if "comfyui.nodes" not in name:
        importlib.import_module(name)
print(len([name for name in sys.modules if name.startswith("packed")]))
"""


def test_the_pack_imports_without_diffusers_and_without_unleak(built, tmp_path):
    """Under another name, too: ComfyUI chooses the name of the module. The nodes themselves need ComfyUI."""
    package = tmp_path / "packed"
    package.symlink_to(built)
    (tmp_path / "run.py").write_text(IMPORT_ALL)
    # ComfyUI's entry needs comfy_api; the modules below it do not.
    entry = (built / "__init__.py").read_text()
    try:
        (built / "__init__.py").write_text("")
        done = subprocess.run([sys.executable, tmp_path / "run.py", tmp_path], capture_output=True, text=True)
    finally:
        (built / "__init__.py").write_text(entry)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


def test_the_sources_import_without_diffusers():
    """The same of the package itself."""
    blocked = "import sys\nfor n in ('diffusers', 'transformers', 'accelerate'): sys.modules[n] = None\n"
    modules = [
        "attention",
        "conditions",
        "gather",
        "hooks",
        "motion",
        "nano",
        "noise",
        "pack",
        "sampling",
        "strategies",
    ]
    code = blocked + "\n".join(f"import unleak.comfyui.{name}" for name in modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {path.stem for path in (ROOT / "src/unleak/comfyui").glob("*.py")}
    assert {*modules, "__init__"} == found
