"""`disco-zoo train` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import NUM_TRAIN, checkpoint_of, differences, toy_images, toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.config.recipe import load_recipe
from disco_zoo.training.build import build_parts
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"), num_train=220, num_test=30)


def test_print_shows_the_full_recipe_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "pocket/disco_effb0.disco_lite0_fmnist", "--print", "--set", "optim.epochs=7"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(text)
    printed = load_recipe("printed.yaml")
    assert printed == load_recipe("pocket/disco_effb0.disco_lite0_fmnist", ["optim.epochs=7"])
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]


def test_train_leaves_student_facts_report_and_pictures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe_file(tmp_path, "disco", optim__epochs=1, log__knn_every_epochs=1.0)
    out = tmp_path / "run"
    code = main(
        [
            "train",
            str(recipe),
            "--data",
            str(data),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--workers",
            "0",
            "--seed",
            "3",
            "--json",
        ]
    )
    printed = capsys.readouterr()
    assert code == 0
    facts = json.loads(printed.out)
    assert facts == json.loads((out / "run.json").read_text())
    assert (facts["seed"], facts["steps"], facts["total_steps"]) == (3, 27, 27)
    assert {"knn1_top1", "knn20_top1", "knn200_top1", "linear_top1"} == facts["figures"].keys()
    assert "27/27" in printed.err
    report = (out / "report.md").read_text()
    for metric, value in facts["figures"].items():
        assert f"| {metric} | {value:.2f} |" in report
    for name in ("curves.png", "embedding_map.png"):
        with Image.open(out / "figures" / name) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 10
    model = timm.create_model(facts["student"]["architecture"], num_classes=0)
    model.load_state_dict(load_file(out / "student.safetensors"), strict=True)


def test_steps_then_resume_is_the_whole_run(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2", optim__epochs=1, optim__batch_size=55, method__queue_size=60)
    common = ["train", str(recipe), "--data", str(data), "--device", "cpu", "--workers", "0"]
    assert main([*common, "--out", str(tmp_path / "whole")]) == 0
    assert main([*common, "--out", str(tmp_path / "parts"), "--steps", "2"]) == 0
    looked = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert looked["steps"] == 2
    assert "figures" not in looked
    assert main([*common, "--out", str(tmp_path / "parts"), "--resume"]) == 0
    assert differences(checkpoint_of(tmp_path / "parts"), checkpoint_of(tmp_path / "whole")) == []
    figures = [json.loads((tmp_path / name / "run.json").read_text())["figures"] for name in ("whole", "parts")]
    assert figures[0] == figures[1]
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["started"] == looked["started"]


def test_training_needs_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(toy_images(16, seed=0)):
        image.save(folder / f"{number}.png")
    recipe = toy_recipe_file(tmp_path, "moco_v2", log__knn_every_epochs=1.0)
    out = tmp_path / "run"
    code = main(["train", str(recipe), "--data", str(folder), "--out", str(out), "--device", "cpu", "--workers", "1"])
    assert code == 0
    assert "figures" not in json.loads((out / "run.json").read_text())
    assert "sha256" in (out / "report.md").read_text()
    assert "knn" not in (out / "metrics.jsonl").read_text()
    assert capsys.readouterr().out == ""


def test_labels_that_cannot_be_measured_do_not_cost_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """26 images are too few for k=200; that shows at the end and must not fail the run."""
    data = toy_parquet(tmp_path / "data")
    recipe = toy_recipe_file(tmp_path, "moco_v2")
    arguments = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*arguments, "--workers", "0"]) == 0
    assert f"Not measured: kNN with k=200 needs more than the {NUM_TRAIN} images" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.md").is_file()


def test_images_that_cannot_be_read_for_measuring_do_not_cost_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """203 images are enough for k=200; the 198 of them that can be read are not, which shows after the training."""
    data = toy_parquet(tmp_path / "data", num_train=203, broken=tuple(range(5)))
    recipe = toy_recipe_file(tmp_path, "moco_v2", optim__epochs=1, optim__batch_size=50, method__queue_size=50)
    arguments = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*arguments, "--workers", "0"]) == 0
    assert "Not measured: " in capsys.readouterr().err
    assert "figures" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert (tmp_path / "run" / "report.md").is_file()


def test_student_of_a_run_can_start_and_teach_another(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2")
    common = ["--data", str(data), "--device", "cpu", "--workers", "0"]
    first = tmp_path / "first"
    assert main(["train", str(recipe), *common, "--out", str(first), "--steps", "2"]) == 0
    second = toy_recipe_file(
        tmp_path,
        "disco",
        optim__base_lr=1e-12,
        teacher={"source": str(first)},
        student__init="checkpoint",
        student__init_from=str(first / "student.safetensors"),
        student__head="none",
    )
    assert main(["train", str(second), *common, "--out", str(tmp_path / "second"), "--steps", "1"]) == 0
    facts = json.loads((tmp_path / "second" / "run.json").read_text())
    assert facts["teacher"]["sha256"] == json.loads((first / "run.json").read_text())["student"]["sha256"]
    weights = [load_file(folder / "student.safetensors") for folder in (first, tmp_path / "second")]
    for key in ("conv_stem.weight", "blocks.0.0.conv.weight"):
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-3, rtol=1e-3)


def test_start_only_is_the_start_that_a_resumed_run_trains_from(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2", optim__epochs=1, optim__batch_size=55, method__queue_size=60)
    common = ["train", str(recipe), "--data", str(data), "--device", "cpu", "--workers", "0"]
    start = tmp_path / "start"
    assert main([*common, "--out", str(start), "--start-only"]) == 0
    facts = json.loads((start / "run.json").read_text())
    assert facts["steps"] == 0
    assert "figures" not in facts
    torch.manual_seed(1)  # the start is the recipe's, whatever was drawn before
    parts = build_parts(load_recipe(str(recipe)), open_data(load_recipe(str(recipe)), str(data), None).train, "cpu")
    built = {
        name: value.half() if value.is_floating_point() else value
        for name, value in parts.student.backbone.state_dict().items()
    }
    assert differences(load_file(start / "student.safetensors"), built) == []
    assert main([*common, "--out", str(start), "--resume"]) == 0
    assert main([*common, "--out", str(tmp_path / "whole")]) == 0
    assert differences(checkpoint_of(start), checkpoint_of(tmp_path / "whole")) == []


def test_start_only_takes_no_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2")
    assert main(["train", str(recipe), "--start-only", "--steps", "3", "--out", str(tmp_path / "run")]) == 2
    assert "--start-only takes no steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
