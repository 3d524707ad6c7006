import json

import pytest

RECIPE = """
model: {model}
output: trained
steps: 2
batch_size: 2
checkpoint_every: 1
condition: {{noise: timenoise, beta_m: 15}}
data: {{kind: folder, path: clips, num_frames: 2, fps: 7, size: [16, 16]}}
"""


@pytest.fixture
def recipe(tmp_path, tiny_folder, monkeypatch):
    import numpy as np

    from unleak.data.video import write_video

    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for k in range(2):
        frames = np.random.default_rng(k).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        write_video(frames, tmp_path / f"clips/{k}.mp4", fps=7)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tiny_folder))
    return "recipe.yaml"


def test_dry_run_prints_the_complete_recipe(unleak, recipe, tmp_path):
    result = unleak("train", recipe, "--set", "condition.beta_m=25", "--dry-run", "--json")
    told = json.loads(result.out)["recipe"]
    assert (told["condition"]["beta_m"], told["condition"]["a"], told["steps"]) == (25, 5, 2)
    assert "beta_m: 15" in unleak("train", recipe, "--dry-run").out
    assert not (tmp_path / "trained").exists()


def test_a_dry_run_of_what_cannot_run_prints_the_recipe_and_ends_with_2(unleak, recipe, tmp_path):
    for change in ("model=someone/nothing", "data.path=nowhere", "data.num_frames=900"):
        result = unleak("train", recipe, "--set", change, "--dry-run", "--json")
        assert result.status == 2, change
        told = json.loads(result.out)
        assert told["recipe"]["steps"] == 2
        assert told["estimate"]["not_estimated"] in result.err
        assert result.err.startswith("error: this recipe cannot be run here: ")
        assert result.err.count("\n") == 1
    assert not (tmp_path / "trained").exists()


def test_training_gives_a_pipeline_that_generates(unleak, recipe, tmp_path):
    from PIL import Image

    assert unleak("train", recipe, "--max-hours", 1e-9).out.splitlines()[-1] == "trained/pipeline"
    resumed = unleak("train", recipe)
    assert resumed.status == 0
    assert "resuming after step 1" in resumed.out + resumed.err
    Image.new("RGB", (16, 16), "olive").save(tmp_path / "photo.png")
    made = unleak("generate", "photo.png", "--model", "trained/pipeline", "--size", "16x16", "--steps", 1)
    assert (made.status, made.out) == (0, "out/photo.mp4\n")


def test_every_problem_of_a_recipe_is_a_line(unleak, recipe):
    result = unleak("train", recipe, "--set", "steps=many", "--set", "colour=red", "--dry-run")
    assert result.status == 2
    assert result.err.count("\n") == 2
    assert "error: recipe.yaml: steps: " in result.err
    assert "error: recipe.yaml: colour: unknown key" in result.err


def test_a_missing_recipe_is_one_line(unleak):
    result = unleak("train", "none.yaml")
    assert (result.status, result.err) == (2, "error: none.yaml: No such file or directory\n")
