"""Shards with an index: the same images, labels and names as in the tars, whatever happened to the build."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from data_makers import make_class_tar, make_tar, png
from repeated_index import repeat_rows
from shard_makers import make_shards

from disco_zoo.cli.use.data import command as data_command
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.index import FACTS_FILE, find_index
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.data.webdataset.scan import samples
from disco_zoo.data.webdataset.source import OPEN_SHARDS
from disco_zoo.errors import BadData, CannotWrite, UnreadableImage


def members(shards: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of each image, by tarfile alone."""
    found = []
    for shard in sorted(shards.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".png"):
                    found.append((member.name, archive.extractfile(member).read()))  # type: ignore[union-attr]
    return found


def indexed(folder: Path, out: Path | None = None) -> ImageSource:
    build_index(folder, out)
    return open_source(out or folder)


def test_images_names_and_labels_are_those_of_the_tars(tmp_path: Path) -> None:
    source = indexed(make_shards(tmp_path / "shards", [5, 0, 7, 4]))
    expected = members(tmp_path / "shards")
    assert source.has_index
    assert [source.encoded(row) for row in range(len(source))] == [content for _, content in expected]
    assert [source.path(row).split(" in ")[0] for row in range(len(source))] == [name for name, _ in expected]
    assert source.path(15) == "00015.png in shard-003.tar"
    assert source.labels == [number % 3 for number in range(16)]
    assert (source.class_names, source[4][1:]) == (None, (4, 1))


@pytest.mark.parametrize("kind", ["json", "none"])
def test_labels_of_json_members_and_of_none(kind: str, tmp_path: Path) -> None:
    source = indexed(make_shards(tmp_path, [5, 4], labels=kind))
    if kind == "none":
        assert (source.labels, source.class_names) == (None, None)
        return
    assert source.class_names == ["blue", "green", "red"]
    assert source.labels == [[2, 1, 0][number % 3] for number in range(9)]


def test_one_tar_of_class_folders_is_as_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    plain = open_source(make_class_tar(tmp_path / "shards" / "pets.tar"))
    source = indexed(tmp_path / "shards")
    assert (source.labels, source.class_names) == (plain.labels, plain.class_names)
    assert [source.encoded(row) for row in range(6)] == [plain.encoded(row) for row in range(6)]


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    content = {
        "a/1.jpg": b"1",
        "a/1.seg.png": b"side",
        "a/1.cls": b"0",
        "a/photo.7.JPEG": b"2",
        "a/note.txt": b"no",
        "b/1.webp": b"3",
        "b/" + "long" * 40 + ".png": b"4",
    }
    found = [sample.image for sample in samples(make_tar(tmp_path / "s.tar", content))]
    assert [image.name for image in found] == ["a/1.jpg", "a/photo.7.JPEG", "b/1.webp", "b/" + "long" * 40 + ".png"]
    raw = (tmp_path / "s.tar").read_bytes()
    assert [raw[image.offset : image.offset + image.size] for image in found] == [b"1", b"2", b"3", b"4"]


def test_labels_count_only_where_each_image_has_one(tmp_path: Path) -> None:
    make_shards(tmp_path, [3], prefix="train")
    make_tar(tmp_path / "test-000.tar", {"1.png": png(0), "1.cls": b"-1"})
    make_tar(tmp_path / "val-000.tar", {"1.png": png(1), "1.cls": b"2"})
    assert indexed(tmp_path).labels == [0, 1, 2]
    test = open_source(tmp_path, "test")
    assert (test.labels, len(test)) == ([2], 1)  # val/, since the labels of test/ are secret


def test_splits_by_the_names_of_shards_and_of_sibling_folders(tmp_path: Path) -> None:
    make_shards(tmp_path / "a", [4, 3], prefix="x-train")
    make_shards(tmp_path / "a", [2], prefix="x-val")
    assert (len(indexed(tmp_path / "a")), len(open_source(tmp_path / "a", "test"))) == (7, 2)
    make_shards(tmp_path / "b" / "train", [4])
    make_shards(tmp_path / "b" / "test", [3])
    build_index(tmp_path / "b" / "test")
    assert len(indexed(tmp_path / "b" / "train")) == 4
    assert len(open_source(tmp_path / "b" / "train", "test")) == 3
    indexed(make_shards(tmp_path / "c", [2]))
    with pytest.raises(BadData, match="has no test images"):
        open_source(tmp_path / "c", "test")
    assert len(open_source(tmp_path / "c", "test", dedicated=True)) == 2


def test_fingerprint_tells_content_and_not_place(tmp_path: Path) -> None:
    one = indexed(make_shards(tmp_path / "one", [5, 4]))
    other = indexed(make_shards(tmp_path / "other", [5, 4], prefix="y"), tmp_path / "index")
    assert one.fingerprint() == other.fingerprint()
    assert indexed(make_shards(tmp_path / "third", [5, 4], broken=(3,))).fingerprint() != one.fingerprint()


def test_a_pickled_source_is_small_and_reads(tmp_path: Path) -> None:
    few = build_index(make_shards(tmp_path / "shards", [6]))[0]
    repeat_rows(few, tmp_path / "many", 100_000)
    source = open_source(tmp_path / "many")
    source.encoded(3)
    pickled = pickle.dumps(source)
    assert len(pickled) < 2500
    again = pickle.loads(pickled)
    assert again.encoded(99_999) == source.encoded(99_999 % 6)
    assert again.labels[99_998] == 99_998 % 6 % 3
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(source.encoded, [1, 2, 7, 8]) == [source.encoded(n % 6) for n in (1, 2, 7, 8)]


