"""A disk without room is told from other errors, whichever library meets it first."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from disco_zoo.core.array_file import keep_array
from disco_zoo.core.files import says_no_room, scratch_folder, why_not_written, write_out, write_whole
from disco_zoo.errors import BadRunFolder, CannotWrite

FULL = Path("/dev/full")  # writes to it fail as on a full disk

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def by_numpy() -> None:
    with FULL.open("wb") as file:
        np.save(file, np.zeros(10**6))


def by_torch() -> None:
    with FULL.open("wb") as file:
        torch.save({"a": torch.zeros(10**6)}, file)


def by_arrow() -> None:
    with FULL.open("wb") as file:  # given a path, Arrow deletes what it failed to write, the device too
        pq.write_table(pa.table({"a": np.zeros(10**6)}), file)


def by_python() -> None:
    with FULL.open("w", encoding="utf-8") as file:
        file.write("a" * 10**6)


@pytest.mark.parametrize("write", [by_numpy, by_torch, by_arrow, by_python])
def test_every_writer_says_it_in_its_own_way(write: Callable[[], None]) -> None:
    with pytest.raises(Exception) as found:  # noqa: PT011 - of several libraries
        write()
    assert why_not_written(found.value) == "no space left"
    assert says_no_room(found.value)


def test_what_is_no_lack_of_room() -> None:
    assert not says_no_room(OSError(errno.EACCES, "Permission denied"))
    assert not says_no_room(ValueError("no space left"))
    with pytest.raises(RuntimeError) as found:
        torch.load(io.BytesIO(b"PK\x03\x04" + b"\0" * 200), weights_only=True)
    assert not says_no_room(found.value)
    assert says_no_room(OSError(errno.EFBIG, os.strerror(errno.EFBIG)))


def test_rows_of_an_embedding_end_in_one_line_and_leave_nothing_half(tmp_path: Path) -> None:
    def write(_: Path) -> dict[str, int]:
        by_numpy()
        return {}

    with pytest.raises(BadRunFolder, match="no space left"):
        keep_array(tmp_path / "part.npy", {"a": 1}, write)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_user_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="no space left"):
        write_out(tmp_path / "a.parquet", lambda _: by_arrow())


def test_safetensors(tmp_path: Path) -> None:
    with pytest.raises(Exception) as found:  # noqa: PT011 - safetensors' own kind
        save_file({"a": torch.zeros(10)}, tmp_path / "missing" / "a.safetensors")
    assert why_not_written(found.value) == os.strerror(errno.ENOENT)


def test_two_who_write_one_file_at_once_both_write_it_whole(tmp_path: Path) -> None:
    """Of two processes the later one's is there in the end; a lock of one process keeps itself out, too."""
    path = tmp_path / "weights.safetensors"

    def write(partial: Path) -> None:
        partial.write_text("first, ")
        write_whole(path, lambda other: other.write_text("second"))
        assert path.read_text() == "second"
        with partial.open("a") as file:
            file.write("whole")

    write_whole(path, write)
    assert path.read_text() == "first, whole"
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.json.partial").write_text("left by a killed process")
    write_whole(tmp_path / "a.json", lambda partial: partial.write_text("whole"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_a_scratch_folder_is_gone_in_the_end_and_so_is_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".model-abc.scratch").mkdir()
    (tmp_path / ".model-abc.scratch" / "half").write_text("left by a killed process")
    with scratch_folder(tmp_path, "model") as first, scratch_folder(tmp_path, "model") as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])  # the second leaves alone what is at work
        assert not any(first.iterdir())
    assert not any(tmp_path.iterdir())
