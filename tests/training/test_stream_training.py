"""Whole runs on streams: resumed to the bit, shared by processes, and refused in words where numbers are needed."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_makers import encode
from method_runs import method_recipe
from PIL import Image
from process_groups import NORM_FREE, finish, start_training
from shard_makers import make_shards
from slow_params import slow_but
from tiny_runs import checkpoint_of, differences, toy_images, toy_recipe, toy_recipe_file, train

from disco_zoo.cli import main
from disco_zoo.config.recipe import Recipe
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pack.images import PackSettings
from disco_zoo.data.pack.job import PackJob
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.errors import BadData, BadRecipe, BadRunFolder
from disco_zoo.methods import METHODS
from disco_zoo.training.run_data import open_data, require_streams, shuffled_images
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

STREAMS = {"data__streams": 4, "data__shuffle_buffer": 12}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 images, as the toy runs have: three steps of eight an epoch."""
    return make_shards(tmp_path_factory.mktemp("streams") / "shards", [3, 4, 3, 3, 4, 3, 3, 3])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hub(tmp_path_factory.mktemp("hub") / "toy", declared=True)


def make_hub(folder: Path, *, declared: bool) -> Path:
    """The same images as a data set of the Hub's kind: four parquet files, which may declare their columns."""
    (folder / "data").mkdir(parents=True)
    cells = [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(toy_images(26, seed=0))]
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
    features = '{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}}}'
    for part in range(4):
        rows = [{"image": cells[i], "label": i % 3} for i in range(part, 26, 4)]
        table = pa.Table.from_pylist(rows, schema.with_metadata({"huggingface": features}) if declared else schema)
        pq.write_table(table, folder / "data" / f"train-{part:05d}-of-00004.parquet")
    return folder


def stream_of(kind: str, shards: Path, hub: Path) -> str:
    if kind == "hfids":
        pytest.importorskip("datasets")
        return f"hfids/{hub}"
    pytest.importorskip("webdataset")
    return f"wds/{shards}"


def stream_recipe(**changes: Any) -> Recipe:
    changes = {**STREAMS, "data__stream_images": 26, "student__model": "dropping_student", **changes}
    return toy_recipe("disco", **changes)


@pytest.mark.parametrize(
    ("kind", "workers"), slow_but(itertools.product(["wds", "hfids"], [0, 2]), [("wds", 2), ("hfids", 0)])
)
def test_a_run_resumed_in_mid_epoch_ends_in_the_same_bits(
    kind: str, workers: int, shards: Path, hub: Path, tmp_path: Path
) -> None:
    data: Any = stream_of(kind, shards, hub)
    whole = train(stream_recipe(), data, tmp_path / "whole")
    assert whole["position"]["step"] == 6
    facts = json.loads((tmp_path / "whole" / "run.json").read_text())["health"]
    assert {"images": 26, "split": "train", "student_rank_bound": 26}.items() <= facts.items()
    train(stream_recipe(log__health_images=0), data, tmp_path / "parts", steps=4, workers=workers)
    assert differences(train(stream_recipe(), data, tmp_path / "parts", resume=True, workers=workers), whole) == []


def test_accumulated_steps_and_unreadable_images_resume_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data: Any = f"wds/{make_shards(tmp_path / 'shards', [4] * 6, broken=(5, 17))}"
    recipe = stream_recipe(optim__accumulation_steps=2, data__stream_images=24, data__streams=2)
    whole = train(recipe, data, tmp_path / "whole")
    train(recipe, data, tmp_path / "parts", steps=1)
    assert differences(train(recipe, data, tmp_path / "parts", resume=True), whole) == []
    named = ["00005.png in shard-001.tar", "00017.png in shard-004.tar"]
    found = sorted(whole["position"]["unreadable"].values())
    assert found == [f"{name} is unreadable: not an image" for name in named]