def test_few_shards_are_open_at_once(tmp_path: Path) -> None:
    source = indexed(make_shards(tmp_path, [1] * (OPEN_SHARDS + 9)))
    before = len(os.listdir("/proc/self/fd"))
    assert [source.encoded(row) for row in range(len(source))] == [content for _, content in members(tmp_path)]
    assert len(os.listdir("/proc/self/fd")) - before <= OPEN_SHARDS + 1  # and the map of the rows
    del source
    assert len(os.listdir("/proc/self/fd")) <= before


def test_unreadable_image_is_one_of_many(tmp_path: Path) -> None:
    source = indexed(make_shards(tmp_path, [4], broken=(2,)))
    with pytest.raises(UnreadableImage, match=r"image 2 \(00002.png in shard-000.tar\) is unreadable: not an image"):
        source.image(2)


# --- what changes ---


def test_changed_and_removed_shards_are_said_when_opened(tmp_path: Path) -> None:
    indexed(make_shards(tmp_path, [4, 4]))
    again = f"changed since the folder was indexed. Type: disco-zoo data index {tmp_path}"
    with (tmp_path / "shard-001.tar").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BadData, match=f"shard shard-001.tar has .* bytes, not .*: it {again}"):
        open_source(tmp_path)
    (tmp_path / "shard-000.tar").unlink()
    with pytest.raises(BadData, match=f"shard shard-000.tar is gone: it {again}"):
        open_source(tmp_path)
    (tmp_path / "shard-001.tar").unlink()
    with pytest.raises(BadData, match=r"there are no .tar shards"):
        build_index(tmp_path)


def test_changed_and_removed_shards_are_said_when_read(tmp_path: Path) -> None:
    source = indexed(make_shards(tmp_path, [4, 4]))
    first = tmp_path / "shard-000.tar"
    size = first.stat().st_size
    make_tar(first, {"1.png": png(0) * 3})
    os.truncate(first, size)
    with pytest.raises(BadData, match=r"shard shard-000.tar holds something else at byte .*data index"):
        source.image(3)
    (tmp_path / "shard-001.tar").unlink()
    with pytest.raises(BadData, match=r"shard shard-001.tar cannot be read \(No such file.*data index"):
        source.image(5)


def test_added_shards_are_indexed_anew_and_nothing_is_done_twice(tmp_path: Path) -> None:
    make_shards(tmp_path, [4])
    assert [build_index(tmp_path)[1] for _ in range(2)] == [True, False]
    make_shards(tmp_path, [4, 3])
    with pytest.raises(BadData, match=r"shard shard-001.tar is new: .*data index"):
        open_source(tmp_path)
    index, is_new = build_index(tmp_path)
    assert (is_new, [shard.images for shard in index.shards]) == (True, [4, 3])
    assert len(open_source(tmp_path)) == 7


@pytest.mark.parametrize("fault", ["cut", "garbage", "gzip", "no end"])
def test_damaged_shards_are_one_line(fault: str, tmp_path: Path) -> None:
    make_shards(tmp_path, [4, 4])
    shard = tmp_path / "shard-001.tar"
    content = bytearray(shard.read_bytes())
    if fault == "cut":
        shard.write_bytes(content[: len(content) // 3])
    elif fault == "garbage":
        with tarfile.open(shard) as archive:
            offset = archive.getmembers()[4].offset
        content[offset : offset + 512] = os.urandom(512)
        shard.write_bytes(content)
    elif fault == "gzip":
        shard.write_bytes(b"\x1f\x8b" + content)
    else:
        with tarfile.open(shard) as archive:
            last = archive.getmembers()[-1]
        shard.write_bytes(content[: last.offset_data + 512])
    with pytest.raises(BadData, match=r"shard-001.tar is damaged, cut short or no plain .tar"):
        build_index(tmp_path)
    assert find_index(tmp_path) is None


def test_a_foreign_index_beside_photos_is_none(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"title": "a gallery"}')
    assert find_index(tmp_path) is None


def test_words_beside_numbers_and_damaged_indexes_are_one_line(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"1.png": png(0), "1.cls": b"4", "2.png": png(1), "2.cls": b"cat"})
    with pytest.raises(BadData, match=r"a.tar: labels are numbers here and words \(cat\) there"):
        build_index(tmp_path)
    source = make_shards(tmp_path / "good", [4])
    index = build_index(source)[0]
    os.truncate(index.path / "rows.bin", 20)
    with pytest.raises(BadData, match=r"damaged .its files are cut short"):
        open_source(source)
    assert build_index(source)[1]
    (index.path / FACTS_FILE).write_text("{")
    with pytest.raises(BadData, match=r"the index .* is damaged"):
        open_source(source)
    with pytest.raises(CannotWrite, match="holds something else"):
        build_index(source, tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_shards(tmp_path / "shards", [4, 3], labels="json")
    arguments = [str(tmp_path / "shards"), "--out", str(tmp_path / "index")]
    for words in ("indexed 7 images in 2 shards, 3 classes", "is up to date: 7 images in 2 shards, 3 classes"):
        data_command.main(["index", *arguments], standalone_mode=False)
        assert words in capsys.readouterr().out
    assert len(open_source(tmp_path / "index")) == 7
    (tmp_path / "shards" / "shard-000.tar").unlink()
    with pytest.raises(BadData, match=f"data index {tmp_path / 'shards'} --out {tmp_path / 'index'}"):
        open_source(tmp_path / "index")


def test_a_secret_test_set_is_passed_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tar(tmp_path / "test-0.tar", {"0.png": png(0), "0.cls": b"-1"})
    make_shards(tmp_path, [3], prefix="val")
    build_index(tmp_path)
    assert open_source(tmp_path, "test").labels == [0, 1, 2]
    line = f"{tmp_path}: the 3 test images are those of shards named val; shards named test have no labels\n"
    assert line in capsys.readouterr().err
