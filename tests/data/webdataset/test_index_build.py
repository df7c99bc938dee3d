"""Builds of an index that are cut off: nothing half-written is trusted, no shard is read twice, the same bytes."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest
from data_makers import encode, make_tar
from paused import killed_at
from shard_makers import make_shards
from slow_params import slow_but
from tiny_runs import toy_images

from disco_zoo.cli import main
from disco_zoo.data.open_source import open_source
from disco_zoo.data.summary import look_facts
from disco_zoo.data.webdataset.index import FORMAT, ROW, ROWS_FILE, find_index
from disco_zoo.data.webdataset.index_build import _Build, build_index
from disco_zoo.errors import CannotWrite


def index_bytes(path: Path) -> dict[str, bytes]:
    """Content of the files, but for the times at which the shards were written."""
    files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    return {name: re.sub(rb'"modified_ns": \d+', b"", content) for name, content in files.items()}


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disco_zoo.data.webdataset.index_build.COMMIT_SECONDS", 0.0)
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


# Points: the middle and the end of each write of a commit, one for each shard: rows, labels, folders, journal.
PAUSING_BUILD = """
import pathlib, sys
from paused import by_halves
import disco_zoo.data.webdataset.index_build as b

class Torn:
    def __init__(self, file):
        self.file, self.fileno, self.waiting = file, file.fileno, b""
    def write(self, content):
        self.waiting += content
    def flush(self):
        content, self.waiting = self.waiting, b""
        by_halves(lambda part: (self.file.write(part), self.file.flush()), content)

files = {}
def torn(given):
    return {name: files.setdefault(name, Torn(file)) for name, file in given.items()}
add, commit = b._Build._add, b._Build._commit
b._Build._add = lambda build, name, given: add(build, name, torn(given))
b._Build._commit = lambda build, given: commit(build, torn(given))
b.COMMIT_SECONDS = -1.0
b.build_index(pathlib.Path(sys.argv[1]))
"""
POINTS_A_COMMIT = 8


@pytest.mark.parametrize("point", slow_but([1, 3, 7], [7]), ids=["in_rows", "in_labels", "in_journal"])
def test_a_killed_build_leaves_nothing_that_is_trusted_and_goes_on(point: int, tmp_path: Path) -> None:
    plain = build_index(make_shards(tmp_path / "b", [2] * 6))[0]
    shards = make_shards(tmp_path / "a", [2] * 6)
    killed_at(3 * POINTS_A_COMMIT + point, PAUSING_BUILD, shards, folder=tmp_path)
    partial = shards / ".disco_index.partial"
    journal = (partial / "journal.jsonl").read_bytes()
    assert journal.count(b"\n") == 3
    assert journal.endswith(b"\n") == (point != 7)
    assert (partial / ROWS_FILE).stat().st_size > 3 * 2 * ROW.itemsize, "nothing is written that is not noted"
    assert find_index(shards) is None
    index, _ = build_index(shards)
    assert index_bytes(index.path) == index_bytes(plain.path)


def test_no_room_is_one_line_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real limit on the size of files, which the rows of the fifth shard exceed."""
    monkeypatch.setattr("disco_zoo.data.webdataset.index_build.COMMIT_SECONDS", 0.0)
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


def test_what_is_left_out_is_counted_and_said_again_where_the_index_still_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = encode(toy_images(1, seed=0)[0])
    members = {
        f"{number}.{ending}": content for number in range(3) for ending, content in (("png", image), ("cls", b"1"))
    }
    make_tar(
        tmp_path / "train-0.tar", {**members, "0.left.png": image, "0.txt": b"a hen", "._1.png": b"", "b.PDF": b""}
    )
    make_tar(tmp_path / "test-0.tar", {**members, "0.mp4": b""})
    for _ in range(2):
        assert main(["data", "index", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "6 images in 2 shards" in said
        for words in ("1 further images of a sample", "1 .txt", "1 hidden", "1 .pdf", "1 .mp4"):
            assert words in said
    facts = look_facts(open_source(tmp_path, "train"))
    assert facts["left_out"] == {".pdf": 1, ".txt": 1, "further images of a sample": 1, "hidden": 1}
    assert facts["split_from"] == "shards named train"
    assert facts["labels_from"] == "the samples' .cls and .json"
    assert look_facts(open_source(tmp_path, "test"))["left_out"] == {".mp4": 1}


def test_a_json_without_a_label_is_counted_where_folders_become_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = encode(toy_images(1, seed=0)[0])
    members = {
        f"f{n}/{n}.{ending}": content
        for n in range(2)
        for ending, content in (("png", image), ("json", b'{"class": 1}'))
    }
    make_tar(tmp_path / "train-0.tar", members)
    assert main(["data", "index", str(tmp_path)]) == 0
    assert 'Left out: 2 .json without "label"' in capsys.readouterr().out
    assert look_facts(open_source(tmp_path))["labels_from"] == "folders"


def test_a_build_of_another_version_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards(tmp_path, [3, 2])
    with monkeypatch.context() as patch:
        patch.setattr(_Build, "finish", lambda build, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_index(tmp_path)
    journal = tmp_path / ".disco_index.partial" / "journal.jsonl"
    journal.write_text(journal.read_text().replace(FORMAT, "disco-zoo shard index 2"))
    add, added = _Build._add, []
    monkeypatch.setattr(_Build, "_add", lambda build, name, files: (added.append(name), add(build, name, files))[1])
    build_index(tmp_path)
    assert len(added) == 2
