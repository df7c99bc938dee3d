"""The commands that write for long, on toy inputs: each as a work in a folder that starts it, or goes on with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cache_runs import build as build_toy_cache
from cache_runs import cached_recipe
from embed_makers import tiny_job
from finetune_makers import run_finetune, toy_settings
from publish_helpers import NAME as PUBLISHED
from publish_helpers import own_catalog
from shard_makers import make_shards
from tiny import TinySource, write_moco_checkpoint
from tiny_runs import toy_parquet, toy_recipe, train

from disco_zoo.data.open_source import open_source
from disco_zoo.data.pack.images import PackSettings
from disco_zoo.data.pack.job import PackJob
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.tasks.finetune.run import open_labeled
from disco_zoo.weights import store
from disco_zoo.weights.official import convert_checkpoint
from disco_zoo.weights.publish.job import publish_weights

Work = Callable[[Path, Path, bool], Any]
"""Called with the folder of the inputs, the folder to work in, and whether to go on with what is there."""

CONVERTED = "disco_r18.seed_mocov2_r50_in1k"
REPO = f"org/{PUBLISHED}"


def make_inputs(folder: Path) -> Path:
    """What all of the works read."""
    toy_parquet(folder)
    toy_parquet(folder / "own")
    toy_parquet(folder / "many", num_train=150)  # three blocks of a cache
    make_shards(folder / "shards", [7, 5, 6, 4, 8])
    write_moco_checkpoint(folder / "moco.pth.tar")
    return folder


def pretrain(inputs: Path, folder: Path, resume: bool) -> None:
    recipe = toy_recipe("moco_v2", log__checkpoint_every_steps=1)
    begun = (folder / "run" / "checkpoint.pt").is_file()
    train(recipe, inputs / "toy_train.parquet", folder / "run", resume=resume and begun)


def build_cache(inputs: Path, folder: Path, resume: bool) -> None:
    os.environ["DISCO_ZOO_CACHE"] = str(folder / "caches")
    build_toy_cache(cached_recipe(), inputs / "many" / "toy_train.parquet")


def embed(inputs: Path, folder: Path, resume: bool) -> None:
    job = tiny_job(folder / "a.parquet", TinySource(22))
    job.run(resume=resume and job.out.with_name("a.parquet.parts").is_dir(), replace=resume)


def finetune(inputs: Path, folder: Path, resume: bool) -> None:
    begun = (folder / "run" / "checkpoint.pt").is_file()
    run_finetune(
        toy_settings(checkpoint_every_steps=1),
        open_labeled(str(inputs / "own" / "toy_train.parquet")),
        folder / "run",
        resume=resume and begun,
    )


def pack(inputs: Path, folder: Path, resume: bool) -> None:
    source, out = open_source(inputs / "toy_train.parquet", "train"), folder / "packed"
    PackJob([source], out, PackSettings(), shard_mb=1).run(resume=resume and (out / "pack.json").is_file())


def index(inputs: Path, folder: Path, resume: bool) -> None:
    build_index(inputs / "shards", folder / "index")


def convert(inputs: Path, folder: Path, resume: bool) -> None:
    convert_checkpoint(inputs / "moco.pth.tar", CONVERTED, out=folder / "r18.safetensors", overwrite=resume)


def install(inputs: Path, folder: Path, resume: bool) -> None:
    os.environ["DISCO_ZOO_HOME"] = str(folder / "home")
    convert_checkpoint(inputs / "moco.pth.tar", CONVERTED, install=True)


def publish(inputs: Path, folder: Path, resume: bool) -> None:
    """To the Hub that huggingface_hub's settings name."""
    os.environ["DISCO_ZOO_CATALOG"] = str(own_catalog(folder))  # or the checkout's would be rewritten
    publish_weights(PUBLISHED, "org", out=folder / "hub_folder")


def state_of(folder: Path) -> dict[str, Any]:
    """What decides: tensors of checkpoints, bytes of weights, tables and indexes. Times and dates are left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "checkpoint.pt":
            state = torch.load(path, weights_only=True)
            for key in ("position", "progress"):
                state.get(key, {}).pop("seconds", None)
                state.get(key, {}).pop("data_wait_seconds", None)
            found[name] = state
        elif path.is_file() and (path.suffix in KEPT or path.name == "index.json" or "hub_folder" in path.parts):
            found[name] = path.read_bytes()
    return found


KEPT = (".safetensors", ".parquet", ".npy", ".f16", ".u32", ".bin")


def is_installed_in(folder: Path) -> bool:
    """Whether the store of `install` is sound: a manifest whose file has the bytes that it names."""
    os.environ["DISCO_ZOO_HOME"] = str(folder / "home")
    found = store.installed(CONVERTED)
    return found is not None and found.golden.is_file()
