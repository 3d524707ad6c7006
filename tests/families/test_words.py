"""CLIP's tokenizer: read from files, checked against a text encoder, never silently empty."""

import gzip
from itertools import product
from types import SimpleNamespace

import pytest
from transformers import CLIPTokenizer

from unleak.families import words
from unleak.families.words import check_words, installed_words, read_words

CLIP = SimpleNamespace(vocab_size=49408)


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    """OpenCLIP's merges file as far as the words of one sentence go; every other pair is of letters nobody types."""
    rare = [letter for letter in words._alphabet() if not letter.isascii()]
    fillers = product(words._alphabet(), [*rare, *(f"{letter}</w>" for letter in rare)])
    lines = [" ".join(next(fillers)) for _ in range(words._MERGES)]
    placed = {27: "o f</w>", 100: "p h", 101: "ph o", 102: "pho t", 613: "phot o</w>", 1000: "c a", 1856: "ca t</w>"}
    for place, pair in placed.items():
        lines[place] = pair
    path = tmp_path_factory.mktemp("words") / words.MERGES
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *lines, "left over", ""]).encode()))
    return path


def test_a_merges_file_makes_the_published_ids(merges, tmp_path):
    tokenizer = read_words(merges)
    check_words(tokenizer, CLIP, "it")
    assert tokenizer("A photo  of a CAT").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)
    tokenizer.save_pretrained(tmp_path / "pipeline/tokenizer")
    again = read_words(tmp_path / "pipeline")
    assert again("of a photo").input_ids == tokenizer("of a photo").input_ids


def test_an_empty_tokenizer_is_refused(tmp_path):
    empty = CLIPTokenizer()  # what transformers returns where no files can be had
    with pytest.raises(ValueError, match=r"it: its tokenizer has . words and its text encoder 49,408"):
        check_words(empty, CLIP, "it")
    with pytest.raises(ValueError, match=r"no vocab.json with merges.txt and no tokenizer.json; give --tokenizer"):
        read_words(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(merges, tmp_path):
    with pytest.raises(ValueError, match="49,408 words and its text encoder 32,128"):
        check_words(read_words(merges), SimpleNamespace(vocab_size=32128), "it")
    shuffled = gzip.decompress(merges.read_bytes()).decode().split("\n")
    shuffled[28], shuffled[29] = shuffled[29], shuffled[28]
    (tmp_path / "merges.txt").write_text("\n".join(shuffled))
    with pytest.raises(ValueError, match=r"makes .* of 'a photo of a cat', where CLIP's makes"):
        check_words(read_words(tmp_path / "merges.txt"), CLIP, "it")


@pytest.mark.parametrize("content", [b"", b"#version\nnot pairs", b"\x1f\x8bcut", b"\xff\xfe"])
def test_another_file_is_refused_in_a_line(content, tmp_path):
    (tmp_path / "words.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"words.gz: (damaged|not the bpe)") as caught:
        read_words(tmp_path / "words.gz")
    assert "\n" not in str(caught.value)


def test_the_file_of_an_installed_package_is_found_without_importing_it(merges, tmp_path, monkeypatch):
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    (package / words.MERGES).write_bytes(merges.read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_words() == package / words.MERGES
