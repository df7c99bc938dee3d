"""Run as a process of its own: what an indexed source of many rows costs in memory, in MiB over the bare package.

Prints one JSON line. `opening` is the peak while it is opened and its fingerprint taken; `training` the peak
after an epoch's order is drawn and images of all parts read, too; `seconds` the time to open it and hash it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import torch  # noqa: F401 - part of what every run has loaded

import disco_zoo.training.epoch_loader
from disco_zoo.data.open_source import open_source
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.training.epoch_loader import BatchShare

STATUS = Path("/proc/self/status")


def memory_mib(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak_mib() -> float:
    return memory_mib("VmHWM")


def measure(folder: str, batches: int) -> dict[str, float]:
    warm = open_source(sys.argv[2])  # imports what reading needs, and Pillow's plugins
    load_or_replace(warm, 0)
    warm.fingerprint()
    before = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    begun = time.monotonic()
    source = open_source(folder)
    source.fingerprint()
    opening, seconds = peak_mib() - before, time.monotonic() - begun
    share = BatchShare(len(source), 64, num_batches=len(source) // 64, seed=0, epoch=0)
    for _, batch in zip(range(batches), share, strict=False):
        for index in batch:
            load_or_replace(source, index)
    assert source.labels is not None
    return {"opening": opening, "training": peak_mib() - before, "seconds": seconds}


if __name__ == "__main__":
    assert disco_zoo.training.epoch_loader is not None
    print(json.dumps(measure(sys.argv[1], int(sys.argv[3]))))
