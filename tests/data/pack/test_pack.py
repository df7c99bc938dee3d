"""`data pack`: what the shards hold, and that a job stopped at any moment ends with the bytes of an undisturbed one."""

from __future__ import annotations

import io
import json
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from data_makers import PIXELS, png
from paused import killed_at
from photo_makers import jpeg, photo
from PIL import Image

from disco_zoo.cli import main
from disco_zoo.data.formats.timm_prefixed import StreamSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pack.images import PackSettings
from disco_zoo.data.pack.job import PackJob
from disco_zoo.data.pairing import open_labeled_pair
from disco_zoo.data.stream_source import HubShards
from disco_zoo.errors import BadData, BadRunFolder, CannotWrite

LARGE = [jpeg(photo(seed, *size)) for seed, size in enumerate([(120, 90), (60, 200), (90, 91)])]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of six training images, three of them larger than 48 pixels, and two test images."""
    files = {f"train/{'cat' if i < 3 else 'dog'}/{i}.png": png(i) for i in range(6)}
    files |= {f"train/dog/large{i}.jpg": content for i, content in enumerate(LARGE)}
    files |= {"test/cat/0.png": png(1), "test/dog/1.png": png(2)}
    for name, content in files.items():
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "pets"


def noisy(tmp_path: Path, number: int = 60) -> Path:
    """PNGs of 50 kB each, one of which is cut short, and a larger one: four shards of a megabyte or more."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    for i in range(number):
        side = 480 if i == 30 else 130
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:5000])
    return folder


def job(data: Path, out: Path, size: int = 256, workers: int = 0, limit: int | None = None) -> PackJob:
    return PackJob([open_source(data)], out, PackSettings(size), shard_mb=1, workers=workers, limit=limit)


def shards_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir() if file.name not in (".lock", "pack.json")}


