"""`disco-zoo detect` as a user types it: short runs, exact resume, and (slow) boxes that are learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shape_images import deepen, make_coco, make_voc
from slow_params import slow_but
from tiny_detection import TINY

from disco_zoo.cli import main
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.errors import BadCheckpoint, BadData, BadRunFolder
from disco_zoo.tasks.detection.annotations import AnnotatedImage
from disco_zoo.tasks.detection.batches import read_image
from disco_zoo.tasks.detection.data import open_annotated_pair
from disco_zoo.tasks.detection.run import load_detector

pytestmark = pytest.mark.usefixtures("one_thread")
SETS = [part for change in TINY for part in ("--set", change)]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"), 6, 3, 64)


def detect(data: Path, out: Path, *arguments: str, model: str = "test_resnet") -> int:
    common = ["--data", str(data), "--out", str(out), "--device", "cpu", "--workers", "0", "--untrained"]
    return main(["detect", model, *common, *SETS, *arguments])


def tensors(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])


def test_a_run_leaves_detector_figures_pictures_and_report(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert detect(coco, out, "--masks", "--json", "--set", "steps=2", "--set", "eval_every=1", "--seed", "4") == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts == json.loads((out / "run.json").read_text())
    assert (facts["steps"], facts["seed"], facts["pretrained"]) == (2, 4, False)
    assert facts["figures"].keys() >= {"box_ap", "box_ap50", "box_ap75", "mask_ap", "box_ap_per_class"}
    assert facts["figures"]["box_ap_per_class"].keys() == {"disc", "square", "triangle"}
    assert facts["data"]["train"]["images"] == 6
    report = (out / "report.md").read_text()
    assert facts["look"]["train"]["modes"] == {"RGB": 6}
    assert ": 6 training images, " in report
    assert f"| box | {facts['figures']['box_ap']:.1f} |" in report
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve if "box_ap50" in row] == [1, 2]
    assert curve[-1]["box_ap50"] == facts["figures"]["box_ap50"]
    for name in ("curves.png", "detections.png"):
        with Image.open(out / "figures" / name) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 10


@pytest.mark.parametrize("neck", slow_but(["fpn", "c4"], ["fpn"]))
def test_steps_then_resume_is_the_whole_run(neck: str, coco: Path, tmp_path: Path) -> None:
    changes = (
        "--neck",
        neck,
        "--set",
        "steps=4",
        "--set",
        "sizes=[48, 64]",
        "--set",
        "batch_norm=train",
        "--set",
        "precise_bn_batches=2",
    )
    assert detect(coco, tmp_path / "whole", *changes) == 0
    assert detect(coco, tmp_path / "parts", *changes, "--steps", "3") == 0
    assert "figures" not in json.loads((tmp_path / "parts" / "run.json").read_text())
    assert detect(coco, tmp_path / "parts", *changes, "--resume") == 0
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    facts = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "parts")]
    assert facts[0]["figures"] == facts[1]["figures"]
    assert facts[0]["detector"]["sha256"] == facts[1]["detector"]["sha256"]


@pytest.mark.slow
def test_a_seed_fixes_random_starts_and_new_layers_are_those_of_our_weights(coco: Path, tmp_path: Path) -> None:
    """Whatever the process drew before; and the new layers do not depend on where the backbone started."""

    def start(name: str, *arguments: str, model: str = "test_resnet") -> dict[str, Any]:
        torch.rand(len(name))
        freeze = ("--freeze", "--set", "lr=1e-30", "--set", "weight_decay=0", "--set", "steps=1")
        assert detect(coco, tmp_path / name, *freeze, *arguments, model=model) == 0
        return tensors(tmp_path / name)

    first, again, other = start("first"), start("once more"), start("other", "--seed", "1")
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    changed = [key for key, value in first.items() if not torch.equal(value, other[key])]
    assert any(key.startswith("backbone.maps") for key in changed)
    assert any(key.startswith("roi_heads") for key in changed)
    data = ["--data", str(coco), "--device", "cpu", "--workers", "0", "--freeze", "--set", "steps=1"]
    for name, untrained in (("ours", []), ("random", ["--untrained"])):
        run = [*data, *SETS, "--set", "lr=1e-30", "--set", "weight_decay=0", "--out", str(tmp_path / name), *untrained]
        assert main(["detect", "disco_effb0", *run]) == 0
    ours, random = tensors(tmp_path / "ours"), tensors(tmp_path / "random")
    new = [key for key in ours if not key.startswith("backbone.maps")]
    assert all(torch.allclose(ours[key], random[key], rtol=0, atol=1e-20) for key in new)  # after a step of 1e-30
    assert not torch.equal(
        ours["backbone.maps.getter.model.conv_stem.weight"], random["backbone.maps.getter.model.conv_stem.weight"]
    )


def test_a_finished_run_resumed_is_the_same_and_its_test_images_too(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert detect(coco, out, "--set", "steps=2") == 0
    rows, facts = (out / "metrics.jsonl").read_text(), json.loads((out / "run.json").read_text())
    assert detect(coco, out, "--set", "steps=2", "--resume") == 0
    assert (out / "metrics.jsonl").read_text() == rows
    assert json.loads((out / "run.json").read_text())["figures"] == facts["figures"]
    capsys.readouterr()
    assert detect(coco, out, "--set", "steps=2", "--resume", "--eval-data", str(coco / "train2017.json")) == 2
    other = coco / "annotations" / "instances_train2017.json"
    assert detect(coco, out, "--set", "steps=2", "--resume", "--eval-data", str(other)) == 2
    assert "holds a run on other images" in capsys.readouterr().err


def test_a_detector_loads_from_its_folder_and_finds_what_it_found(coco: Path, tmp_path: Path) -> None:
    assert detect(coco, tmp_path, "--masks", "--set", "steps=2") == 0
    detector = load_detector(tmp_path)
    assert detector.class_names == ("disc", "square", "triangle")
    _, test = open_annotated_pair(str(coco))
    photo = test.images[0].path
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(value, state[key]) for key, value in detector.network.state_dict().items())
    with torch.no_grad():
        (output,) = detector.network([read_image(test.images[0], 0) / 255.0])
    found = detector.find(photo, min_score=0.0)
    assert [list(one.box) for one in found] == output["boxes"].tolist()
    assert [one.score for one in found] == output["scores"].tolist()
    assert [one.name for one in found] == [detector.class_names[label - 1] for label in output["labels"].tolist()]
    assert all(one.mask is not None and one.mask.shape == (64, 64) for one in found)
    assert found
    assert len(detector.find(photo, min_score=found[0].score)) < len(found)
    detector.draw([photo, photo], tmp_path / "found.png", min_score=found[0].score)
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.width > picture.height
    with pytest.raises(BadData, match=r"^nowhere.jpg is missing.$"):
        detector.find("nowhere.jpg")
    (tmp_path / "detector.safetensors").write_bytes(b"cut")
    with pytest.raises(BadCheckpoint, match="is damaged"):
        load_detector(tmp_path)
    with pytest.raises(BadRunFolder, match="holds no trained detector"):
        load_detector(coco)


def test_white_of_a_deep_photo_is_that_of_the_training_images(tmp_path: Path) -> None:
    """Alone, a photo of values up to 1023 would be four times as bright."""
    data, out = make_coco(tmp_path / "deep", 6, 3, 64), tmp_path / "run"
    for folder in ("train2017", "val2017"):
        deepen(data / folder)
    assert detect(data, out, "--set", "steps=1") == 0
    assert json.loads((out / "run.json").read_text())["white"] == {"I;16": 4095}
    detector, (photo, *_) = load_detector(out), sorted((data / "val2017").iterdir())
    bright = [one.score for one in detector.find(photo, min_score=0.0)]
    Image.fromarray(np.asarray(Image.open(photo)) // 4).save(photo)
    assert [one.score for one in detector.find(photo, min_score=0.0)] != pytest.approx(bright, abs=1e-4)
    pixels = read_image(AnnotatedImage(photo, 64, 64, ()), 0, ValueRanges({"I;16": 4095}))
    with torch.no_grad():
        (output,) = detector.network([pixels / 255.0])
    assert [one.score for one in detector.find(photo, min_score=0.0)] == output["scores"].tolist()


def test_voc_data_and_a_frozen_backbone(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "voc", {"trainval": 12, "test": 2}, 64)
    assert detect(voc, tmp_path / "run", "--freeze", "--set", "steps=1", "--set", "ap_points=11") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["figures"]["box_ap50"] is not None
    assert "VOC 2007's 11 recall levels" in (tmp_path / "run" / "report.md").read_text()


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
    return line


def test_mistakes_cost_one_line_and_leave_no_folder(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for arguments, model, expected in (
        (("--preset", "vco"), "test_resnet", "Did you mean 'voc'"),
        (("--set", "stps=3"), "test_resnet", "Did you mean 'steps'"),
        ((), "test_resnett", "Did you mean 'test_resnet'"),
        (("--eval-data", "nowhere"), "test_resnet", "there is no data at nowhere"),
        (("--resume",), "test_resnet", "holds no run to resume"),
    ):
        assert detect(coco, out, *arguments, model=model) == 2
        assert expected in failure(capsys)
    assert not out.exists()
    assert detect(make_voc(tmp_path / "voc", {"train": 12, "val": 2}, 64), out, "--masks") == 2
    assert "objects without an outline, the first in train_0.jpg. Leave out --masks" in failure(capsys)


def test_a_run_goes_on_only_as_it_began(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert detect(coco, out, "--set", "steps=2", "--steps", "1") == 0
    capsys.readouterr()
    assert detect(coco, out, "--set", "steps=2") == 2
    assert "Add --resume to go on" in failure(capsys)
    assert detect(coco, out, "--set", "steps=2", "--resume", "--seed", "1") == 2
    assert "other settings (seed: 0 there, 1 here)" in failure(capsys)
    other = make_coco(tmp_path / "other", 5, 3, 64)
    assert detect(other, out, "--set", "steps=2", "--resume") == 2
    assert "holds a run on other images" in failure(capsys)


def test_a_damaged_test_image_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_coco(tmp_path / "cut", 5, 3, 64)
    cut = sorted((data / "val2017").iterdir())[0]
    cut.write_bytes(cut.read_bytes()[:-500])
    assert detect(data, tmp_path / "run", "--set", "steps=1") == 0
    assert "Unreadable, so nothing is found there: 1 image. First: " in capsys.readouterr().err


def test_divergence_and_too_many_damaged_images(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("--set", "steps=30", "--set", "optimizer=sgd", "--set", "clip_norm=null")
    assert detect(coco, tmp_path / "run", *changes, "--set", "lr=1e30") == 2
    assert "Start again with --set lr=3.3e+29" in failure(capsys)
    broken = make_coco(tmp_path / "broken", 14, 3, 64)
    for path in (broken / "train2017").iterdir():
        path.write_bytes(path.read_bytes()[:-500])
    assert detect(broken, tmp_path / "second", "--set", "steps=30") == 2
    assert "images are unreadable, 10 are tolerated. The list is in" in failure(capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_learns_shapes_in_minutes(tmp_path: Path) -> None:
    """On this repository's bundled weights; the untrained detector finds nothing."""
    data = make_coco(tmp_path / "coco", 200, 40, 128)
    arguments = [
        "--data",
        str(data),
        "--device",
        "cpu",
        "--workers",
        "0",
        "--set",
        "sizes=[128]",
        "--set",
        "anchor_sizes=[8, 16, 32, 64, 128]",
        "--set",
        "eval_every=50",
    ]
    assert main(["detect", "disco_effb0", *arguments, "--out", str(tmp_path / "run"), "--set", "steps=100"]) == 0
    assert main(["detect", "disco_effb0", *arguments, "--out", str(tmp_path / "none"), "--set", "steps=1"]) == 0
    learnt, untrained = (
        json.loads((tmp_path / name / "run.json").read_text())["figures"]["box_ap50"] for name in ("run", "none")
    )
    assert untrained < 5
    assert learnt > 80
