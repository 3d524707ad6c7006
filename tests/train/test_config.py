from pathlib import Path

import pytest
import yaml

from unleak.families.view import view_class
from unleak.train.config import RecipeError, differing_keys, dump_recipe, load_recipe, parse_recipe
from unleak.train.objectives import faults
from unleak.train.recipe_files import shipped_recipes
from unleak.zoo.registry import find_model

MINIMAL = {
    "model": "nano",
    "output": "out",
    "steps": 10,
    "data": {"kind": "synthetic", "photos": "photos"},
    "condition": {"noise": "none"},
}


def written(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


def test_overrides_and_numbers_as_people_write_them(tmp_path):
    path = written(tmp_path, yaml.safe_dump(MINIMAL) + "lr: 3e-5\n")
    recipe = load_recipe(path, ["condition={noise: timenoise, beta_m: 15}", "data.size=32", "clip=null", "lr=1E-4"])
    assert load_recipe(path, ["mixed_precision=no", "gradient_checkpointing=true"]).mixed_precision == "no"
    assert (recipe.lr, recipe.clip, recipe.data.size) == (1e-4, None, 32)
    assert recipe.condition.beta_m == 15
    assert load_recipe(path).lr == 3e-5


def test_the_resolved_recipe_reads_back(tmp_path):
    recipe = parse_recipe(MINIMAL)
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", ["naive", "timenoise"])
def test_shipped_recipes_are_the_papers(name):
    recipe = load_recipe(f"svd-512-{name}")
    assert (recipe.lr, recipe.steps, recipe.data.size, recipe.data.num_frames) == (3e-5, 20_000, (320, 512), 16)
    assert (recipe.sigma.p_mean, recipe.sigma.p_std, recipe.condition.dropout) == (-1.2, 1.2, 0.1)
    assert recipe.condition.noise == {"naive": "pixel", "timenoise": "timenoise"}[name]


RECIPES = list(shipped_recipes().values())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_suit_their_models(path):
    recipe = load_recipe(path)
    spec = find_model(recipe.model)
    assert faults(recipe, view_class(spec.pipeline)) == []
    height, width = recipe.data.size
    assert height % spec.size_multiple == width % spec.size_multiple == 0
    assert (recipe.data.num_frames - 1) % spec.frame_multiple == 0
    assert recipe.condition.noise == ("timenoise" if "timenoise" in path.stem else recipe.condition.noise)


@pytest.mark.parametrize("family", sorted({path.stem.rsplit("-", 1)[0] for path in RECIPES}))
def test_the_two_recipes_of_a_model_differ_in_the_condition_alone(family):
    naive, timenoise = (load_recipe(f"{family}-{kind}") for kind in ("naive", "timenoise"))
    assert {key.split(".")[0] for key in differing_keys(naive, timenoise)} == {"condition"}


def test_dynamicrafter_and_videocrafter1_have_the_papers_settings():
    for name, beta_m, mu_max, clip in (("dynamicrafter", 100, 1, 0.5), ("videocrafter1", 25, 4, 1.0)):
        recipe = load_recipe(f"{name}-512-timenoise")
        condition = recipe.condition
        assert (condition.beta_m, condition.a, condition.mu_max, condition.dropout) == (beta_m, 5, mu_max, 0.05)
        assert (recipe.lr, recipe.steps, recipe.ema_decay, recipe.clip) == (1e-5, 20_000, 0.0, clip)
        assert (recipe.data.size, recipe.data.num_frames) == ((320, 512), 16)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"trainable": "some"}, "trainable: must be one of 'all', 'full', 'lora', 'temporal', 'spatial'"),
        ({"lora": {"rank": 4}}, "lora: is of trainable: lora; say that, or leave lora away"),
        ({"trainable": "lora", "lora": {"ranks": 4}}, "lora.ranks: unknown key; did you mean rank?"),
        ({"experts": "medium"}, "experts: input should be 'high', 'low' or 'both'"),
        ({"stepps": 5}, "stepps: unknown key"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1 (given 0)"),
        ({"steps": "10"}, "steps: input should be a valid integer (given '10')"),
        ({"lr": -1.0}, "lr: input should be greater than 0 (given -1.0)"),
        ({"lr": float("nan")}, "lr: input should be a finite number"),
        ({"batch_size": 3, "accumulation": 2}, "accumulation: batch_size 3 cannot be cut into 2 equal pieces"),
        ({"condition": {"noise": "none", "beta_m": 15}}, "condition.beta_m: unknown key"),
        ({"condition": {"noise": "loud"}}, "condition: noise should be one of 'none'"),
        ({"condition": {"noise": "timenoise", "per_frame": True, "reference": True}}, "exclude each other"),
        ({"condition": {"noise": "timenoise", "told": False, "reference": True}}, "exclude each other"),
        ({"sigma": {"uniform_range": [700, 10]}}, "sigma.uniform_range: must be [low, high] with low < high"),
        ({"data": {"kind": "synthetic"}}, "data.photos: missing"),
        ({"data": {**MINIMAL["data"], "motion": {"spin": 1.0}}}, "data.motion: unknown spin; known are max_speed"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(change, line):
    with pytest.raises(RecipeError) as refusal:
        parse_recipe(MINIMAL | change)
    (only,) = str(refusal.value).splitlines()
    assert line in only


def test_all_problems_at_once():
    with pytest.raises(RecipeError) as refusal:
        parse_recipe({**MINIMAL, "lr": 0, "seeds": 1, "schedule": "step", "batch_size": 3, "accumulation": 2})
    told = [line.split(": ")[:2] for line in str(refusal.value).splitlines()]
    assert told == [["recipe", key] for key in ("accumulation", "lr", "schedule", "seeds")]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("a: [", [], "not YAML"),
        ("- a", [], "expected a mapping"),
        ("a: 1", ["lr"], "expected key=value"),
        ("a: 1", ["a.b=1"], "a is not a mapping"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, text), overrides)


def test_only_what_changes_the_result_differs():
    recipe = parse_recipe(MINIMAL)
    free = {"steps": 20, "output": "elsewhere", "log_every": 1, "max_hours": 1.0, "keep": 9}
    assert differing_keys(recipe, parse_recipe(MINIMAL | free)) == []
    other = parse_recipe(MINIMAL | {"lr": 1e-3, "condition": {"noise": "pixel"}})
    assert differing_keys(recipe, other) == [
        "condition.first_frame_sigma",
        "condition.noise",
        "condition.noise_aug_strength",
        "condition.p_mean",
        "condition.p_std",
        "lr",
    ]
    cached = {"data": {**MINIMAL["data"], "cache": "a"}}
    moved = {"data": {**MINIMAL["data"], "cache": "b"}}
    assert differing_keys(parse_recipe(MINIMAL | cached), parse_recipe(MINIMAL | moved)) == []
    assert differing_keys(recipe, parse_recipe(MINIMAL | cached)) == ["data.cache"]


def test_a_recipe_that_is_no_text_is_named(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(RecipeError, match=r"photo.png: not YAML"):
        load_recipe(tmp_path / "photo.png")
