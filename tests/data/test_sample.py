"""The embedded Fashion-MNIST sample: what it holds, and that anyone can make the same bytes."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from disco_zoo.data.open_source import SAMPLE_PATH, open_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_sample", ROOT / "tools" / "build_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sample_is_the_one_the_script_makes(build_sample: ModuleType) -> None:
    parquet = SAMPLE_PATH.read_bytes()
    assert len(parquet) <= 6_000_000
    assert build_sample.content_sha256(parquet) == build_sample.CONTENT_SHA256
    assert build_sample.hashlib.sha256(parquet).hexdigest() == build_sample.FILE_SHA256


def test_sample_is_balanced_and_interleaved() -> None:
    for split, per_class in (("train", 1000), ("test", 200)):
        source = open_source("sample", split)
        assert source.labels is not None
        assert Counter(source.labels) == dict.fromkeys(range(10), per_class)
        assert source.labels[:20] == [*range(10), *range(10)]
        assert len(source) == 10 * per_class


def test_sample_shows_grey_clothes() -> None:
    source = open_source("sample")
    image, index, label = source[9]
    assert (image.mode, image.size, index) == ("RGB", (28, 28), 9)
    pixels = np.asarray(image)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    # Position 0 of the original training file is known to every tutorial: an ankle boot, pixel sum 76247.
    assert source.class_names is not None
    assert source.class_names[label or 0] == "Ankle boot"
    assert source.path(9).startswith("train-00000.png")
    assert int(pixels[..., 0].sum()) == 76247


def test_train_and_test_share_no_row() -> None:
    rows = pq.read_table(SAMPLE_PATH, columns=["image", "split"]).to_pylist()
    paths = {split: {r["image"]["path"] for r in rows if r["split"] == split} for split in ("train", "test")}
    assert len(paths["train"]) == 10_000
    assert len(paths["test"]) == 2_000
    assert {path.split("-")[0] for path in paths["test"]} == {"t10k"}


def test_rebuild_gives_the_same_bytes(build_sample: ModuleType) -> None:
    folder = Path(os.environ.get("FASHION_MNIST_DIR", build_sample.DEFAULT_SOURCE))
    if not folder.is_dir():
        pytest.skip("the original files are not here: apt install dataset-fashion-mnist, or set FASHION_MNIST_DIR")
    parquet = build_sample.write_parquet(build_sample.build_table(folder))
    assert build_sample.content_sha256(parquet) == build_sample.CONTENT_SHA256
    if build_sample.pinned_versions():
        assert parquet == SAMPLE_PATH.read_bytes()


def test_altered_source_file_is_refused(
    build_sample: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "t10k-labels-idx1-ubyte.gz"
    (tmp_path / name).write_bytes(b"other bytes")
    with pytest.raises(SystemExit, match="not the original file"):
        build_sample.read_source(tmp_path, name)


def test_notice_carries_licence_and_origin() -> None:
    notice = (SAMPLE_PATH.parent / "FASHION_MNIST_NOTICE.txt").read_text("utf-8")
    for words in ("Zalando SE", "Permission is hereby granted, free of charge", "build_sample.py", "28 x 28"):
        assert words in notice
