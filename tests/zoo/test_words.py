"""Where CLIP's vocabulary comes from: an installed package, a folder, the Hub; at once a sentence where none has it."""

import pytest

from tests.tiny.animate_anything import tiny_animate_anything
from unleak.zoo import words
from unleak.zoo.hub import load
from unleak.zoo.words import OPENCLIP, clip_words


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(words, "installed_words", lambda: None)


def test_the_hub_is_asked_once(hub, nothing_installed):
    files = {"vocab.json": b"{}", "merges.txt": b"#", "tokenizer_config.json": b"{}", "model.safetensors": b"large"}
    hub.repositories[OPENCLIP] = files
    folder = clip_words()
    assert {path.name for path in folder.iterdir()} == files.keys() - {"model.safetensors"}
    assert not hub.store.asked


def test_without_the_hub_it_says_where_the_files_come_from(hub, nothing_installed):
    with pytest.raises(ValueError, match=r"the checkpoint holds no tokenizer, and laion/.*; give --tokenizer with"):
        clip_words()
    assert len(hub.asked) < 4


def test_a_file_or_an_installed_package_needs_no_network(hub, tmp_path, monkeypatch):
    (tmp_path / "words").touch()
    monkeypatch.setattr(words, "installed_words", lambda: tmp_path / "installed")
    assert clip_words(str(tmp_path / "words")) == tmp_path / "words"
    assert clip_words() == tmp_path / "installed"
    assert hub.asked == []


def test_a_folder_without_the_files_of_its_tokenizer_is_refused_at_load(tmp_path):
    tiny_animate_anything().save_pretrained(tmp_path / "model")
    for path in (tmp_path / "model/tokenizer").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"its tokenizer has . words and its text encoder"):
        load(tmp_path / "model")
