"""Embed more photos than one machine likes, on a Ray cluster: the same rows as `disco-zoo embed`.

    pip install "ray[data]"
    python examples/embed_with_ray.py photos/ vectors/

Spark does the same through mapInPandas: `disco_zoo.embed_batches` takes an iterator of batches and gives one of rows.
Without a cluster, `disco-zoo embed --shard I/N` shares the work among processes and machines.
"""

from __future__ import annotations

import argparse
from typing import Any

import ray

import disco_zoo


class Embedder:
    """One on each worker: the model is loaded once."""

    def __init__(self, model: str) -> None:
        self.model = disco_zoo.load_model(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (rows,) = disco_zoo.embed_batches([list(batch["bytes"])], self.model)
        return {"name": batch["path"], "vector": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder, also of a bucket")
    parser.add_argument("out", help="a folder for parquet files with columns name and vector")
    parser.add_argument("--model", default="disco_effb0")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    photos = ray.data.read_binary_files(args.photos, include_paths=True)
    rows = photos.map_batches(Embedder, fn_constructor_args=[args.model], batch_size=64, concurrency=args.workers)
    rows.write_parquet(args.out)


if __name__ == "__main__":
    main()
