"""Turn finished folders of `reproduce` or `train`, one a seed, into a catalog row's `weights:` and `measured:` entries.

    python tools/bundle_weights.py runs/seed0 runs/seed1 runs/seed2 [--copy]

Prints YAML to paste into disco_zoo/zoo/catalog.yaml. With --copy the first folder's student goes into
disco_zoo/assets/weights/ under the checkpoint's name; without it only the figures are printed. A folder of `train` has
figures of the student alone, and does not say by which protocol.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from disco_zoo.core.files import sha256_of
from disco_zoo.weights.bundled import bundled_path
from disco_zoo.weights.golden import write_golden
from disco_zoo.weights.official import load_network
from disco_zoo.weights.store import GOLDEN_SUFFIX


def measured_entries(folders: list[Path], command: str) -> list[dict[str, Any]]:
    """One entry a subject and metric, with one value a folder.

    Raises:
        SystemExit: the folders are not runs of one checkpoint by different seeds.
    """
    facts = [json.loads((folder / "run.json").read_text()) for folder in folders]
    results = [_results(folder, fact) for folder, fact in zip(folders, facts, strict=True)]
    seeds = [result["seed"] for result in results]
    if len({result["name"] for result in results}) > 1 or len(set(seeds)) < len(seeds):
        raise SystemExit("the folders must hold runs of one checkpoint, each by another seed")
    hardware = facts[0]["hardware"]
    return [
        {
            "subject": subject,
            "metric": metric,
            "values": [round(result["figures"][subject][metric], 2) for result in results],
            "seeds": seeds,
            "protocol": results[0]["protocol"],
            "command": command or f"disco-zoo {results[0]['verb']} {results[0]['name']}",
            "hardware": f"{hardware['cpu_cores']} CPU cores ({hardware['cpu']})",
            "date": facts[0]["ended"][:10],
        }
        for subject, metrics in results[0]["figures"].items()
        for metric in metrics
    ]


def _results(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    file = folder / "results.json"
    if file.exists():
        return {"verb": "reproduce", **json.loads(file.read_text())}
    figures = {"student": facts["figures"]}
    return {"verb": "train", "name": facts["name"], "seed": facts["seed"], "figures": figures, "protocol": ""}


def copy_student(folder: Path) -> dict[str, Any]:
    """Copy a run's student into the package, with its golden features, and describe it as the catalog does."""
    facts = json.loads((folder / "run.json").read_text())
    target = bundled_path(f"{facts['name']}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / facts["student"]["file"], target)
    digest = sha256_of(target)
    if digest != facts["student"]["sha256"]:
        raise SystemExit(f"{folder} holds another student than its run.json describes")
    golden = target.with_name(target.stem + GOLDEN_SUFFIX)
    student = facts["student"]
    model = load_network(student["architecture"], load_file(target))
    write_golden(golden, model, student["image_size"])
    return {
        "source": "bundled",
        "file": target.name,
        "sha256": digest,
        "size_bytes": target.stat().st_size,
        "golden_sha256": sha256_of(golden),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--copy", action="store_true", help="put the first folder's student into the package")
    parser.add_argument("--command", default="", help="the command to record, free of paths of this machine")
    args = parser.parse_args()
    row: dict[str, Any] = {"weights": copy_student(args.folders[0])} if args.copy else {}
    row["measured"] = measured_entries(args.folders, args.command)
    print(yaml.safe_dump(row, sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**6), end="")


if __name__ == "__main__":
    main()
