"""Memory of an indexed source by the row, measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repeated_index import repeat_rows
from shard_makers import make_shards
from tiny_runs import ROOT, subprocess_environment

from disco_zoo.data.webdataset.index_build import build_index

BASE_MIB = 10.0  # whatever the number of rows
ROW_BYTES = 30  # 16 of the index, 8 of the epoch's order, 4 of the label


def measured(tmp_path: Path, rows: int, batches: int) -> dict[str, float]:
    few = build_index(make_shards(tmp_path / "few", [64]))[0]
    repeat_rows(few, tmp_path / "many", rows)
    arguments = [ROOT / "tests" / "helpers" / "rows_memory.py", tmp_path / "many", tmp_path / "few", batches]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("rows", [10**6, 10**7])
def test_memory_by_the_row(rows: int, tmp_path: Path) -> None:
    found = measured(tmp_path, rows, batches=200)
    shown = f"opened and hashed in {found['seconds']:.1f} s with {found['opening']:.0f} MiB"
    print(f"{rows:,} rows: {shown}, in training {found['training']:.0f} MiB")
    assert found["opening"] < BASE_MIB + 5 * rows / 2**20  # the labels, looked at once
    assert found["training"] < BASE_MIB + ROW_BYTES * rows / 2**20 < 300
    assert found["training"] > 8 * rows / 2**20  # the order alone: the measure measures
    assert found["seconds"] < 5
