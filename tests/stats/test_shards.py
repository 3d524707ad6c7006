import json

import pytest
import torch

from unleak.core.moments import LatentMoments
from unleak.data.image import MediaError
from unleak.stats.gathered import Gathered
from unleak.stats.shards import Part, Shard, differences, joined

RUN = {"model": "tiny", "fps": 7.0, "seed": 0, "videos": 10, "names": "ab"}
OTHER = RUN | {"fps": 6.0, "names": "cd"}


def parts(*texts, run=RUN, skipped=0):
    return [Part(run, Shard.parse(text), skipped) for text in texts]


def test_every_item_is_in_one_shard():
    for count in range(1, 8):
        shares = [Shard(k + 1, count).share(range(5)) for k in range(count)]
        assert sorted(item for share in shares for item in share) == list(range(5))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_files_of_shards(tmp_path):
    assert Shard.parse("2/4").file(tmp_path / "m.safetensors") == tmp_path / "m.2-of-4.safetensors"
    assert Shard().file(tmp_path / "m.safetensors") == tmp_path / "m.safetensors"


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1.5/2", " 1/2", "²/3"])
def test_shards_that_make_no_sense(text):
    with pytest.raises(ValueError, match=r"give which of how many, such as 1/4"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (parts("1/3", "3/3", "2/3"), parts("1/1")),
        (parts("1/3", "3/3"), parts("1/3", "3/3")),
        (parts("1/1") + parts("1/1", run=OTHER), parts("1/1") + parts("1/1", run=OTHER)),
        (parts("1/2", "2/2") + parts("2/2", run=OTHER), parts("1/1") + parts("2/2", run=OTHER)),
        ([], []),
    ],
)
def test_what_may_be_joined(given, left):
    assert joined(given, max_failures=0.0) == left
    assert [Part.parse(json.loads(json.dumps(part.record)), "m.json") for part in left] == left


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (parts("1/2", "1/2"), "would count twice: shards 1/2, 1/2 of one run"),
        (parts("1/1", "1/1"), "would count twice: shards 1/1, 1/1 of one run"),
        (parts("1/1", "1/2"), "would count twice: shards 1/1, 1/2"),
        (parts("1/2", "2/3"), "would count twice: shards 1/2, 2/3"),
        (parts("1/2") + parts("2/2", run=OTHER), r"shards 1/2 and 2/2 are of different runs \(fps 7.0 and 6.0, other"),
    ],
)
def test_what_may_not_be_joined(given, reason):
    with pytest.raises(ValueError, match=reason):
        joined(given, max_failures=1.0)


def test_failures_are_those_of_the_whole_run():
    few = parts("1/2", skipped=1) + parts("2/2", skipped=0)
    assert joined(few, max_failures=0.1)[0].skipped == 1
    with pytest.raises(MediaError, match=r"2 of 10 videos cannot be used, more than the share of 0.1 allowed"):
        joined(parts("1/2", "2/2", skipped=1), max_failures=0.1)


def test_differences_name_settings():
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == "a 1 and None, b 2 and 3, c None and 4"


def test_a_shard_does_without_its_report_only_if_it_is_none(tmp_path):
    moments = LatentMoments.empty((1, 1, 1, 1)).update(torch.ones(1, 1, 1, 1, 1))
    for name in ("m", "m.1-of-2"):
        moments.save(tmp_path / f"{name}.safetensors")
    for report in (None, "{}", "[]", "no json", '{"parts": [1]}', '{"parts": [{"run": 1}]}'):
        if report is not None:
            (tmp_path / "m.json").write_text(report)
            (tmp_path / "m.1-of-2.json").write_text(report)
        assert Gathered.load(tmp_path / "m.safetensors").parts == ()
        with pytest.raises(ValueError, match=r"is a shard, but .*m.1-of-2.json does not say of which run"):
            Gathered.load(tmp_path / "m.1-of-2.safetensors")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": {"videos": "3", "model": "nano", "seed": 0}, "shard": "1/1", "skipped": 0}, "run.videos should be"),
        ({"run": {"videos": 3, "model": "nano", "seed": 0}, "shard": "1/1", "skipped": -1}, "skipped should be"),
        ({"run": {"videos": 3, "model": "nano"}, "shard": "1/1", "skipped": 0}, "run.seed is missing"),
        ({"run": [], "shard": "1/1", "skipped": 0}, "run should be a JSON object"),
        ({"run": {"videos": 3, "model": "nano", "seed": 0}, "shard": "3/1", "skipped": 0}, "--shard 3/1"),
        (3, "it should be a JSON object"),
    ],
)
def test_a_report_that_was_edited_is_one_line(values, message):
    with pytest.raises(ValueError, match=message):
        Part.parse(values, "m.json")


def test_a_part_is_read_as_it_was_written():
    part = Part({"videos": 3, "model": "nano", "seed": 0, "names": "ff", "fps": 7.0}, Shard(1, 2), 1)
    assert Part.parse(part.record, "m.json") == part
