"""The scripts in examples/, run as their first lines say, on real images of the embedded sample."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import disco_zoo
from disco_zoo.data.open_source import open_source

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSES = ("Trouser", "Sneaker", "Bag")
TRAIN_IMAGES, TEST_IMAGES = 70, 8  # of each class; kNN with k = 200 needs 200 in all

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "photos"
    for split, number in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        source = open_source("sample", split)
        assert source.labels is not None
        assert source.class_names is not None
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            label = source.class_names.index(name)
            rows = [row for row, found in enumerate(source.labels) if found == label][:number]
            for row in rows:
                source.image(row).save(folder / split / name / f"{row:05}.png")
    return folder


def run_example(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_script_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f'"{script.name}"' in text, script


@pytest.mark.slow
def test_finetune_on_your_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = next((photos / "test" / "Bag").iterdir())
    run_example(
        "finetune_on_your_folder.py", photos, "--photo", photo, "--epochs", 6, monkeypatch=monkeypatch, folder=tmp_path
    )
    ranked = re.findall(r"^ *([\d.]+)%  (\w+)$", capsys.readouterr().out, re.MULTILINE)
    assert ranked[0][1] == "Bag"
    assert {name for _, name in ranked} == set(CLASSES)
    assert sum(float(share) for share, _ in ranked) == pytest.approx(100, abs=0.2)
    assert (tmp_path / "runs" / "my_classifier" / "model" / "config.json").is_file()


def test_search_your_photos(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((photos / "test" / "Trouser").iterdir())
    arguments = (photos / "train", picture, "--count", 5)
    run_example("search_your_photos.py", *arguments, monkeypatch=monkeypatch, folder=tmp_path)
    first = capsys.readouterr().out
    hits = [line for line in first.splitlines() if line.startswith(" ")]
    assert len(hits) == 5
    assert sum("Trouser" in line for line in hits) >= 4
    assert (tmp_path / "found.html").read_text().count("<img") == 6
    written = (tmp_path / "photos.parquet").stat().st_mtime_ns
    run_example("search_your_photos.py", *arguments, monkeypatch=monkeypatch, folder=tmp_path)
    assert capsys.readouterr().out == first
    assert (tmp_path / "photos.parquet").stat().st_mtime_ns == written


@pytest.mark.slow
def test_distil_your_own_student(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(
        "distil_your_own_student.py",
        photos,
        "--epochs",
        1,
        "--image-size",
        48,
        "--batch-size",
        32,
        monkeypatch=monkeypatch,
        folder=tmp_path,
    )
    printed = capsys.readouterr().out
    assert "4.01 M parameters" in printed
    lines = dict(line.split(": ", 1) for line in printed.splitlines() if line.startswith(("start: ", "student: ")))
    assert set(lines) == {"start", "student"}
    student = load_file(tmp_path / "runs" / "my_student" / "student.safetensors")
    start = load_file(tmp_path / "runs" / "my_student" / "start" / "student.safetensors")
    assert student.keys() == start.keys()
    assert not torch.equal(student["conv_head.weight"], start["conv_head.weight"])


def test_examples_use_public_names_alone() -> None:
    for script in EXAMPLES.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        assert not re.findall(r"(?:from|import) disco_zoo\.", text), script
        assert set(re.findall(r"\bdisco_zoo\.(\w+)", text.split('"""', 2)[2])) <= set(disco_zoo.__all__), script


@pytest.mark.slow
def test_embed_with_ray(photos: Path, tmp_path: Path) -> None:
    """In a process of its own: Ray warns of itself, and leaves threads."""
    pytest.importorskip("ray")
    script, folder = EXAMPLES / "embed_with_ray.py", photos / "test" / "Bag"
    subprocess.run([sys.executable, script, folder, tmp_path / "vectors"], cwd=tmp_path, check=True, timeout=280)
    table = pq.read_table(tmp_path / "vectors").to_pydict()
    expected = disco_zoo.extract_features("disco_effb0", table["name"], device="cpu", workers=0).features.numpy()
    assert len(expected) == TEST_IMAGES
    np.testing.assert_allclose(np.stack(table["vector"]), expected, rtol=1e-4, atol=1e-4)
