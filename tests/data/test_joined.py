"""Extra images beside the main data: which are trained on, how often, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import differences, toy_images, toy_parquet, toy_recipe, train

from disco_zoo.data.open_source import open_source
from disco_zoo.data.subsets import JoinedSource
from disco_zoo.errors import BadData
from disco_zoo.training.epoch_loader import BatchShare
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data, open_training_images

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_TRAIN, NUM_EXTRA, REPEATS = 26, 7, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """toy_train.parquet, and beside it a folder `more` of photos without labels."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "more").mkdir()
    for number, image in enumerate(toy_images(NUM_EXTRA, seed=7)):
        image.save(folder / "more" / f"{number}.png")
    return toy_parquet(folder)


def joined_recipe(**changes: Any) -> Any:
    return toy_recipe("moco_v2", **{"data__extra_source": "more", "data__extra_repeats": REPEATS, **changes})


def test_images_are_those_of_the_first_then_the_extra_ones_again_and_again(data: Path) -> None:
    joined = open_training_images(joined_recipe(), str(data))
    first, extra = open_source(str(data)), open_source(str(data.parent / "more"))
    assert len(joined) == NUM_TRAIN + REPEATS * NUM_EXTRA
    expected = [first.image(i) for i in range(NUM_TRAIN)] + [extra.image(i) for i in range(NUM_EXTRA)] * REPEATS
    assert [joined.image(i).tobytes() for i in range(len(joined))] == [image.tobytes() for image in expected]
    assert joined.path(NUM_TRAIN + NUM_EXTRA + 2) == extra.path(2)
    assert joined.labels is None


def test_an_epoch_shows_each_number_once(data: Path) -> None:
    joined = open_training_images(joined_recipe(), str(data))
    share = BatchShare(len(joined), 8, num_batches=len(joined) // 8, start_batch=0, seed=0, epoch=0)
    numbers = [index for batch in share for index in batch]
    assert len(set(numbers)) == len(numbers) == len(joined) // 8 * 8


def test_extra_images_are_trained_on_and_not_measured_with(data: Path, tmp_path: Path) -> None:
    sources = open_data(joined_recipe(), str(data))
    assert len(sources.train) == NUM_TRAIN
    assert sources.train.labels is not None
    assert sources.has_labels
    run = Run(joined_recipe(), sources, tmp_path / "run", RunOptions(), label="toy")
    try:
        result = run.train()
        facts = run.folder.read_json("run.json")
    finally:
        run.close()
    assert result.step == 2 * ((NUM_TRAIN + REPEATS * NUM_EXTRA) // 8)
    assert facts["data"]["images"] == NUM_TRAIN
    extra = open_source(str(data.parent / "more"))
    assert facts["extra_data"] == {
        "id": "custom",
        "images": NUM_EXTRA,
        "repeats": REPEATS,
        "fingerprint": extra.fingerprint(),
    }


def test_fingerprints_tell_extra_images_and_repeats_apart(data: Path) -> None:
    first, extra = open_source(str(data)), open_source(str(data.parent / "more"))
    prints = {JoinedSource(first, extra, n).fingerprint() for n in (1, 2)}
    prints |= {JoinedSource(extra, first, 1).fingerprint(), first.fingerprint()}
    assert len(prints) == 4
    assert (
        JoinedSource(first, extra, 2).fingerprint()
        == open_training_images(joined_recipe(data__extra_repeats=2), str(data)).fingerprint()
    )


def test_a_run_without_extra_images_is_the_run_it_was(data: Path, tmp_path: Path) -> None:
    assert not {"extra_id", "extra_source", "extra_repeats"} & set(toy_recipe().decisive()["data"])
    source = open_source(str(data))
    assert open_training_images(toy_recipe(), str(data)).fingerprint() == source.fingerprint()


def test_extra_images_resume_exactly(data: Path, tmp_path: Path) -> None:
    straight = train(joined_recipe(), data, tmp_path / "straight")
    train(joined_recipe(), data, tmp_path / "run", steps=5)
    torch.manual_seed(5)
    assert differences(train(joined_recipe(), data, tmp_path / "run", resume=True), straight) == []


def test_a_path_from_here_wins_over_one_beside_the_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "more" / "one.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_training_images(joined_recipe(data__extra_repeats=1), str(data))) == NUM_TRAIN + 1


def test_missing_extra_images_are_said_in_one_line(data: Path) -> None:
    with pytest.raises(BadData, match=r"no extra images at nothing.parquet, neither here nor beside") as error:
        open_training_images(joined_recipe(data__extra_source="nothing.parquet"), str(data))
    assert "Type: --set data.extra_source=PATH" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("extra", ["photos/test", "photos"])
def test_extra_images_that_are_the_test_images_are_refused(tmp_path: Path, extra: str) -> None:
    for split, number in (("train", 8), ("test", 4)):
        (tmp_path / "photos" / split / "a").mkdir(parents=True)
        for index, image in enumerate(toy_images(number, seed=number)):
            image.save(tmp_path / "photos" / split / "a" / f"{index}.png")
    recipe = joined_recipe(data__extra_source=str(tmp_path / extra), data__extra_repeats=1)
    if extra == "photos":  # whose own training split they are
        assert len(open_data(recipe, str(tmp_path / "photos")).extra or ()) == 16
        return
    with pytest.raises(BadData, match=r"^data.extra_source: .*test are the test images and would be trained on"):
        open_data(recipe, str(tmp_path / "photos"))
