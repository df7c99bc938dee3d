"""What the product computes, as one JSON file, so that a change of its structure can be shown to change no number.

    python tests/helpers/golden_record.py record before.json   # at one commit
    python tests/helpers/golden_record.py record after.json    # at another, on the same machine
    python tests/helpers/golden_record.py compare before.json after.json

Recorded through the command line alone: 20 steps of every method (losses and student), cached teacher rows, figures of
`evaluate` under each preset, a fine-tuned classifier, embeddings, exported files, and all text made from the catalog.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from method_runs import OPTIONS, method_values
from safetensors.numpy import load_file
from tiny_runs import toy_parquet

from disco_zoo.cli import main
from disco_zoo.core.yaml_io import dump_yaml

STEPS = 20
PROBES = ("fast", "disco", "moco", "seed", "bingo_r", "compress", "swav", "ssl_small")
# Times, speeds and places differ from run to run.
UNSTABLE = ("images_per_s", "data_wait_share", "seconds", "command", "date")


def run(*args: str) -> str:
    """Standard output of a command that must succeed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(args)
    if code:
        raise SystemExit(f"disco-zoo {' '.join(args)}\nexit code {code}\n{err.getvalue()}")
    return out.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def tensors(path: Path) -> str:
    """Names, shapes and values of a safetensors file; not its metadata, which may name a version."""
    state = load_file(path)
    return digest(
        b"".join(name.encode() + str(state[name].shape).encode() + state[name].tobytes() for name in sorted(state))
    )


def stable(value: Any) -> Any:
    """A result without times and paths."""
    if isinstance(value, dict):
        return {
            key: stable(item)
            for key, item in value.items()
            if not any(word in key for word in UNSTABLE) and not str(item).startswith(tempfile.gettempdir())
        }
    return [stable(item) for item in value] if isinstance(value, list) else value


def record_methods(folder: Path, data: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in OPTIONS:
        for cached in (False, True):
            values = method_values(method, optim__epochs=STEPS // 3 + 1)
            if cached:
                if "teacher" not in values:
                    continue
                values["teacher"]["cache_views"] = 4
            name = f"{method}{'_cached' if cached else ''}"
            path, out = folder / f"{name}.yaml", folder / name
            path.write_text(dump_yaml(values), encoding="utf-8")
            run("train", str(path), "--data", str(data), "--out", str(out), "--steps", str(STEPS), "--workers", "0")
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            found[f"train.{name}.metrics"] = [stable(line) for line in lines]
            found[f"train.{name}.student"] = tensors(out / "student.safetensors")
    arrays = [path for name in ("rows.f16", "pairs.u32") for path in Path(os.environ["DISCO_ZOO_CACHE"]).rglob(name)]
    assert arrays, "no cache was left: its files have other names now"
    return found | {f"cache.{path.parent.name}.{path.name}": digest(path.read_bytes()) for path in sorted(arrays)}


def record_use(folder: Path) -> dict[str, Any]:
    """Measuring, fine-tuning, embedding and exporting a student."""
    data = toy_parquet(folder / "labelled", num_train=240, num_test=48)
    model, found = str(folder / "disco"), {}
    common = ("--data", str(data), "--workers", "0", "--json")
    found["evaluate.knn"] = stable(json.loads(run("evaluate", "knn", model, *common)))
    for protocol in PROBES:
        limit = () if protocol == "fast" else ("--epochs", "2", "--batch-size", "8")
        found[f"evaluate.{protocol}"] = stable(
            json.loads(run("evaluate", "linear", model, *common, "--protocol", protocol, *limit))
        )
    tuned = folder / "tuned"
    run(
        "finetune",
        model,
        "--data",
        str(data),
        "--out",
        str(tuned),
        "--workers",
        "0",
        "--set",
        "epochs=2",
        "--set",
        "batch_size=8",
    )
    found["finetune"] = tensors(next(tuned.rglob("*.safetensors")))
    run("embed", str(data), "--model", model, "--out", str(folder / "rows.npy"), "--workers", "0")
    found["embed"] = digest(np.load(folder / "rows.npy").tobytes())
    run("export", model, "--out", str(folder / "student.onnx"))
    found["export"] = (folder / "student.onnx").stat().st_size
    return found


def record_texts() -> dict[str, Any]:
    names = [row["name"] for row in json.loads(run("list", "--json"))]
    found = {"list": run("list"), "list.teachers": run("list", "--teachers")}
    for name in names:
        found[f"card.{name}"] = digest(run("card", name).encode())
        found[f"show.{name}"] = digest(run("show", name).encode())
    for name in run("train", "--list").split():
        if "/" in name:
            found[f"recipe.{name}"] = digest(run("train", name, "--print").encode())
    return found


def record(target: Path) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DISCO_ZOO_CACHE"], os.environ["DISCO_ZOO_HOME"] = f"{scratch}/cache", f"{scratch}/home"
        folder = Path(scratch)
        data = toy_parquet(folder / "data")
        found = {**record_texts(), **record_methods(folder, data), **record_use(folder)}
    target.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    print(f"{len(found)} values in {target}")


def compare(before: Path, after: Path) -> int:
    old, new = (stable(json.loads(path.read_text())) for path in (before, after))
    different = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    for key in different:
        print(f"{key}\n  before {str(old.get(key))[:300]}\n  after  {str(new.get(key))[:300]}")
    print(f"{len(old)} values before, {len(new)} after, {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", target]:
            record(Path(target))
        case ["compare", before, after]:
            sys.exit(compare(Path(before), Path(after)))
        case _:
            sys.exit(__doc__)
