"""Huge pages for memory that this process holds already."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20
MADV_COLLAPSE = 25  # of mman.h, madvise(2): Linux 6.1 and later
SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")


def collapse_memory() -> None:
    """Have Linux put this process's memory into pages of 2 MiB, in place of 4 KiB; what they hold stays.

    The processor then finds most addresses without walking the page tables, a walk that is longest in a virtual
    machine. glibc's malloc asks for no such pages by itself. It takes some seconds for a GiB, once, and fills the gaps
    of a heap.

    Nothing happens on another system than Linux, where huge pages are switched off or are larger, or before Linux 6.1.
    Memory that the kernel finds no huge page for stays as it is.
    """
    if sys.platform != "linux" or not _are_wanted():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in _heaps():
        madvise(start, end - start, MADV_COLLAPSE)


def _are_wanted() -> bool:
    try:
        enabled, size = ((SETTINGS / name).read_text("utf-8") for name in ("enabled", "hpage_pmd_size"))
    except OSError:
        return False
    return "[never]" not in enabled and int(size) == 2 * MIB


def _heaps() -> Iterator[tuple[int, int]]:
    """(start, end) of private, writable memory of 4 MiB and more without a file: malloc's heaps, of all threads."""
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        if permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"]) and end - start >= 4 * MIB:
            yield start, end
