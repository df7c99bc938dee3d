"""Webdataset shards for the tests, and an index whose rows repeat those of a small one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from data_makers import encode, make_tar
from tiny_runs import toy_images

from disco_zoo.shard_index import FACTS_FILE, LABELS_FILE, ROW, ROWS_FILE, ShardIndex, index_facts, read_index


def make_shards(
    folder: Path, counts: list[int], *, prefix: str = "shard", labels: str = "cls", broken: tuple[int, ...] = ()
) -> Path:
    """Shards of `counts` toy images each; image i of all is of class i % 3; `broken` ones hold no image."""
    folder.mkdir(parents=True, exist_ok=True)
    images = iter(enumerate(toy_images(sum(counts), seed=0)))
    for shard, count in enumerate(counts):
        members = {}
        for _ in range(count):
            number, image = next(images)
            members[f"{number:05d}.png"] = b"no image" if number in broken else encode(image)
            if labels == "cls":
                members[f"{number:05d}.cls"] = str(number % 3).encode()
            elif labels == "json":
                members[f"{number:05d}.json"] = json.dumps({"label": ["red", "green", "blue"][number % 3]}).encode()
        make_tar(folder / f"{prefix}-{shard:03d}.tar", members)
    return folder


def repeat_rows(index: ShardIndex, path: Path, images: int) -> ShardIndex:
    """An index of `images` rows over the one shard of `index`, which repeat its own."""
    path.mkdir(parents=True)
    for name, dtype in ((ROWS_FILE, ROW), (LABELS_FILE, np.dtype("<i4"))):
        few = np.fromfile(index.path / name, dtype)
        np.resize(few, images).tofile(path / name)
    (shard,) = index.shards
    facts = index_facts(str(index.folder), [dataclasses.replace(shard, images=images)], index.class_names)
    (path / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
    return read_index(path)
