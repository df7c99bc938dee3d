"""Webdataset shards for the tests."""

from __future__ import annotations

import json
from pathlib import Path

from data_makers import encode, make_tar
from tiny_runs import toy_images


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