def seen_by(recipe: Recipe, data: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    batches: list[list[int]] = []
    former = Trainer._micro_step

    def look(trainer: Trainer, batch: dict[str, Any]) -> Any:
        batches.append(batch["index"].tolist())
        return former(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_micro_step", look)
        train(recipe, data, folder)
    return batches


def test_an_epoch_sees_each_image_once_with_the_views_of_its_number(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    batches = seen_by(stream_recipe(data__streams=1), f"wds/{shards}", tmp_path, monkeypatch)
    epochs = [[*itertools.chain(*batches[:3])], [*itertools.chain(*batches[3:])]]
    assert [len(set(epoch)) for epoch in epochs] == [24, 24]
    assert epochs[0] != epochs[1]
    whole = open_data(stream_recipe(), f"wds/{shards}").train
    assert isinstance(whole, StreamSource)
    known = {image.number for shard in range(8) for image in whole.shards.images(shard)}  # type: ignore[union-attr]
    assert set(epochs[0]) | set(epochs[1]) <= known
    assert len(known) == 26


@pytest.mark.slow
def test_two_processes_train_the_student_of_one(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    recipe = toy_recipe_file(tmp_path, "disco", **{**NORM_FREE, **STREAMS, "data__stream_images": 26})
    arguments = (recipe, "--data", f"wds/{shards}", "--steps", 2)
    results = finish(start_training(2, *arguments, "--out", tmp_path / "two", cwd=tmp_path))
    assert [code for code, _, _ in results] == [0, 0], results
    assert (
        main(["train", *map(str, arguments), "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "one")]) == 0
    )
    one, two = (checkpoint_of(tmp_path / name)["method"] for name in ("one", "two"))
    for key, value in one.items():
        if "queue" in key and value.ndim == 2:  # the same rows; each process gives those of its streams
            value, two[key] = (rows[rows[:, 0].argsort()] for rows in (value, two[key]))
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("declared", [True, False])
def test_the_hub_stream_gives_the_pixels_of_its_parquet(declared: bool, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    hub = make_hub(tmp_path, declared=declared)
    source = open_data(stream_recipe(), f"hfids/{hub}").train
    assert isinstance(source, StreamSource)
    assert source.shards is not None
    assert source.shards.num_shards == 4
    found = [image for shard in range(4) for image in source.shards.images(shard)]
    rows = open_source(hub / "data")
    assert len(found) == len(rows) == 26
    for row, image in enumerate(found):
        pixels = np.asarray(Image.open(io.BytesIO(image.read())).convert("RGB"))
        assert np.array_equal(pixels, np.asarray(rows.image(row)))


# --- what streams cannot do ---


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_or_refuses_in_words(method: str, shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data: Any = f"wds/{shards}"
    recipe = method_recipe(method, **STREAMS, data__stream_images=26)
    if METHODS[method].needs_index:
        with pytest.raises(
            BadData, match=rf"training by {method} .* needs a source with an index.*disco-zoo data index"
        ):
            train(recipe, data, tmp_path)
        assert method in ("bingo", "crd")
        return
    assert train(recipe, data, tmp_path, steps=1)["position"]["step"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__max_images": 5}, r"data\.max_images .* needs a source with an index"),
        ({"teacher__cache_views": 2}, r"teacher\.cache_views .* needs a source with an index"),
        ({"data__stream_images": None}, r"nobody says how many images .*--set data\.stream_images=NUMBER"),
    ],
)
def test_what_needs_numbers_is_refused(changes: dict[str, Any], words: str, shards: Path) -> None:
    pytest.importorskip("webdataset")
    with pytest.raises(BadData, match=words):
        open_data(stream_recipe(**changes), f"wds/{shards}")


def test_a_cached_teacher_is_refused(shards: Path) -> None:
    pytest.importorskip("webdataset")
    recipe = method_recipe("compress_1q", method__cached_teacher=True, data__stream_images=26)
    recipe.method["cached_teacher"] = True
    with pytest.raises(BadData, match=r"training by compress_1q .* needs a source with an index"):
        open_data(recipe, f"wds/{shards}")


def test_the_length_is_the_sources_own_where_it_says_one(shards: Path) -> None:
    pytest.importorskip("webdataset")
    recipe = stream_recipe(data__stream_images=None)
    assert len(open_data(recipe, f"wds/{shards}/shard-{{000..003}}.tar|13").train) == 13
    assert len(open_data(stream_recipe(), f"wds/{shards}/shard-{{000..003}}.tar|13").train) == 26


def test_shards_and_length_of_an_info_file(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    for shard in shards.glob("*.tar"):
        (tmp_path / shard.name).symlink_to(shard)
    names = [f"shard-{number:03d}.tar" for number in range(4)]
    split = {"name": "train", "num_samples": 13, "filenames": names, "shard_lengths": [3, 4, 3, 3]}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": split}}))
    source = open_data(stream_recipe(data__stream_images=None), f"wds/{tmp_path}").train
    assert isinstance(source, StreamSource)
    assert source.shards is not None
    assert (len(source), source.shards.num_shards) == (13, 4)


@pytest.mark.parametrize(
    ("changes", "processes", "words"),
    [
        ({"data__streams": 16}, 1, r"a forward takes 8 images, no multiple of it\. Type: --set data\.streams=8"),
        ({"data__streams": 3}, 1, r"data\.streams 3: .*--set data\.streams=2"),
        ({"data__streams": 8, "optim__accumulation_steps": 2}, 1, r"a forward takes 4 images.*data\.streams=4"),
        ({"data__streams": 1}, 2, r"2 processes cannot share them equally\. Type: --set data\.streams=2"),
        ({"optim__batch_size": 16, "data__streams": 16}, 1, r"has 8 shards\. Type: --set data\.streams=8"),
        ({"optim__batch_size": 18, "data__streams": 9}, 9, r"has 8 shards, too few for 9 processes"),
    ],
)
def test_streams_that_cannot_be_shared(changes: dict[str, Any], processes: int, words: str, shards: Path) -> None:
    pytest.importorskip("webdataset")
    recipe = stream_recipe(**changes)
    with pytest.raises(BadRecipe, match=words):
        require_streams(recipe, open_data(recipe, f"wds/{shards}").train, processes)


def test_other_shards_are_not_resumed_and_test_shards_not_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data: Any = f"wds/{make_shards(tmp_path / 'shards', [4] * 6)}"
    recipe = stream_recipe(data__stream_images=24)
    train(recipe, data, tmp_path / "run", steps=1)
    make_shards(tmp_path / "shards", [4] * 7)
    with pytest.raises(BadRunFolder, match="holds a run on other images"):
        train(recipe, data, tmp_path / "run", resume=True)
    make_shards(tmp_path / "shards", [9], prefix="val")
    source = open_data(recipe, data).train
    assert isinstance(source, StreamSource)
    assert source.shards is not None
    assert source.shards.num_shards == 7


def test_a_shard_that_goes_away_ends_the_run_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    folder = make_shards(tmp_path / "shards", [4] * 6)
    opened = open_data(stream_recipe(), f"wds/{folder}").train
    (folder / "shard-002.tar").unlink()
    assert isinstance(opened, StreamSource)
    with pytest.raises(BadData, match=r"shard .*shard-002.tar cannot be read: No such file"):
        list(shuffled_images(stream_recipe(), opened, 24))


def test_settings_of_streams_are_part_of_the_digest_and_leave_that_of_other_runs_alone() -> None:
    plain = toy_recipe("disco").digest()
    assert toy_recipe("disco", data__streams=16, data__shuffle_buffer=4096).digest() == plain
    others = {toy_recipe("disco", **{key: 8}).digest() for key in ("data__streams", "data__shuffle_buffer")}
    assert len(others | {plain, toy_recipe("disco", data__stream_images=8).digest()}) == 4


def test_inherited_weights_are_calibrated_on_the_streams_images(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data: Any = f"wds/{shards}"
    recipe = stream_recipe(student__model="test_resnet", student__init="inherit", student__recalibration_images=20)
    source = open_data(recipe, data).train
    assert isinstance(source, StreamSource)
    assert len(list(shuffled_images(recipe, source, 20))) == 20
    assert train(recipe, data, tmp_path, steps=1)["position"]["step"] == 1


def test_packing_shards_on_disk_goes_by_their_index(tmp_path: Path) -> None:
    make_shards(tmp_path / "s", [3, 3])
    source = open_source(f"wds/{tmp_path / 's'}/shard-{{000..001}}.tar|6")
    with pytest.raises(BadData, match=r"index them, then pack their folder\. Type: disco-zoo data index .*/s$"):
        PackJob([source], tmp_path / "out", PackSettings()).run()
