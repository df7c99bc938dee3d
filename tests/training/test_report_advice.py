"""A report's advice: few steps are said, the snippet loads the student, and the data are called what they were."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import toy_images, toy_parquet, toy_recipe

from disco_zoo.models.encoder import Encoder
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data
from disco_zoo.training.train import enough_line, finish_training, load_lines
from disco_zoo.transforms.eval import eval_transform

pytestmark = pytest.mark.usefixtures("one_thread")


def report_of(folder: Path, data: Path, **changes: Any) -> tuple[str, Encoder]:
    run = Run(toy_recipe("moco_v2", **changes), open_data(toy_recipe(), str(data)), folder, RunOptions(), label="toy")
    try:
        run.train()
        finish_training(run)
    finally:
        run.close()
    return (folder / "report.md").read_text(), run.parts.student.eval()


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "expected"),
    [
        (125, 64, 2, "125 images are 1 step an epoch, 2 steps in 2 epochs"),
        (125, 32, 10, "125 images are 3 steps an epoch, 30 steps in 10 epochs"),
    ],
)
def test_few_steps_are_said_with_the_epochs_that_make_a_thousand(
    images: int, batch_size: int, epochs: int, expected: str
) -> None:
    steps = images // batch_size
    line = enough_line(images, batch_size, steps * epochs, epochs)
    assert line is not None
    assert line.startswith(expected)
    found = re.search(r"--set optim.epochs=(\d+)", line)
    assert found is not None
    wanted = int(found[1])
    assert (wanted - 1) * steps < 1000 <= wanted * steps


def test_nothing_is_said_of_enough_steps() -> None:
    assert enough_line(100_000, 64, 3124, 2) is None


def test_the_snippet_of_the_report_gives_the_students_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, student = report_of(
        tmp_path / "run", toy_parquet(tmp_path / "data"), student__mean=[0.5] * 3, student__std=[0.25] * 3
    )
    found = re.search(r"```python\n(.*?)```", report, re.DOTALL)
    assert found is not None
    image = toy_images(1, seed=3, side=80)[0]
    monkeypatch.chdir(tmp_path / "run")
    names: dict[str, Any] = {"image": image}
    with torch.no_grad():
        exec(found[1], names)
        view = eval_transform(32, 37)(image)[None]
        expected = student.features(view)
    # timm resizes with Pillow and scales, ours with torch: rounding to 1/255 twice.
    cosine = torch.cosine_similarity(names["features"], expected).item()
    assert cosine > 0.999
    assert names["features"].shape == expected.shape


def test_a_report_calls_the_data_what_they_were(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path / "data")
    report, _ = report_of(tmp_path / "run", data)
    assert f"26 images of {data}" in report  # the recipe's cifar10 has 50,000
    assert "of cifar10" not in report
    assert "26 images are 3 steps an epoch, 6 steps in 2 epochs" in report


def test_unlabelled_photos_get_a_report_too(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (40, 30), (number * 20, 90, 90)).save(folder / f"{number}.jpg")
    report, _ = report_of(tmp_path / "run", folder)
    assert f"9 images of {folder}" in report
    assert "create_transform(" in report


@pytest.mark.parametrize(("network", "alone"), [("efficientnet_b0", True), ("disco_effb0_pad224", False)])
def test_a_network_of_ours_is_registered_before_timm_makes_it(network: str, alone: bool) -> None:
    student = {"architecture": network, "file": "student.safetensors", "image_size": 224, "resize_size": 256}
    lines = load_lines({**student, "mean": [0.5] * 3, "std": [0.5] * 3})
    assert any(line.startswith("import disco_zoo") for line in lines) is not alone
