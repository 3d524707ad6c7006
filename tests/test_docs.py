"""The examples in the documentation and in --help are what the commands take, and the site builds."""

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

import unleak
from unleak.animate.settings import presets
from unleak.cli import main
from unleak.cli.app import app
from unleak.core.start import Start
from unleak.data.video import write_video
from unleak.train.config import load_recipe
from unleak.zoo.registry import find_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^ {4}(unleak .+?)(?: {3,}.*)?$", re.MULTILINE)
EXAMPLES = sorted({line for page in PAGES for line in EXAMPLE.findall(page.read_text(encoding="utf-8"))})
COMMAND = typer.main.get_command(app)


def resolved(words):
    """The command that the words after `unleak` name, and its own words."""
    command = COMMAND
    while hasattr(command, "resolve_command") and words:
        context = command.make_context("unleak", [], resilient_parsing=True)
        _, command, words = command.resolve_command(context, list(words))
    return command, words


def commands(command, name="unleak"):
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


def options(command):
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all that the examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples/photo.jpg", "photo.jpg")
    Image.new("L", Image.open("photo.jpg").size, 255).save("mask.png")
    for name in ("shots", "photos", "clips"):
        Path(name).mkdir()
        shutil.copy("photo.jpg", f"{name}/1.jpg")
    write_video(np.zeros((60, 32, 32, 3), np.uint8), "clips/1.mp4", fps=8)
    Path("prompts.txt").write_text("a boat drifts by\n", encoding="utf-8")
    for name in ("recipes", "examples"):
        Path(name).symlink_to(ROOT / name)
    Path("my-svd").symlink_to(ROOT / "src/unleak/families/nano/weights")
    Path("ucf101").mkdir()
    Path("ucf101/list.jsonl").write_text('{"dir": "1.jpg", "text": "apply eye makeup", "id": "v_1", "seed": 0}\n')
    shutil.copy("photo.jpg", "ucf101/1.jpg")
    for name in ("beta25", "beta100", "beta700", "a5.0", "a1.0", "a0.1"):
        Path(f"runs/{name}").parent.mkdir(exist_ok=True)
        Path(f"runs/{name}").symlink_to(ROOT / "src/unleak/families/nano/weights")
    return tmp_path


def test_there_are_examples_of_every_family():
    text = " ".join(EXAMPLES)
    for name in ("svd", "dynamicrafter-512", "videocrafter1-512", "animate-anything", "pia", "wan2.1-i2v-480p"):
        assert f"--model {name} " in text


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_what_the_command_takes(line, folder, capfd):
    words = shlex.split(line)[1:]
    command, own = resolved(words)
    command.make_context(command.name, list(own))
    if command.name == "train":  # its dry run asks for the model's files
        load_recipe(Path(own[0]), [value for word, value in pairwise(own) if word == "--set"])
    elif "--dry-run" in options(command):
        before = sorted(folder.iterdir())
        assert main([*words, "--dry-run"]) == 0, capfd.readouterr().err
        assert sorted(folder.iterdir()) == before


def test_an_example_that_the_command_does_not_take_is_found(folder):
    command, own = resolved(shlex.split("generate photo.jpg --no-such-option"))
    with pytest.raises(Exception, match="no-such-option"):
        command.make_context(command.name, own)


@pytest.mark.parametrize(("name", "command"), [*commands(COMMAND)])
def test_every_command_that_a_help_text_names_exists(name, command):
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    for text in texts:
        for mention in re.findall(r"`(?:accelerate launch -m )?unleak ([^`]+)`", text):
            named, own = resolved(re.sub(r"\.\.\.", "", mention).split())
            for option in (word for word in own if word.startswith("-")):
                assert option in options(named), f"{name}: {mention}"
    known = {"--help"}.union(*(options(one) for _, one in commands(COMMAND)))
    for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", command.help or ""):
        assert word in known, f"{name}: {word}"


@pytest.mark.slow
def test_the_site_builds_and_every_link_of_it_leads_somewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site/api/index.html").read_text(encoding="utf-8")
    for name in unleak._HOME:
        assert f'id="{getattr(unleak, name).__module__}.{name}"' in reference, name
    assert "unleak generate" in (tmp_path / "site/cli/index.html").read_text(encoding="utf-8")
    assert ">Fade<" in (tmp_path / "site/extend/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.name)
def test_every_page_has_a_picture_or_a_command(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^ {4}(unleak|make) |`(unleak|python) |!\[|^```python|fill: commands", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_is_python(page):
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^\s*```.*$", text, re.MULTILINE)
    assert len(fences) % 2 == 0
    assert text.count("```") == len(fences)  # each alone on its line
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        compile(code, page.name, "exec")


def test_the_table_of_fixes_in_the_readme_is_what_the_models_recommend():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| start ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) >= 5
    for names, fix in rows:
        for name in re.findall(r"`([^`]+)`", names):
            spec = find_model(name)
            said = fix.split(" and ")[0].replace("sigma ", "sigma=")
            asked = Start.parse(spec.start) if spec.start else presets(spec)["medium"]
            if " to " in said:
                low, high = (Start.parse(one) for one in said.split(" to "))
                assert low.value <= asked.value <= high.value, name
            else:
                assert asked == Start.parse(said), name
            assert ("Analytic-Init" in fix) == (spec.init == "analytic"), name


def test_the_readme_can_be_read_at_a_glance():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120
