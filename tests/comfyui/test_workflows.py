"""The example workflows of the pack: they load, and the one that runs anywhere runs."""

import json
import re
from pathlib import Path

import pytest

from unleak.comfyui import pack

FOLDER = Path(pack.__file__).parent / "files" / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def api_form(workflow, about):
    """A workflow of ComfyUI's editor in the form that the server runs."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        spec = about[node["type"]]
        sockets = {one["name"]: one["link"] for one in node["inputs"]}
        values, given = list(node["widgets_values"]), {}
        declared = {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}
        assert set(sockets) <= set(declared), node["type"]
        for name, (kind, *options) in declared.items():
            if isinstance(kind, list) or kind in WIDGETS:
                given[name] = values.pop(0)
                if options and options[0].get("control_after_generate"):
                    assert values.pop(0) == "fixed"
            elif sockets[name] is not None:
                given[name] = links[sockets[name]]
            else:
                assert name in spec["input"].get("optional", {}), f"{node['type']}: {name} is not connected"
        assert values == (["image"] if node["type"] == "LoadImage" else []), node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


def test_each_has_a_thumbnail_and_one_of_unleaks_nodes():
    assert WORKFLOWS
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").is_file()
        assert any(node["type"].startswith("Unleak") for node in json.loads(path.read_text())["nodes"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_and_link_is_one_of_comfyuis(engine, path):
    workflow, about = json.loads(path.read_text()), engine.get("/object_info")
    prompt = api_form(workflow, about)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, out, target, into, kind in workflow["links"]:
        assert about[nodes[source]["type"]]["output"][out] == kind
        assert nodes[target]["inputs"][into]["type"] == kind
    assert len(prompt) == len(nodes)


def test_nanos_workflow_runs_and_moves_more_with_the_node(engine):
    (path,) = [path for path in WORKFLOWS if path.stem.startswith("nano")]
    prompt = api_form(json.loads(path.read_text()), engine.get("/object_info"))
    photo = Path(__file__).parents[2] / "examples" / "photo.jpg"
    (engine.base / "input" / "example.png").write_bytes(photo.read_bytes())
    shown = engine.run(prompt, timeout=600)
    said = [shown[key]["text"][0] for key in sorted(shown, key=int) if "text" in shown[key]]
    without, with_it = (float(re.match(r"motion score ([\d.]+)", text)[1]) for text in said)
    assert with_it > 2 * without
    assert sum(about.get("animated") == (True,) or "images" in about for about in shown.values()) == 2
