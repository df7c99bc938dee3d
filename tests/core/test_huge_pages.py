"""Memory moves into huge pages and keeps what it holds; where these are unwanted, nothing happens."""

from __future__ import annotations

import mmap
import platform
from pathlib import Path

import pytest
import torch

from disco_zoo.core import huge_pages
from disco_zoo.core.huge_pages import MIB, collapse_memory


def version() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())


can_collapse = pytest.mark.skipif(
    platform.system() != "Linux" or version() < (6, 1) or not huge_pages._are_wanted(),
    reason="this system has no huge pages to move memory into",
)


def huge_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:")) / 1024


@can_collapse
def test_what_is_there_moves_into_huge_pages() -> None:
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE) as memory:
        numbers = torch.frombuffer(memory, dtype=torch.int64)
        numbers.copy_(torch.arange(len(numbers)))
        before = huge_mib()
        collapse_memory()
        assert huge_mib() > before
        assert torch.equal(numbers, torch.arange(len(numbers)))
        del numbers


@can_collapse
@pytest.mark.parametrize(
    ("enabled", "size"), [("always madvise [never]", "2097152"), ("[madvise]", "536870912"), (None, None)]
)
def test_where_they_are_unwanted_or_unlike_nothing_moves(
    enabled: str | None, size: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if enabled is not None and size is not None:
        (tmp_path / "enabled").write_text(enabled)
        (tmp_path / "hpage_pmd_size").write_text(size)
    monkeypatch.setattr(huge_pages, "SETTINGS", tmp_path)
    monkeypatch.setattr(huge_pages, "_heaps", lambda: pytest.fail("memory was looked for"))
    collapse_memory()
