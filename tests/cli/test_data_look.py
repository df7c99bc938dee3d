"""`data look`: what a source is, as lines, as JSON and as a contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_makers import make_folder
from PIL import Image

from disco_zoo.cli import main


def test_lines_facts_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("Training", "Testing"):
        make_folder(tmp_path / "pets" / split)
    (tmp_path / "pets" / "Training" / "cat" / ".hidden.png").write_bytes(b"")
    scan = np.full((8, 8), 4000, np.uint16)
    Image.fromarray(scan).save(next((tmp_path / "pets" / "Training").iterdir()) / "scan.png")
    sheet = tmp_path / "sheet.png"
    assert main(["data", "look", str(tmp_path / "pets"), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr()
    assert "7 training images (folder Training)" in said.out
    assert "classes by folders" in said.out
    assert "mode I;16 holds 4000 to 4000, of which 4095 is white" in said.out
    assert "6 test images (folder Testing)" in said.err
    with Image.open(sheet) as opened:
        pixels = np.asarray(opened)
    assert (pixels == round(4000 * 255 / 4095)).all(axis=2).sum() > 100 * 100  # the scan, as a network sees it
    assert main(["data", "look", str(tmp_path / "pets"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["train"]["images"], facts["test"]["images"]) == (7, 6)
    assert facts["train"]["left_out"] == {"hidden": 1}
    assert facts["train"]["white"] == {"I;16": 4095}


def test_test_images_of_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, classes in (("pets", ("cat", "dog", "owl")), ("craft", ("plane", "ship"))):
        for one in classes:
            (tmp_path / name / one).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name / one / "0.png")
    assert main(["data", "look", str(tmp_path / "pets"), "--eval-data", str(tmp_path / "craft")]) == 2
    said = capsys.readouterr()
    assert "(test) differ: cat, dog, owl, plane, ship. Give both the same class folders or names." in said.err
    assert said.out == ""
