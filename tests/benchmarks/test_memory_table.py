"""The table of memory: what it says of the published models, and of the runs at full size."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = json.loads((ROOT / "benchmarks/results/memory.json").read_text(encoding="utf-8"))
RUNS = json.loads((ROOT / "benchmarks/results/full_size.json").read_text(encoding="utf-8"))
NAMES = {
    "dynamicrafter": "dynamicrafter-512",
    "videocrafter1": "videocrafter1-512",
    "svd": "svd",
    "animate-anything": "animate-anything",
    "pia": "pia",
}
GENERATED = [run for run in RUNS if run["stage"] == "generate"]


def row(model, options=""):
    (found,) = (one for one in TABLE if (one["model"], one["options"]) == (model, options))
    return found


def test_the_paper_systems_are_all_there():
    assert set(NAMES.values()) <= {one["model"] for one in TABLE}


@pytest.mark.parametrize("model", sorted({one["model"] for one in TABLE}))
def test_each_way_to_offload_takes_less_than_the_one_before(model):
    plain = [one["peak_gb"] for one in TABLE if one["model"] == model and "tiling" not in one["options"]]
    assert len(plain) == 4
    assert plain == sorted(plain, reverse=True)
    assert all(one["peak_gb"] > one["denoising_gb"] > 0 for one in TABLE if one["model"] == model)


@pytest.mark.parametrize("run", GENERATED, ids=[run["system"] for run in GENERATED])
def test_a_run_at_full_size_took_what_the_table_says(run):
    """Weights in half precision; and, of a run within its bound and at the table's size, what came on top of them."""
    said = row(NAMES[run["system"]])
    assert run["weights_gb"] == pytest.approx(said["weights_gb"], rel=0.02)
    if run["within"] and run["size"] == said["size"]:
        assert run["peak_gb"] == pytest.approx(said["weights_gb"] + said["denoising_gb"], abs=1.5)


def test_the_comparison_is_of_the_runs_on_record_and_no_estimate_is_above_its_run():
    compared = json.loads((ROOT / "benchmarks/results/memory_measured.json").read_text(encoding="utf-8"))
    assert [(one["model"], one["measured_gb"]) for one in compared] == [
        (NAMES[run["system"]], run["peak_gb"]) for run in GENERATED
    ]
    for one in compared:
        assert one["weights_gb"] < one["estimated_gb"] < one["measured_gb"] < one["estimated_gb"] + 2


def test_the_page_is_filled_from_it():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("site_hook", ROOT / "docs/site.py")
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((ROOT / "docs/memory.md").read_text(encoding="utf-8"))
    lines = re.findall(r"^\| `.*$", page.partition("## ")[0], re.MULTILINE)
    assert len(lines) == len(TABLE)
    for line, one in zip(lines, TABLE, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"`{one['model']}`"
        assert cells[3:] == [
            f"{one['peak_gb']:.1f}",
            *("yes" if one["peak_gb"] <= 0.9 * card else "no" for card in (8, 12, 16, 24)),
        ]
