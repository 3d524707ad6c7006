import pytest

from tests.train.builds import BUILD, SIZE
from unleak.data.video import write_video
from unleak.train.config import RecipeError
from unleak.train.estimate import estimate_run


def test_numbers_of_the_tiny_run(recipe, tiny_svd):
    run = recipe(steps=10, batch_size=2, ema_decay=0.9)
    told = estimate_run(run)
    every = sum(p.numel() for p in tiny_svd.unet.parameters())
    assert (told.trained, told.network, told.weights, told.state) == (every, every, 4 * every, 16 * every)
    assert (told.clips, told.steps_per_epoch, told.epochs) == (5, 2.5, 4.0)
    assert told.lines[0] == f"parameters: {every:,} trained of {every:,} (100 %)"
    assert not run.output.exists()
    sparing = estimate_run(run.model_copy(update={"gradient_checkpointing": True}))
    halved = estimate_run(run.model_copy(update={"accumulation": 2}))
    assert sparing.step < told.step
    assert halved.step < 0.6 * told.step
    few = estimate_run(run.model_copy(update={"trainable": ["*to_q*"]}))
    assert few.trained < every / 5
    assert few.state == 16 * few.trained


def test_several_processes_share_the_clips_and_in_parts_the_weights(recipe):
    run = recipe(steps=10, batch_size=4)
    alone, pair = estimate_run(run), estimate_run(run, processes=2)
    assert (pair.weights, pair.state) == (alone.weights, alone.state)
    assert pair.step < 0.6 * alone.step
    assert "on each of 2 accelerators, which have all weights each: " in pair.lines[1]
    parts = run.model_copy(update={"sharding": "fsdp"})
    assert estimate_run(parts).state == alone.state  # one process has them all
    cut = estimate_run(parts, processes=2)
    assert cut.state == alone.state // 2
    assert alone.weights // 2 < cut.weights < 2 * alone.weights  # its part, and what it gathers
    assert "on each of 2 accelerators, which share the weights: " in cut.lines[1]
    with pytest.raises(RecipeError, match=r"batch_size: 4 clips cannot be shared by 3 processes times 1 accumulation"):
        estimate_run(run, processes=3)


@pytest.mark.parametrize("family", ["dynamicrafter", "wan21", "wan22", "wan5b", "ltx"])
def test_every_family(recipe, tmp_path, family):
    import numpy as np

    BUILD[family]().save_pretrained(tmp_path / "model")
    (tmp_path / "clips").mkdir()
    write_video(np.zeros((12, 32, 32, 3), np.uint8), tmp_path / "clips/a.mp4", fps=6)
    size, frames = SIZE.get(family, ([16, 24], 4))
    data = {"kind": "folder", "path": str(tmp_path / "clips"), "size": size, "num_frames": frames, "fps": 6.0}
    changes = {"model": str(tmp_path / "model"), "data": data, "condition": {"noise": "timenoise"}}
    adapters = estimate_run(
        recipe(**changes, trainable="lora", lora={"rank": 2}, frozen_dtype="bf16", mixed_precision="bf16")
    )
    assert 0 < adapters.trained < adapters.network
    assert adapters.weights == 4 * adapters.trained + 2 * (adapters.network - adapters.trained)
    assert adapters.step > 0
    with pytest.raises(RecipeError, match=r"data\.size"):
        estimate_run(recipe(**changes | {"data": data | {"size": [17, 16]}}))
