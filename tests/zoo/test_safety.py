"""Pickles and archives that are not what they should be."""

import errno
import io
import re
import tarfile
import zipfile
from dataclasses import replace

import pytest

from unleak.families.family import Family
from unleak.families.registry import MODELS, register_family, unregister_family
from unleak.families.spec import File
from unleak.zoo.cache import leftovers
from unleak.zoo.conversion import converted
from unleak.zoo.fetch import fetch, here, in_use
from unleak.zoo.safety import check_index, check_pickle, unpack


def packed(*members, compress="w"):
    """A tar archive of (name, content) and of TarInfo as they are."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=compress) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return written.getvalue()


def special(name, kind, target=""):
    about = tarfile.TarInfo(name)
    about.type, about.linkname = kind, target
    return about


@pytest.mark.parametrize(
    "member",
    [
        ("../escaped", b"x"),
        ("model/../../escaped", b"x"),
        special("link", tarfile.SYMTYPE, "/etc"),
        special("link", tarfile.SYMTYPE, "../escaped"),
        special("hard", tarfile.LNKTYPE, "../escaped"),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
)
def test_an_archive_stays_in_its_folder(member, tmp_path):
    (tmp_path / "escaped").write_bytes(b"mine")
    (tmp_path / "model.tar").write_bytes(packed(("model/a", b"fine"), member))
    with pytest.raises(ValueError, match=r"the archive is refused: .*(outside|absolute|special)"):
        unpack(tmp_path / "model.tar", tmp_path / "folder")
    assert (tmp_path / "escaped").read_bytes() == b"mine"


def test_a_link_cannot_lead_a_later_member_out(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "model.tar").write_bytes(packed(special("a", tarfile.SYMTYPE, "../out"), ("a/escaped", b"x")))
    with pytest.raises(ValueError, match="the archive is refused"):
        unpack(tmp_path / "model.tar", tmp_path / "folder")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["/etc/inside", "..\\inside", "C:inside"])
def test_names_of_other_systems_stay_inside(name, tmp_path):
    (tmp_path / "model.tar").write_bytes(packed((name, b"x")))
    unpack(tmp_path / "model.tar", tmp_path / "folder")
    (file,) = (path for path in tmp_path.rglob("*inside") if path.is_file())
    assert file.is_relative_to(tmp_path / "folder")


def test_an_archive_is_of_bounded_size(tmp_path, monkeypatch):
    (tmp_path / "model.tar").write_bytes(packed(("a", b"x" * 600), ("b", b"x" * 600)))
    with pytest.raises(ValueError, match="more than 1e-06 GB"):
        unpack(tmp_path / "model.tar", tmp_path / "folder", most=1000)
    monkeypatch.setattr("unleak.zoo.safety.MAX_MEMBERS", 1)
    with pytest.raises(ValueError, match="or 1 files: refused"):
        unpack(tmp_path / "model.tar", tmp_path / "folder")


@pytest.mark.parametrize("compress", ["w:gz", "w:xz", "w:bz2"])
def test_a_damaged_archive_is_one_line(compress, tmp_path):
    content = bytearray(packed(("a", bytes(range(256)) * 40), compress=compress))
    content[14:-4] = b"\xff" * len(content[14:-4])
    (tmp_path / "model.tar").write_bytes(content)
    with pytest.raises(ValueError, match="the archive is damaged"):
        unpack(tmp_path / "model.tar", tmp_path / "folder")


def announced(kind, size):
    about = special("a", kind)
    about.size = size
    return about.tobuf(tarfile.GNU_FORMAT)


def pax(**headers):
    about = special("a", tarfile.REGTYPE)
    about.pax_headers = headers
    return packed(about)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"no archive", "damaged"),
        (packed(("a", b"x" * 600))[:300], "damaged"),
        (packed(("n" * 300, b"x")), "damaged"),
        (packed(("/".join(["d"] * 3000), b"x")), "damaged"),
        (packed((".", b"x")), "damaged"),
        (packed(("a", b"x"), ("a/b", b"x")), "damaged"),
        (packed(special("a", tarfile.DIRTYPE), ("a", b"x")), "damaged"),
        (packed(special("a", tarfile.SYMTYPE, "a"), ("a/b", b"x")), "damaged"),
        (packed(special("a", tarfile.LNKTYPE, "none")), "damaged"),
        (pax(mtime="nan"), "damaged"),
        (pax(mtime="inf"), "damaged"),
        (pax(**{"GNU.sparse.map": "0,1,5", "GNU.sparse.size": "q"}), "damaged"),
        (announced(tarfile.GNUTYPE_LONGNAME, 10**12), "1e\\+06 MB: refused"),
        (announced(tarfile.XHDTYPE, 2_000_000), "2 MB: refused"),
        (announced(tarfile.XHDTYPE, 0) * 3000 + packed(("a", b"x")), "damaged"),
        (announced(tarfile.REGTYPE, 2**62), "more than 60 GB"),
    ],
    ids=range(17),
)
def test_a_hostile_archive_is_one_line(content, reason, tmp_path):
    (tmp_path / "model.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"the archive .*{reason}") as caught:
        unpack(tmp_path / "model.tar", tmp_path / "folder")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "model.tar").write_bytes(packed(("a", b"x")))
    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tmp_path / "model.tar", tmp_path / "folder")


def test_a_pickle_is_of_bounded_size_packed_and_unpacked(tmp_path):
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", b"0" * 100_000)
    with pytest.raises(ValueError, match="unpacked from"):
        check_pickle(path)
    with pytest.raises(ValueError, match="more than the 1e-07 GB"):
        check_pickle(path, most=100)


@pytest.fixture
def web(hub, monkeypatch):
    """`served(archive bytes)` -> a model whose source is that archive, and a converter that counts what it makes."""
    made = []

    def convert(source, out):
        made.append(source)
        out.mkdir()
        (out / "model_index.json").write_bytes((source / "model_index.json").read_bytes())

    monkeypatch.setattr("unleak.zoo.conversion.converter", lambda family: (convert, 1))

    def served(archive, **changes):
        hub.store.repositories[""] = {"model.tar": archive}
        spec = replace(
            MODELS["animate-anything"], name="boxed", source=f"{hub.store.address}/store/model.tar", **changes
        )
        unregister_family("boxed")
        register_family(Family("boxed", models=(spec,)))
        return spec

    served.made = made
    yield served
    unregister_family("boxed")


INDEX = ("original/model_index.json", b'{"_class_name": "AnimateAnythingPipeline"}')


def test_an_archive_is_downloaded_unpacked_and_converted_once(hub, web, tmp_path):
    spec, said = web(packed(INDEX, compress="w:gz")), []
    fetched = fetch(spec, say=said.append)
    assert (fetched.folder / "model_index.json").read_bytes() == INDEX[1]
    assert any("nobody has verified this archive; its SHA-256 is" in text for text in said)
    assert {one.token for one in hub.store.asked} == {None}
    asked = len(hub.store.asked)
    fetch(spec, say=said.append)
    assert (len(web.made), len(hub.store.asked)) == (1, asked)

    (unpacked,) = leftovers(in_use())  # what was converted from is needed no more
    assert unpacked.why == "no model has use for it"
    assert unpacked.remove()
    fetch(spec, say=said.append)
    assert (len(web.made), len(hub.store.asked), here(spec)) == (1, asked, [fetched.folder])


@pytest.mark.parametrize(
    ("archive", "changes", "message"),
    [
        (packed(INDEX, ("../escaped", b"x")), {}, "archive is refused: .*outside"),
        (packed(INDEX)[:600], {}, "archive is damaged|no pipeline in its archive"),
        (b"not an archive", {}, "archive is damaged"),
        (packed(("readme", b"x")), {}, "no pipeline in its archive"),
        (packed(INDEX), {"files": (File("model.tar", sha256="0" * 64),)}, "its SHA-256 is .*, not 0000"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing_outside(web, tmp_path, archive, changes, message):
    with pytest.raises(ValueError, match=message):
        fetch(web(archive, **changes), say=lambda text: None)
    assert not list(tmp_path.rglob("escaped"))
    assert not list((tmp_path / "cache/partial").glob("[!.]*[!k]"))
    assert web.made == []


def test_processes_that_ask_at_once_convert_once(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    monkeypatch.setenv("UNLEAK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    made, together = [], Barrier(3)

    def convert(source, out):
        made.append(out)
        out.mkdir()

    def ask(_):
        together.wait()
        return converted("svd", tmp_path / "model.ckpt", "f" * 64)

    monkeypatch.setattr("unleak.zoo.conversion.converter", lambda family: (convert, 1))
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(ask, range(3)))
    assert len(made) == len(folders) == 1
    assert folders.pop().is_dir()


def test_a_conversion_that_fails_leaves_nothing_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEAK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.ckpt").write_bytes(b"weights")

    def convert(source, out):
        out.mkdir()
        raise ValueError("not of this family")

    monkeypatch.setattr("unleak.zoo.conversion.converter", lambda family: (convert, 1))
    for _ in range(2):
        with pytest.raises(ValueError, match="not of this family"):
            converted("svd", tmp_path / "model.ckpt", "f" * 64)
        assert not [path for path in (tmp_path / "cache/converted").iterdir() if path.is_dir()]


def test_what_a_killed_conversion_left_is_pruned_but_not_what_is_being_made(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setenv("UNLEAK_CACHE", str(tmp_path))
    left = tmp_path / "converted/svd-v1-ff.partial-abc"
    left.mkdir(parents=True)
    (left / "weights").write_bytes(b"x" * 10)
    (leftover,) = leftovers(set())
    assert (leftover.why, leftover.size) == ("never finished", 10)
    with FileLock(tmp_path / "converted/svd-v1-ff.lock"):
        assert not leftover.remove()
    assert left.is_dir()
    assert leftover.remove()
    assert not left.exists()


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        ("os", "System"),
        ("pathlib", "Path"),
        ("diffusers", "AutoModel"),
        ("diffusers", "FlashPackAutoModel"),
        ("diffusers", "DiffusionPipeline"),
        ("diffusers", "FlashPackDiffusionPipeline"),
        ("diffusers", "OnnxRuntimeModel"),
        ("transformers", "AutoTokenizer"),
        ("stable_video_diffusion", "StableVideoDiffusionPipeline"),
        ("pipeline_utils", "Path"),
        ("pipeline_loading_utils", "PreTrainedModel"),
        ("__init__", "DiffusionPipeline"),
        ("diffusers.pipelines", "Any"),
        ("unleak.families.lvdm.unet", "LVDMUNet"),
        ("unleak.families.registry", "Family"),
    ],
)
def test_a_class_that_may_lead_to_other_code_is_refused(library, kind):
    index = {"_class_name": "StableVideoDiffusionPipeline", "unet": [library, kind]}
    with pytest.raises(ValueError, match=r"names .* for unet; only classes of diffusers, transformers and unleak"):
        check_index(index, "model m")


def test_every_model_class_of_diffusers_may_be_named_but_not_those_that_choose_another():
    import diffusers

    models = [name for name in dir(diffusers) if re.search(r"(Model|Model2D|Model3D|^Autoencoder\w*)$", name)]
    assert len(models) > 60
    for name in models:
        index = {"_class_name": "StableVideoDiffusionPipeline", "part": ["diffusers", name]}
        if name in ("AutoModel", "OnnxRuntimeModel"):
            with pytest.raises(ValueError, match="names diffusers"):
                check_index(index, "model m")
        else:
            check_index(index, "model m")


def test_every_source_is_one_that_can_be_checked():
    for spec in MODELS.values():
        if spec.family != "nano":
            assert spec.source.count("/") == 1 or spec.source.startswith("https://")
            assert spec.licence
            assert spec.terms
            assert (spec.revision is None) == ("revision" in spec.unverified) or spec.source.startswith("https://")
