"""A cache on disk: what is damaged, cut, gone or not to be written is found and said, and nothing of it is trusted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_runs import NUM_IMAGES, build, cache_of, cached_recipe, content

from disco_zoo.errors import BadCache, UnknownName
from disco_zoo.teacher_cache import inventory
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import Block, Done, Journal, missing_blocks

pytest_plugins = ("cache_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread", "own_caches")
WIDTH = 96  # features of the toy teacher


def test_a_whole_cache_that_may_not_be_written_is_read(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(build(cached_recipe(4), few))

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(cache.lock), "acquire", refuse)
    assert content(cache_of(build(cached_recipe(2), few))) == content(cache)
    with pytest.raises(BadCache, match=r"cannot write the teacher cache .*: Permission denied"):
        build(cached_recipe(6), few)


def test_damaged_blocks_are_found_struck_out_and_built_again(many: Path) -> None:
    cache = cache_of(build(cached_recipe(2), many))
    whole = content(cache)
    with (cache.path / "rows.f16").open("rb+") as file:
        file.seek((NUM_IMAGES + 70) * WIDTH * 2 + 11)  # slot 1 of image 70
        file.write(b"\x55")
    (damaged,) = cache.damaged()
    assert (damaged.first, damaged.first_slot, damaged.slots) == (64, 0, 2)
    cache.strike_out([damaged])
    assert cache.missing(2).tolist() == [[False, False], [True, True], [False, False]]
    build(cached_recipe(2), many)
    assert cache.damaged() == []
    assert content(cache) == whole


@pytest.mark.parametrize("size", [0, 1000], ids=["gone", "cut"])
@pytest.mark.parametrize("name", ["rows.f16", "pairs.u32"])
def test_a_file_that_is_gone_or_cut_is_built_again(name: str, size: int, many: Path) -> None:
    cache = cache_of(build(cached_recipe(2), many))
    whole = content(cache)
    with (cache.path / name).open("rb+") as file:
        file.truncate(size)
    assert cache.missing(2)[:, 1].all()
    build(cached_recipe(2), many)
    assert content(cache) == whole


def test_half_a_line_counts_for_nothing_and_swallows_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path, images=200)
    for first in (0, 64):
        journal.append(Done(first, 0, 2, 7), writer=0)
    path = tmp_path / "done-0.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert [done.first for done in journal.read()] == [0]
    journal.append(Done(128, 0, 2, 7), writer=0)
    assert [done.first for done in journal.read()] == [0, 128]
    (tmp_path / "done-1.jsonl").write_text(
        '{"first": 999999, "first_slot": 0, "slots": 1, "crc": 1}\n[]\n{"first": -64}\n'
    )
    assert [done.first for done in journal.read()] == [0, 128]
    assert journal.coverage(3).tolist() == [[True, True, False], [False] * 3, [True, True, False], [False] * 3]


def test_missing_blocks_join_neighbouring_slots_up_to_a_limit() -> None:
    missing = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    found = [Block(0, 0, 2), Block(0, 3, 2), Block(128, 0, 3), Block(128, 3, 2)]
    assert missing_blocks(missing, 3) == found


def test_a_cache_is_found_by_the_beginning_of_its_id(few: Path, own_caches: Path) -> None:
    cache = cache_of(build(cached_recipe(2), few))
    assert inventory.find_cache(cache.path.name[:5]).path == cache.path
    with pytest.raises(UnknownName, match=r"there is no cache 'zz'.*disco-zoo cache list"):
        inventory.find_cache("zz")
    (cache.path.parent / (cache.path.name[:5] + "0" * 11)).mkdir()
    with pytest.raises(UnknownName, match="several caches begin with"):
        inventory.find_cache(cache.path.name[:5])
    other = inventory.find_cache(cache.path.name)
    with cache.claimed(), pytest.raises(BadCache, match="being built by another process"):
        inventory.remove(other)
    inventory.remove(cache)
    assert not cache.path.exists()


@pytest.mark.parametrize("code", [errno.EBADF, errno.EOPNOTSUPP])
def test_where_room_cannot_be_reserved_the_cache_is_built_all_the_same(
    code: int, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS before version 4.2, for one."""
    expected = content(cache_of(build(cached_recipe(2), few)))
    inventory.remove(inventory.caches()[0])

    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert content(cache_of(build(cached_recipe(2), few))) == expected


def test_a_cache_that_is_gone_while_it_is_read_is_said(few: Path) -> None:
    replay = build(cached_recipe(2), few)
    inventory.remove(cache_of(replay))
    with pytest.raises(BadCache, match=r"was removed while it was read\. Repeat the command with --resume"):
        _ = replay.epoch(0, None)[0]


def test_folders_without_files_are_verified_removed_and_not_listed(few: Path) -> None:
    cache = cache_of(build(cached_recipe(2), few))
    for name in ("rows.f16", "pairs.u32"):
        (cache.path / name).unlink()
    assert cache.damaged() == list(cache.journal.read()) != []
    cache.journal.rewrite([])
    assert cache.damaged() == []
    (cache.path / "cache.json").unlink()
    assert inventory.caches() == []
    (found,) = inventory.folders()
    inventory.remove(found)
    assert inventory.folders() == []


def test_a_folder_that_another_process_does_not_see_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadCache, match=r"not on a disk that all processes share\. For one: set DISCO_ZOO_CACHE"):
        CacheFolder(tmp_path / "elsewhere").require_seen({"key": {}, "images": 1, "width": 1})
