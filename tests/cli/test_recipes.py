import json

import yaml

from unleak.train.recipe_files import find_recipe, shipped_recipes


def test_recipes_are_listed_shown_and_addressed_by_name(unleak, tmp_path):
    listed = unleak("recipes", "--json")
    names = [one["name"] for one in json.loads(listed.out)["recipes"]]
    assert {"svd-512-timenoise", "dynamicrafter-512-timenoise", "ltx-lora-naive"} <= set(names)
    assert all(one["summary"].startswith("Fine-tunes") for one in json.loads(listed.out)["recipes"])
    shown = unleak("recipes", "show", "svd-512-timenoise")
    assert yaml.safe_load(shown.out)["model"] == "stabilityai/stable-video-diffusion-img2vid"
    assert shown.out.startswith("# Fine-tunes")
    mine = tmp_path / "mine.yaml"
    mine.write_text(shown.out)
    plans = [unleak("train", recipe, "--dry-run", "--json", "--set", "steps=7") for recipe in (names[-1], mine)]
    assert [json.loads(plan.out)["recipe"]["steps"] for plan in plans] == [7, 7]


def test_the_path_of_before_means_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        find_recipe("recipes/svd-512-naive.yaml") == find_recipe("svd-512-naive") == shipped_recipes()["svd-512-naive"]
    )
    (tmp_path / "recipes").mkdir()
    mine = tmp_path / "recipes/svd-512-naive.yaml"
    mine.write_text("model: nano")
    assert find_recipe("recipes/svd-512-naive.yaml").samefile(mine)


def test_an_unknown_name_is_one_line(unleak):
    for words in (("train", "svd-512"), ("recipes", "show", "svd-512")):
        refused = unleak(*words)
        assert refused.status == 2
        assert "did you mean svd-512-" in refused.err
        assert refused.err.count("\n") == 1


def test_processes_are_for_a_dry_run(unleak):
    refused = unleak("train", "svd-512-timenoise", "--processes", "2")
    assert refused.status == 2
    assert "accelerate launch -m unleak.train" in refused.err
