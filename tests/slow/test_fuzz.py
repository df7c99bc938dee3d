"""Files and recipes with random faults: one line or a result, never a traceback, and never a hang.

`DISCO_ZOO_FUZZ=0.1` runs a tenth of the examples. The examples are the same each time.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_makers import encode, make_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import moco_state
from tiny_runs import toy_images, toy_values

from disco_zoo.config.recipe import load_recipe, parse_recipe
from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.data.open_source import open_source
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.errors import BadCheckpoint, DiscoZooError
from disco_zoo.tasks.detection.data import open_annotated_pair
from disco_zoo.weights.convert import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * 3600)]

SHARE = float(os.environ.get("DISCO_ZOO_FUZZ", "1"))


def campaign(examples: int) -> Callable[[Any], Any]:
    """So many examples, the same each time."""
    return settings(
        max_examples=max(1, round(examples * SHARE)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["disco", "sgd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), VALUES), min_size=1, max_size=4)
DAMAGE = st.tuples(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), st.none() | st.floats(0, 1)
)


def one_line(work: Callable[[], object], kind: type[DiscoZooError] = DiscoZooError) -> None:
    """It works, or says in one line why not."""
    try:
        work()
    except kind as error:
        text = str(error)
        assert text.strip()
        assert "\n" not in text
        assert "Traceback" not in text


def changed(values: dict[str, Any], changes: list[tuple[int, int, Any]]) -> dict[str, Any]:
    """Some entries, at any depth, with another value or without any."""
    values = copy.deepcopy(values)
    for where, how, value in changes:
        holders = [values]
        for holder in holders:
            inner = holder.values() if isinstance(holder, dict) else holder
            holders += [one for one in inner if isinstance(one, dict | list) and one]
        holder: Any = holders[where % len(holders)]
        keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
        if not keys:
            continue
        key = keys[how % len(keys)]
        if how % 5 == 0:
            del holder[key]
        else:
            holder[key] = value
    return values


def damaged(content: bytes, damage: tuple[list[tuple[int, int]], float | None]) -> bytes:
    """Some bytes changed, and perhaps the end cut off."""
    edits, share = damage
    found = bytearray(content)
    for place, byte in edits:
        # Half of them at the beginning, where headers are.
        found[place % (len(found) if place % 2 else min(512, len(found)))] = byte
    return bytes(found if share is None else found[: int(share * len(found))])


@campaign(8000)
@given(CHANGES)
def test_recipes_as_values(changes: list[tuple[int, int, Any]]) -> None:
    one_line(lambda: parse_recipe(changed(toy_values(), changes), origin="toy"))


@campaign(2000)
@given(damage=DAMAGE)
def test_recipes_as_files(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(damaged(dump_yaml(toy_values()).encode(), damage))
    one_line(lambda: load_recipe(str(path)))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of each container, by suffix."""
    folder = tmp_path_factory.mktemp("checkpoints")
    state = {key: value[:2].clone() if value.ndim else value for key, value in [*moco_state().items()][:40]}
    torch.save({"state_dict": state}, folder / "new.pth")
    torch.save({"state_dict": state}, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "a.safetensors")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@campaign(10000)
@given(kind=st.sampled_from([".pth", ".pt", ".safetensors"]), damage=DAMAGE)
def test_checkpoints(kind: str, damage: Any, checkpoints: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"file{kind}"
    path.write_bytes(damaged(checkpoints[kind], damage))
    one_line(lambda: read_checkpoint(path), BadCheckpoint)


def read_all(path: Path) -> None:
    for split in ("train", "test"):
        try:
            source = open_source(str(path), split)
        except DiscoZooError as error:
            one_line_error = str(error)
            assert "\n" not in one_line_error
            continue
        for index in range(min(len(source), 8)):
            one_line(lambda at=index, of=source: load_or_replace(of, at))  # type: ignore[misc]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("tables")
    images = [encode(image) for image in toy_images(6, seed=0)]
    cells = [{"bytes": content, "path": f"{n}.png"} for n, content in enumerate(images)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 2] * 2}), folder / "a.parquet")
    make_tar(folder / "a.tar", {f"{n % 3}/{n}.png": content for n, content in enumerate(images)})
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@campaign(2000)
@given(kind=st.sampled_from([".parquet", ".tar"]), damage=DAMAGE)
def test_parquet_and_tar(kind: str, damage: Any, tables: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"photos{kind}"
    path.write_bytes(damaged(tables[kind], damage))
    read_all(path)


COCO = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 16} for n in range(3)],
    "annotations": [
        {
            "id": n,
            "image_id": n,
            "category_id": 1,
            "bbox": [1, 1, 8, 8],
            "area": 64,
            "iscrowd": 0,
            "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]],
        }
        for n in range(3)
    ],
    "categories": [{"id": 1, "name": "hen"}],
}


@campaign(2000)
@given(changes=CHANGES)
def test_coco(changes: list[tuple[int, int, Any]], tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = tmp_path / split
        folder.mkdir(exist_ok=True)
        for number, image in enumerate(toy_images(3, seed=0)):
            if not (folder / f"{number}.png").exists():
                image.save(folder / f"{number}.png")
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(COCO), encoding="utf-8")
    text = json.dumps(changed(COCO, changes))
    (tmp_path / "annotations" / "instances_train.json").write_text(text, encoding="utf-8")
    one_line(lambda: open_annotated_pair(str(tmp_path), None))
