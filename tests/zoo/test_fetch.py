"""Models by name from a Hub on this machine: what is asked for, compared and refused, and what goes wrong."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.zoo.conftest import TOKEN
from tests.zoo.hub_server import COMMIT, Mishap, sha256
from unleak.families.family import Family
from unleak.families.registry import register_family, unregister_family
from unleak.families.spec import File
from unleak.families.svd.models import SVD
from unleak.zoo import repository
from unleak.zoo.fetch import fetch, here

UNET = "unet/diffusion_pytorch_model.safetensors"
SPEC = replace(
    SVD,
    name="tiny",
    source="someone/tiny",
    revision=COMMIT,
    variant=None,
    defaults={"height": 16, "width": 16, "num_frames": 2, "num_inference_steps": 1},
    size_multiple=16,
    moments=None,
    moments_at={},
)


@pytest.fixture
def tiny(hub, tiny_folder):
    """A tiny SVD on that Hub, known here as `tiny`; its files by path."""
    register_family(Family("tiny", models=(SPEC,)))
    yield hub.add("someone/tiny", tiny_folder)
    unregister_family("tiny")


def silent(text):
    pass


def test_from_name_to_video_and_again_without_network(hub, tiny, tmp_path, monkeypatch, capfd):
    from unleak.cli import main

    monkeypatch.chdir(tmp_path)
    Image.effect_noise((48, 32), 90).convert("RGB").save("photo.png")
    assert main(["generate", "photo.png", "--model", "tiny", "--device", "cpu"]) == 0
    first = capfd.readouterr()
    assert first.err.count("licence: Stability AI") == 1
    assert (tmp_path / "out/photo.mp4").is_file()
    hub.stop()
    assert main(["generate", "photo.png", "--model", "tiny", "--device", "cpu", "--overwrite"]) == 0
    assert "licence: Stability AI" not in capfd.readouterr().err


def test_only_what_is_read_is_downloaded(hub, tiny):
    tiny |= {"unet/extra.bin": b"pickle", "README.md": b"hello", "unet/model.py": b"import os", "other/x.json": b"{}"}
    tiny["unet/diffusion_pytorch_model.fp16.safetensors"] = tiny[UNET]
    fetched = fetch(SPEC, wanted=lambda part: part != "vae", say=silent)
    assert not [one.path for one in hub.asked if one.path.endswith((".bin", ".py", ".md", "/x.json"))]
    assert not hub.got("vae/")
    assert not hub.got("fp16")
    assert (fetched.folder / UNET).read_bytes() == tiny[UNET]
    assert here(SPEC) == []
    assert fetch(SPEC, variant="fp16", say=silent).variant == "fp16"
    assert len(hub.got("fp16", "HEAD")) == 1
    assert here(SPEC) == [fetched.folder]


@pytest.mark.parametrize("continued", [False, True])
def test_the_token_goes_to_the_hub_alone(hub, tiny, continued, monkeypatch):
    monkeypatch.setattr(repository, "_WORTH_CONTINUING", 0 if continued else 10**9)
    fetch(SPEC, say=silent)
    assert {one.token for one in hub.asked} == {f"Bearer {TOKEN}"}
    assert {one.token for one in hub.store.asked} == {None}


@pytest.mark.parametrize(
    ("at", "mishap", "message"),
    [
        ("/api/", Mishap(401), "does not know this token"),
        ("/api/", Mishap(403, "GatedRepo"), "gated: accept its licence on the Hub, then log in here with `hf auth"),
        ("/api/", Mishap(403), "refuses it to this token"),
        ("/api/", Mishap(429), "too many requests; wait a little"),
        ("/api/", Mishap(503), "out of order (status 503)"),
        ("/api/", Mishap(404, "RevisionNotFound"), "no such revision"),
        ("model_index", Mishap(404, "EntryNotFound", method="HEAD"), "model_index.json"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tiny, at, mishap, message):
    hub.mishaps[at] = [mishap] * 20
    with pytest.raises(ValueError, match=r"someone/tiny|model tiny") as caught:
        fetch(SPEC, say=silent)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_not_there_suggests_the_nearest(hub):
    spec = replace(SPEC, source="stabilityai/stable-video-difusion-img2vid")
    with pytest.raises(ValueError, match="did you mean stabilityai/stable-video-diffusion-img2vid"):
        fetch(spec, say=silent)


def test_a_busy_hub_is_asked_again(hub, tiny):
    hub.mishaps = {"/api/": [Mishap(429), Mishap(503)], "vae/config.json": [Mishap(429, method="HEAD")]}
    assert fetch(SPEC, say=silent).folder.name == COMMIT
    assert len([one for one in hub.got("/api/") if "/tree/" not in one.path]) == 3


def test_a_slow_answer_is_asked_for_again(hub, tiny):
    hub.store.mishaps[sha256(tiny[UNET])] = [Mishap(late=1.5)]
    assert (fetch(SPEC, say=silent).folder / UNET).read_bytes() == tiny[UNET]


def test_a_broken_connection_is_resumed(hub, tiny, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    address = sha256(tiny[UNET])
    hub.store.mishaps[address] = [Mishap(keep=1000)]
    assert (fetch(SPEC, say=silent).folder / UNET).read_bytes() == tiny[UNET]
    assert [one.range for one in hub.store.got(address)] == [None, "bytes=1000-"]


def test_a_killed_download_is_continued_by_the_next_process(hub, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "_WORTH_CONTINUING", 0)
    address = sha256(tiny[UNET])
    (tmp_path / "cache/partial").mkdir(parents=True)
    (tmp_path / "cache/partial" / address).write_bytes(tiny[UNET][:3000])
    assert (fetch(SPEC, say=silent).folder / UNET).read_bytes() == tiny[UNET]
    assert [one.range for one in hub.store.got(address)] == ["bytes=3000-"]


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("path", [UNET, "vae/config.json"])
def test_spoilt_bytes_are_refused_with_both_values_and_gone(hub, tiny, path, continued, monkeypatch):
    monkeypatch.setattr(repository, "_WORTH_CONTINUING", 0 if continued else 10**9)
    where, part = (hub, path) if path.endswith(".json") else (hub.store, sha256(tiny[path]))
    where.mishaps[part] = [Mishap(spoil=True)]
    with pytest.raises(ValueError, match=rf"{path}: its (SHA-256|hash) is \w+, not \w+: damaged"):
        fetch(SPEC, say=silent)
    assert (fetch(SPEC, say=silent).folder / path).read_bytes() == tiny[path]


def test_another_hash_than_the_known_one_is_refused_with_both_values(hub, tiny):
    spec = replace(SPEC, files=(File(UNET, sha256="0" * 64),))
    with pytest.raises(ValueError, match=f"{'0' * 64}, and the Hub now lists {sha256(tiny[UNET])}"):
        fetch(spec, say=silent)
    assert not hub.got("resolve")


def test_a_full_disk_is_told_before_anything_is_downloaded(hub, tiny, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_050_000))
    with pytest.raises(ValueError, match=r"model tiny needs .* GB in .*hub, where 0.1 GB are free.*HF_HOME"):
        fetch(SPEC, say=silent)
    assert not hub.store.asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unet": ["os", "System"]}, "names os.System for unet"),
        ({"unet": ["subprocess", "Popen"]}, "names subprocess.Popen"),
        ({"unet": ["unet_own", "OwnUNet"]}, "never a model's own code"),
        ({"unet": ["diffusers", "_private"]}, "refused"),
        ({"unet": ["diffusers.utils", "Logger"]}, "refused"),
        ({"unet": ["transformers", "AutoModel"]}, "refused"),
        ({"unet": ["unleak.families.nano.build", "x"]}, "refused"),
        ({"unet": ["unleak.families.lvdm.folder", "Path"]}, "names unleak.families.lvdm.folder.Path for unet"),
        ({"unet": ["unleak.families.lvdm.unet", "LVDMUNet"]}, "refused"),  # another pipeline's
        (
            {"_class_name": "DynamiCrafterPipeline", "unet": ["unleak.families.lvdm.unet", "Sequence"]},
            "names unleak.families.lvdm.unet.Sequence for unet",
        ),
        ({"unet": ["diffusers", ["UNetSpatioTemporalConditionModel"]]}, "refused"),
        ({"../../unet": ["diffusers", "UNetSpatioTemporalConditionModel"]}, "is no name of a part"),
        ({"_class_name": ["pipeline", "OwnPipeline"]}, "is code of its own"),
        ({"_class_name": "os.system"}, "none of diffusers'"),
    ],
)
def test_a_hostile_index_is_refused_before_anything_else_is_read(hub, tiny, given, message):
    import json

    tiny["model_index.json"] = json.dumps(json.loads(tiny["model_index.json"]) | given).encode()
    with pytest.raises(ValueError, match="refused") as caught:
        fetch(SPEC, say=silent)
    assert message in str(caught.value)
    assert not hub.got("unet")
    assert not hub.store.asked


def test_paths_outside_of_the_repository_are_refused(hub, tiny):
    tiny["../outside.json"] = b"{}"
    with pytest.raises(ValueError, match="outside of its own folder"):
        fetch(SPEC, say=silent)


def test_weights_that_are_pickles_are_refused(hub, tiny):
    tiny["unet/diffusion_pytorch_model.bin"] = tiny.pop(UNET)
    with pytest.raises(ValueError, match="unet/ has its weights as pickles only"):
        fetch(SPEC, say=silent)


CIL = replace(
    SPEC,
    name="tiny-cil",
    source="someone/tiny-cil",
    files=(File("checkpoint-step-20000.ckpt"),),
    convert="svd",
    part="unet",
    base="tiny",
    unverified=("revision", "hash"),
)


@pytest.fixture
def checkpoint(hub, tiny, tiny_folder, tmp_path, monkeypatch):
    """A checkpoint of the reference's form, of the tiny UNet with weights of its own, on that Hub as `tiny-cil`."""
    from diffusers import UNetSpatioTemporalConditionModel

    unet = UNetSpatioTemporalConditionModel.from_pretrained(tiny_folder / "unet")
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    monkeypatch.setattr("unleak.families.svd.convert.UNET", config)
    register_family(Family("tiny-cil", models=(CIL,)))
    state = {f"module.{name}": torch.full_like(value, 0.125) for name, value in unet.state_dict().items()}
    (tmp_path / "original").mkdir()
    torch.save({"state_dict": state}, tmp_path / "original/checkpoint-step-20000.ckpt")
    hub.add("someone/tiny-cil", tmp_path / "original")
    yield tmp_path / "original/checkpoint-step-20000.ckpt"
    unregister_family("tiny-cil")


