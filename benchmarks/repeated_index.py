"""An index of as many rows as wanted over one small shard, whose images it repeats: size without the images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from disco_zoo.data.webdataset.index import FACTS_FILE, LABELS_FILE, ROW, ROWS_FILE, ShardIndex, index_facts, read_index


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