def test_a_packed_folder_is_data_with_both_splits(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    assert main(["data", "pack", str(pets), "--out", str(out), "--size", "48", "--workers", "0"]) == 0
    for split in ("train", "test"):
        before, after = open_source(pets, split), open_source(out, split)
        assert (after.labels, after.class_names, len(after)) == (before.labels, ["cat", "dog"], len(before))
        for index in range(len(before)):
            image, small = before.image(index), after.image(index)
            if min(image.size) <= 48:
                assert after.encoded(index) == before.encoded(index)
                continue
            assert min(small.size) == 48
            assert small.width / small.height == pytest.approx(image.width / image.height, rel=0.02)
            expected = np.asarray(image.resize(small.size, Image.Resampling.BICUBIC), np.float32)
            assert np.abs(np.asarray(small, np.float32) - expected).mean() < 8  # the JPEG's loss, on noise
    assert "cat/0.png" in open_source(out).path(0)


def test_quality_reaches_the_jpegs_and_decoded_images_are_kept_lossless(pets: Path, tmp_path: Path) -> None:
    sizes = {}
    for quality in (50, 92):
        PackJob([open_source(pets)], tmp_path / str(quality), PackSettings(48, quality)).run()
        sizes[quality] = sum(len(shard) for shard in shards_of(tmp_path / str(quality)).values())
    assert sizes[50] < sizes[92]
    decoded = [(Image.fromarray(pixels), number % 2) for number, pixels in enumerate(PIXELS)]
    PackJob([StreamSource("wds/x", "train", decoded)], tmp_path / "stream", PackSettings()).run()
    source = open_source(tmp_path / "stream")
    assert source.labels == [number % 2 for number in range(len(PIXELS))]
    assert all(source.image(i).tobytes() == pixels.tobytes() for i, pixels in enumerate(PIXELS))


def test_unreadable_images_are_left_out_and_listed_up_to_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = noisy(tmp_path, 12)
    assert main(["data", "pack", str(data), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert "11 train images, 1 unreadable in 1 shards" in said.out
    assert "007.png" in said.err
    assert len(open_source(tmp_path / "out")) == 11
    with pytest.raises(BadData, match="1 images are unreadable, 0 are tolerated"):
        job(data, tmp_path / "strict", limit=0).run()


def test_bytes_do_not_depend_on_workers_and_a_stop_loses_no_shard(tmp_path: Path) -> None:
    data = noisy(tmp_path)
    whole = job(data, tmp_path / "whole", size=480, workers=2).run()
    assert whole.shards == 4
    with pytest.raises(CannotWrite, match="File too large"), file_limit(1_100_000):
        job(data, tmp_path / "cut", size=480).run()
    assert list(shards_of(tmp_path / "cut")) == ["train-00000.shard"]
    with pytest.raises(BadRunFolder, match="Add --resume"):
        job(data, tmp_path / "cut", size=480).run()
    with pytest.raises(BadRunFolder, match=r"other options \(size\)"):
        job(data, tmp_path / "cut", size=32).run(resume=True)
    again = job(data, tmp_path / "cut", size=480).run(resume=True)
    assert again.unreadable == whole.unreadable
    assert shards_of(tmp_path / "cut") == shards_of(tmp_path / "whole")
    assert job(data, tmp_path / "cut", size=480).run().images == whole.images  # nothing left to do


class file_limit:
    """No file may grow above this, as on a full disk: the system refuses the write."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size_bytes, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


# Points: the middle and the end of each file, a shard or the record, before it has its name.
PAUSING_PACK = """
import sys
from paused import torn
from disco_zoo.cli import main
from disco_zoo.data.pack import job
write_out = job.write_out
job.write_out = lambda path, write: write_out(path, torn(write))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("point", "named"),
    [(9, 2), pytest.param(11, 3, marks=pytest.mark.slow)],
    ids=["in_the_third_shard", "in_its_record"],
)
def test_a_killed_job_is_resumed_to_the_same_bytes(point: int, named: int, tmp_path: Path) -> None:
    command = ["data", "pack", "sample", "--shard-mb", "1", "--workers", "0", "--out"]
    out = tmp_path / "killed"
    killed_at(point, PAUSING_PACK, *command, out, folder=tmp_path)
    assert len(list(out.glob("[!.]*.shard"))) == named
    assert len(json.loads((out / "pack.json").read_text())["shards"]) == 2
    with pytest.raises(BadData):
        open_source(out)  # a part is no data
    assert main([*command, str(out), "--resume"]) == 0
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert shards_of(out) == shards_of(tmp_path / "whole")
    assert open_source(out, "test").labels == open_source("sample", "test").labels


def test_a_job_killed_while_it_names_its_shards_is_finished(pets: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    job(pets, whole).run()
    record = json.loads((whole / "pack.json").read_text())
    expected = shards_of(whole)
    (whole / "pack.json").write_text(json.dumps({**record, "done": False}))
    (whole / "train-00000-of-00001.parquet").rename(whole / "train-00000.shard")
    job(pets, whole).run(resume=True)
    assert shards_of(whole) == expected


def test_foreign_folders_are_refused(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRunFolder, match="holds other files"):
        job(pets, tmp_path).run()
    for inside in (pets, pets / "packed"):
        with pytest.raises(BadRunFolder, match=r"which it is made of\. Choose an --out beside it"):
            job(pets, inside).run()
    with pytest.raises(BadRunFolder, match="nothing to resume"):
        job(pets, tmp_path / "new").run(resume=True)
    job(pets, tmp_path / "out").run()
    (pets / "train" / "cat" / "9.png").write_bytes(png(3))
    with pytest.raises(BadRunFolder, match=r"packed from other images or with other options \(images, image_bytes\)"):
        job(pets, tmp_path / "out").run(resume=True)


def test_other_images_of_the_same_names_and_sizes_are_not_taken_for_packed(pets: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    job(pets, out).run()
    pets.rename(moved)
    assert job(moved, out).run(resume=True).images == {"train": 9}
    image = moved / "train" / "cat" / "0.png"
    image.write_bytes(image.read_bytes()[::-1])
    with pytest.raises(BadRunFolder, match=r"packed from other images or with other options \(image_bytes\)"):
        job(moved, out).run(resume=True)
    record = json.loads((out / "pack.json").read_text())
    del record["key"]["image_bytes"]  # as an earlier version wrote it
    (out / "pack.json").write_text(json.dumps(record))
    assert job(moved, out).run(resume=True).images == {"train": 9}


def test_a_source_of_unreadable_images_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(BadData, match="none of the 1 train images"):
        job(tmp_path / "bad", tmp_path / "out").run()
    with pytest.raises(BadData, match="none of the 1 train images"):
        job(tmp_path / "bad", tmp_path / "out").run(resume=(tmp_path / "out" / "pack.json").exists())
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_white_is_that_of_training_and_test_images_together(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    for split, brightest in (("train", 4000), ("test", 900)):
        for name in "ab":
            (scans / split / name).mkdir(parents=True)
            values = np.linspace(0, brightest, 64).reshape(8, 8).astype(np.uint16)
            Image.fromarray(values).save(scans / split / name / "0.png")
    assert main(["data", "pack", str(scans), "--out", str(out), "--workers", "0"]) == 0
    for before, after in zip(open_labeled_pair(str(scans)), open_labeled_pair(str(out)), strict=True):
        assert after.image(0).tobytes() == before.image(0).tobytes()
    with pytest.raises(BadRunFolder, match=r"\(white\)"):  # each by its own white
        PackJob([open_source(scans, split) for split in ("train", "test")], out, PackSettings()).run(resume=True)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_stream_of_the_hub_is_packed_from_its_files(labelled: bool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(clear, "PNG")
    files = (png(0), clear.getvalue(), b"x")
    features = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["hen", "owl"])}
    columns = {
        "image": [{"bytes": file, "path": None} for file in files],
        "label": [1, 0, 0],
    }
    table = datasets.Dataset.from_dict(columns, datasets.Features(features))
    table = table if labelled else table.remove_columns("label")
    shards = HubShards("hfids/x", table.to_iterable_dataset())
    made = PackJob([StreamSource("hfids/x", "train", range(3), shards)], tmp_path / "out", PackSettings()).run()
    assert len(made.unreadable) == 1
    packed = open_source(tmp_path / "out")
    assert (packed.labels, packed.class_names) == (([1, 0], ["hen", "owl"]) if labelled else (None, None))
    assert [packed.encoded(index) for index in range(2)] == [png(0), clear.getvalue()]


def test_words_that_a_stream_cannot_number_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": [{"bytes": png(0), "path": None}], "label": ["hen"]}, features)
    shards = HubShards("hfids/words", table.to_iterable_dataset())
    PackJob([StreamSource("hfids/words", "train", range(1), shards)], tmp_path / "out", PackSettings()).run()
    assert open_source(tmp_path / "out").labels is None
    assert "hfids/words: the labels in the column label are words" in capsys.readouterr().err
