"""Memory that training steps keep: fewer page faults while they last, all of it given back after them; and gaps."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from disco_zoo.core import process
from disco_zoo.core.process import USERS_OWN, KeptMemory, give_back_free_memory

glibc_alone = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc here")


@pytest.fixture(autouse=True)
def _as_glibc_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in USERS_OWN:
        monkeypatch.delenv(name, raising=False)


class Steps:
    """Training steps with activations of 36 MiB, which glibc's heap does not take by itself."""

    def __init__(self) -> None:
        self.network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
        self.images = torch.rand(9, 3, 256, 256)

    def faults(self, steps: int) -> int:
        """Page faults of so many steps."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(steps):
            self.network(self.images).mean().backward()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@glibc_alone
def test_pages_of_a_step_serve_the_next_ones_and_go_back_at_the_end() -> None:
    steps = Steps()
    with KeptMemory("cpu") as memory:
        steps.faults(2)
        plain = steps.faults(2)
        memory.after_step()
        assert memory.is_kept
        steps.faults(3)
        kept = steps.faults(2)
        held = resident_bytes()
    assert held - resident_bytes() > 32 * 2**20
    assert kept < plain / 4
    assert steps.faults(2) > 2 * kept


@glibc_alone
def test_it_ends_where_gaps_take_much(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([100.0, 150.0, 151.0])
    monkeypatch.setattr(process, "peak_memory_mib", lambda: next(peaks))
    with KeptMemory("cpu") as memory:
        found = []
        for _ in range(4):  # the last asks no more
            memory.after_step()
            found.append(memory.is_kept)
    assert found == [True, True, False, False]


@glibc_alone
def test_little_free_memory_an_accelerator_or_the_users_settings_leave_all_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_kept(device: str = "cpu") -> bool:
        with KeptMemory(device) as memory:
            memory.after_step()
            return memory.is_kept

    assert is_kept()
    assert not is_kept("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(process, "available_bytes", lambda: 2**20)
        assert not is_kept()
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert not is_kept()


@glibc_alone
def test_gaps_between_blocks_go_back() -> None:
    blocks = [torch.ones(2**13) for _ in range(3000)]  # 32 KiB each: from the heap
    held = resident_bytes()
    blocks = blocks[::30]  # what stays keeps malloc from giving back what lies below it
    give_back_free_memory()
    assert held - resident_bytes() > 64 * 2**20
    assert all(block.sum() == 2**13 for block in blocks)


@glibc_alone
def test_an_evaluation_leaves_the_memory_that_steps_keep() -> None:
    """Else the huge pages of a training go back with the first kNN."""
    with KeptMemory("cpu") as memory:
        memory.after_step()
        blocks = [torch.ones(2**13) for _ in range(3000)]
        held = resident_bytes()
        blocks = blocks[::30]
        give_back_free_memory()
        assert held - resident_bytes() < 16 * 2**20
    assert held - resident_bytes() > 64 * 2**20
    assert all(block.sum() == 2**13 for block in blocks)


@glibc_alone
def test_a_heap_of_full_size_is_collapsed_and_then_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(process, "collapse_memory", lambda: calls.append(len(after)))
    after: list[bool] = []
    monkeypatch.setattr(process, "STEPS_BETWEEN_COLLAPSES", 10)
    with KeptMemory("cpu", steps_to_collapse=3) as memory:
        for _ in range(26):
            memory.after_step()
            after.append(memory.is_kept)
    assert after == [True] * 26
    assert calls == [2, 12, 22]
