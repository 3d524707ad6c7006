"""Every parser with random and hostile input: a value, or one line for a person; nothing else, and not for long.

Each target begins with the inputs that once broke it or its kin, and goes on with what hypothesis finds.
"""

import json
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from unleak.animate.request import Guidance
from unleak.attach.strategies.registry import parse_fix
from unleak.cli.errors import describe_error, one_line
from unleak.cli.options import to_fix, to_guidance, to_lora, to_size, to_start, to_starts
from unleak.cli.streams import printable
from unleak.core.moments import LatentMoments
from unleak.core.start import Start
from unleak.data.image import load_image
from unleak.data.lists import read_list, read_prompts
from unleak.data.reading import Record, parse_json
from unleak.data.sources import listed_videos, webvid_videos
from unleak.data.video import read_video, write_video
from unleak.stats.progress import Progress
from unleak.stats.shards import Part, Shard
from unleak.study.compare.cases import Case
from unleak.study.sweep import parse_starts
from unleak.train.config import load_recipe
from unleak.zoo.configuration import check_configuration
from unleak.zoo.safety import check_index, unpack
from unleak.zoo.source import Source

pytestmark = pytest.mark.slow

EACH = settings(
    max_examples=100,
    deadline=timedelta(seconds=30),
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

HOSTILE = [
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\ud800",
    "a\u2028b",
    "\u202e",
    "-0",
    "0x10",
    "1e999",
    "-1e999",
    "nan",
    "inf",
    "1_000",
    "٣",
    "²",
    "1" * 5000,
    "0." + "0" * 5000 + "1",
    "[" * 100_000,
    "{" * 100_000,
    '{"a":' * 5000,
    "," * 1000,
    ":" * 1000,
    "..",
    "../../etc/passwd",
    "=" * 100,
    "sigma=",
    "sigma=nan",
    "0.94T" * 100,
    "T",
    "1T",
    "99999999999999999999",
    "1:2:3",
    "1x1x1",
    "x",
    "%s%n",
    "{0}",
    "\\",
    "'",
    '"',
]

NUMBERS = st.one_of(
    st.floats(), st.integers(), st.sampled_from([0, -1, True, 10**30, 3_000_000, 100_000, "700", 1e-320, float("nan")])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.sampled_from(HOSTILE[:20]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def holds(parser, *arguments, lines=1):
    """Call a parser, which gives a value or says in one line (a recipe: in one for each fault) what is wrong."""
    try:
        parser(*arguments)
    except (ValueError, OSError) as error:
        for text in describe_error(error).splitlines() if lines > 1 else [describe_error(error)]:
            shown = one_line(text)
            assert shown
            assert len(shown) < 3000
            assert "\n" not in shown


WORDS = {
    "start": Start.parse,
    "to_start": to_start,
    "starts": to_starts,
    "parse_starts": parse_starts,
    "size": to_size,
    "guidance": to_guidance,
    "Guidance": Guidance.parse,
    "lora": to_lora,
    "fix": parse_fix,
    "to_fix": to_fix,
    "shard": Shard.parse,
    "case": Case.parse,
}


@pytest.mark.parametrize("name", WORDS)
def test_words_of_the_command_line(name):
    for text in HOSTILE:
        holds(WORDS[name], text)

    @seed(0)
    @EACH
    @given(st.text(max_size=60) | st.from_regex(r"[a-z-]{0,9}[=:]?[-0-9.eTx:]{0,12}", fullmatch=True))
    def fuzz(text):
        holds(WORDS[name], text)

    fuzz()


class Made(Record):
    name: str
    level: float = 0.0
    parts: list[dict[str, int]] | None = None


def test_json():
    for text in HOSTILE:
        holds(parse_json, text, Made, "made.json")

    @seed(0)
    @EACH
    @given(VALUES | st.fixed_dictionaries({"name": VALUES, "level": VALUES, "parts": VALUES}))
    def fuzz(values):
        holds(parse_json, json.dumps(values), Made, "made.json")
        holds(Part.parse, values, "made.json")

    fuzz()


ROW = st.dictionaries(
    st.sampled_from(["dir", "image", "path", "text", "mask", "id", "seed", "video", "caption", "duration", "videoid"]),
    VALUES | st.sampled_from(["1.png", "PT1H", "PT" + "9" * 300 + "H"]),
    max_size=5,
)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_lists(tmp_path, suffix):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    path = tmp_path / f"list.{suffix}"

    def read(content):
        path.write_bytes(content)
        holds(read_list, path)
        holds(listed_videos, path)
        holds(webvid_videos, path, tmp_path)
        holds(read_prompts, path, 2)

    for text in HOSTILE:
        for line in (text, f"path,text\n{text}", f'{{"path": {text}}}', f'path\n"{text}', f"videoid,path\n{text},1"):
            read(line.encode("utf-8", "surrogatepass"))
    read(b"\xff\xfe" + "path\n1.png".encode("utf-16-le"))

    @seed(0)
    @EACH
    @given(
        st.binary(max_size=200) | st.lists(ROW, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    )
    def fuzz(content):
        read(content)

    fuzz()


def test_recipes(tmp_path):
    path = tmp_path / "recipe.yaml"

    def read(content):
        path.write_bytes(content)
        holds(load_recipe, path, lines=60)

    for text in HOSTILE:
        read(text.encode("utf-8", "surrogatepass"))
        holds(load_recipe, path, [f"lr={text}", text], lines=60)
    read(b"a: &a [*a]")
    read(b"? {a: b}\n: c")
    read(b"!!python/object/apply:os.system [ls]")
    read(b"data: !!int many")

    keys = st.sampled_from(["model", "data", "condition", "steps", "lr", "sigma", "output", "seed", "optimizer"])

    @seed(0)
    @EACH
    @given(st.dictionaries(keys, VALUES, max_size=5).map(lambda values: json.dumps(values).encode()) | st.binary())
    def fuzz(content):
        read(content)

    fuzz()


def test_configurations(tmp_path):
    path = tmp_path / "config.json"
    names = ["layers_per_block", "block_out_channels", "num_train_timesteps", "sigma_max", "scaling_factor", "shift"]

    def read(content):
        path.write_bytes(content)
        holds(Source(str(tmp_path)).read, "config.json")

    for text in HOSTILE:
        read(text.encode("utf-8", "surrogatepass"))

    @seed(0)
    @EACH
    @given(st.dictionaries(st.sampled_from(names) | st.text(max_size=8), VALUES, max_size=5))
    def fuzz(values):
        holds(check_configuration, values, "config.json")
        holds(check_index, values, "model_index.json")
        read(json.dumps(values).encode())

    fuzz()


def damaged(whole):
    """Files that begin as a good one and are cut, doubled, or spoilt in a few places."""

    def spoil(cut, places, noise):
        content = bytearray(whole[: int(cut * len(whole))] if cut < 0.8 else whole)
        for place, byte in places:
            if content:
                content[int(place * len(content)) % len(content)] = byte
        return bytes(content) + noise

    shares = st.floats(0, 1)
    return st.builds(spoil, shares, st.lists(st.tuples(shares, st.integers(0, 255)), max_size=6), st.binary(max_size=8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif", "bmp", "jp2"])
def test_photos(tmp_path, suffix):
    Image.effect_noise((20, 12), 90).convert("RGB").save(tmp_path / f"whole.{suffix}")
    path = tmp_path / f"photo.{suffix}"

    @seed(0)
    @settings(EACH, max_examples=40)
    @given(damaged((tmp_path / f"whole.{suffix}").read_bytes()))
    def fuzz(content):
        path.write_bytes(content)
        holds(load_image, path)

    fuzz()


def test_videos(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    whole = write_video(frames, tmp_path / "whole.mp4", fps=5).read_bytes()
    path = tmp_path / "video.mp4"

    @seed(0)
    @settings(EACH, max_examples=60)
    @given(damaged(whole))
    def fuzz(content):
        path.write_bytes(content)
        holds(lambda: read_video(path, num_frames=2, fps=5.0, size=(8, 8)))

    fuzz()


def test_moments_and_progress(tmp_path):
    about = {"unleak_moments": json.dumps({"version": 1, "layout": "c f h w", "count": 2})}
    tensors = {"mean": torch.zeros(1, 1, 2, 2).double(), "mean_square": torch.ones(1, 1, 2, 2).double()}
    save_file(tensors, tmp_path / "whole.safetensors", about)
    path = tmp_path / "m.safetensors"

    def read(content):
        path.write_bytes(content)
        holds(LatentMoments.load, path)
        holds(Progress.load, path, {})

    for text in HOSTILE:
        for name in ("unleak_moments", "unleak_progress"):
            save_file(tensors, path, {name: text.encode("utf-8", "replace").decode()})
            read(path.read_bytes())

    @seed(0)
    @settings(EACH, max_examples=60)
    @given(damaged((tmp_path / "whole.safetensors").read_bytes()) | st.binary(max_size=64))
    def fuzz(content):
        read(content)

    fuzz()


def test_archives(tmp_path):
    import tarfile

    (tmp_path / "a").write_bytes(b"x" * 100)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "model/a")
    path = tmp_path / "in/archive.tar"
    path.parent.mkdir()

    @seed(0)
    @settings(EACH, max_examples=60)
    @given(damaged((tmp_path / "whole.tar.gz").read_bytes()))
    def fuzz(content):
        path.write_bytes(content)
        holds(unpack, path, tmp_path / "out")

    fuzz()
    assert {*os.listdir(tmp_path)} <= {"a", "whole.tar.gz", "in", "out"}


def test_what_is_said_can_be_shown():
    @seed(0)
    @EACH
    @given(st.text())
    def fuzz(text):
        shown = printable(text)
        assert not set(shown) & {"\x1b", "\n", "\r", "\x9b", "\u202e"}
        shown.encode()

    fuzz()
    assert printable(str(Path("a\x1b"))) == "a\\x1b"