def test_a_checkpoint_is_converted_once_and_loads_with_the_parts_of_its_base(hub, checkpoint, capfd):
    from unleak.attach.plan import UnleakWarning
    from unleak.zoo.hub import load

    with pytest.warns(UnleakWarning, match="tiny-cil: not verified by unleak: revision, hash"):
        pipe = load("tiny-cil", device="cpu")
    assert {float(value.min()) for value in pipe.unet.state_dict().values()} == {0.125}
    assert not hub.got("tiny/resolve/" + COMMIT + "/unet/diffusion"), "the base's own network is not downloaded"
    folder = here(CIL)[1]
    written = folder.stat().st_mtime_ns
    asked = len(hub.asked)
    load("tiny-cil", device="cpu", say=silent)
    assert (here(CIL)[1].stat().st_mtime_ns, len(hub.asked)) == (written, asked)


def test_a_hostile_checkpoint_runs_nothing_and_leaves_nothing(hub, checkpoint, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Evil()}, checkpoint)
    hub.add("someone/tiny-cil", checkpoint.parent)
    with pytest.raises(ValueError, match=r"checkpoint|weights_only|refused|tensors"):
        fetch(CIL, say=silent)
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache/converted").glob("svd*[!k]"))


def test_a_checkpoint_of_another_name_is_found_where_the_name_is_not_verified(hub, checkpoint, tmp_path):
    files = hub.repositories["someone/tiny-cil"]
    files["other.ckpt"] = files.pop("checkpoint-step-20000.ckpt")
    with pytest.raises(ValueError, match=r"has no checkpoint-step-20000.ckpt, but other.ckpt"):
        fetch(CIL, say=silent)
    shutil.rmtree(tmp_path / "cache")
    said = []
    fetch(replace(CIL, unverified=("file name",)), say=said.append)
    assert "tiny-cil: its checkpoint is other.ckpt, not checkpoint-step-20000.ckpt as was thought" in said
