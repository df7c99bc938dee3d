"""Builds of an index that are cut off: nothing half-written is trusted, no shard is read twice, the same bytes."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shard_makers import make_shards
from tiny_runs import subprocess_environment

from disco_zoo.errors import CannotWrite
from disco_zoo.shard_index import find_index
from disco_zoo.shard_index_build import _Build, build_index


def index_bytes(path: Path) -> dict[str, bytes]:
    """Content of the files, but for the times at which the shards were written."""
    files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    return {name: re.sub(rb'"modified_ns": \d+', b"", content) for name, content in files.items()}


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disco_zoo.shard_index_build.COMMIT_SECONDS", 0.0)
    make_shards(tmp_path / "a", [3, 2, 4, 1, 5, 2], labels="json")
    make_shards(tmp_path / "b", [3, 2, 4, 1, 5, 2], labels="json")
    add, added = _Build._add, []

    def add_or_fail(build: _Build, name: str, files: object) -> None:
        if len(added) == stop_at:
            raise KeyboardInterrupt
        added.append(name)
        add(build, name, files)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(_Build, "_add", add_or_fail)
        with pytest.raises(KeyboardInterrupt):
            build_index(tmp_path / "a")
    assert find_index(tmp_path / "a") is None
    with (tmp_path / "a" / ".disco_index.partial" / "rows.bin").open("ab") as file:
        file.write(b"torn")  # written, and never said to be
    monkeypatch.setattr(_Build, "_add", lambda build, name, files: (added.append(name), add(build, name, files))[1])
    resumed, whole = build_index(tmp_path / "a")[0], build_index(tmp_path / "b")[0]
    assert added[:6] == sorted(set(added))  # none was read twice
    assert index_bytes(resumed.path) == index_bytes(whole.path)


def test_a_killed_build_leaves_nothing_that_is_trusted_and_goes_on(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "a", [2] * 300)
    plain = build_index(make_shards(tmp_path / "b", [2] * 300))[0]
    code = "import pathlib, sys, disco_zoo.shard_index_build as b; b.COMMIT_SECONDS = 0.0; "
    code += "b.build_index(pathlib.Path(sys.argv[1]))"
    journal = shards / ".disco_index.partial" / "journal.jsonl"
    build = subprocess.Popen([sys.executable, "-c", code, str(shards)], env=subprocess_environment())
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < deadline:
        assert build.poll() is None
        time.sleep(0.001)
    build.send_signal(signal.SIGKILL)
    build.wait()
    assert find_index(shards) is None
    index, _ = build_index(shards)
    assert index_bytes(index.path) == index_bytes(plain.path)


def test_no_room_is_one_line_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real limit on the size of files, which the rows of the fifth shard exceed."""
    monkeypatch.setattr("disco_zoo.shard_index_build.COMMIT_SECONDS", 0.0)
    whole = build_index(make_shards(tmp_path / "b", [100] * 8))[0]
    shards = make_shards(tmp_path / "a", [100] * 8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, hard))
    try:
        with pytest.raises(CannotWrite, match=r"cannot write .*disco_index: File too large\. Make room.*repeat"):
            build_index(shards)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert find_index(shards) is None
    kept = (shards / ".disco_index.partial" / "journal.jsonl").read_text().splitlines()
    assert len(kept) == 4
    assert index_bytes(build_index(shards)[0].path) == index_bytes(whole.path)


def test_shards_of_the_same_size_written_anew_are_indexed_anew(tmp_path: Path) -> None:
    """Tars are padded: other labels need not change the size."""
    make_shards(tmp_path, [3, 2], labels="json")
    assert build_index(tmp_path)[1]
    assert not build_index(tmp_path)[1]
    shard = next(iter(sorted(tmp_path.glob("*.tar"))))
    stat = shard.stat()
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert build_index(tmp_path)[1]
