"""`disco-zoo finetune` as a user types it, with the mistakes users make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from data_makers import encode, make_parquet
from tiny_runs import toy_images, toy_parquet

from disco_zoo.cli import main
from disco_zoo.tasks.finetune.settings import FinetuneSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--image-size", "32", "--batch-size", "8", "--epochs", "2", "--workers", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped for a look."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    arguments = ["finetune", "test_efficientnet", "--untrained", "--data", str(data), "--out", str(out), *SMALL]
    assert main([*arguments, "--steps", "2"]) == 0
    return out


def folder_of_classes(folder: Path, classes: dict[str, int], split: str = "") -> Path:
    for number, (name, images) in enumerate(classes.items()):
        (folder / split / name).mkdir(parents=True)
        for i, image in enumerate(toy_images(images, seed=number)):
            (folder / split / name / f"{i}.png").write_bytes(encode(image))
    return folder


def test_look_resume_and_json(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((run / "run.json").read_text())
    assert (facts["steps"], facts["total_steps"], facts["finished"]) == (2, 6, False)
    capsys.readouterr()
    arguments = ["finetune", "test_efficientnet", "--untrained", "--data", str(data), "--out", str(run), *SMALL]
    assert main([*arguments, "--resume", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "run.json").read_text())
    assert (printed["steps"], printed["finished"]) == (6, True)
    assert printed["data"] | {"fingerprint": "", "test_fingerprint": ""} == {
        "name": "toy_train.parquet",
        "train_images": 23,
        "held_out_images": 3,
        "test_images": 12,
        "fingerprint": "",
        "test_fingerprint": "",
    }
    assert (run / "model/config.json").is_file()
    assert "disco-zoo" in (run / "model/README.md").read_text()


def test_nothing_of_the_users_machine_is_in_the_folder_to_publish(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "next"
    arguments = ["finetune", str(run), "--data", str(data), "--out", str(out), *SMALL, "--steps", "1", "--seed", "2"]
    assert main(arguments) == 0
    assert json.loads((out / "run.json").read_text())["continued_head"]
    for name in ("README.md", "config.json"):
        text = (out / "model" / name).read_text()
        assert str(run.parent) not in text
        assert str(data.parent) not in text


Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["finetune", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert not (tmp_path / "runs").exists()  # found before anything is written
        [line] = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
        return line

    return call


def test_mistakes_in_words_are_told_in_one_line(fails: Fails, data: Path) -> None:
    assert "add --data" in fails("resnet18")
    assert "Did you mean 'disco_effb0'" in fails("disco_efb0", "--data", data)
    assert "there is no data at" in fails("resnet18", "--data", "nowhere")
    assert "layer_decay" in fails("resnet18", "--data", data, "--layer-decay", "2")
    assert "whole numbers with commas" in fails("resnet18", "--data", data, "--seeds", "0;1")
    assert "unknown key 'epoch'. Did you mean 'epochs'?" in fails("resnet18", "--data", data, "--set", "epoch=3")
    assert "'lerning_rate'. Did you mean 'lr'?" in fails("resnet18", "--data", data, "--set", "lerning_rate=3")
    assert "Leave --untrained out" in fails("resnet18", "--data", data, "--untrained", "--compare-untrained")


def test_mistakes_in_data_are_told_in_one_line(fails: Fails, data: Path, tmp_path: Path) -> None:
    model = ("test_efficientnet", "--untrained", "--image-size", "32", "--data")
    cells = [{"bytes": encode(image), "path": "x.png"} for image in toy_images(4, seed=0)]
    one = make_parquet(tmp_path / "one/one_train.parquet", ["cat"] * 4, cells)
    assert "one class (cat)" in fails(*model, one)
    assert "needs labels" in fails(*model, folder_of_classes(tmp_path / "bare", {"cat": 4}))
    lacking = folder_of_classes(tmp_path / "lacking", {"cat": 3, "dog": 3}, "train")
    folder_of_classes(lacking, {"cat": 2, "owl": 2}, "test")
    assert "differ: dog, owl" in fails(*model, lacking)
    assert "fewer than 9. Type: --few 8" in fails(*model, data, "--few", "9")
    broken = folder_of_classes(tmp_path / "broken", {"cat": 2, "dog": 2})
    for path in broken.rglob("*.png"):
        path.write_bytes(b"no image")
    line = fails(*model, broken, "--out", tmp_path / "broken_run", "--set", "val_fraction=0", "--workers", "0")
    assert "4 images in a row are unreadable" in line


def test_classifier_of_other_classes_is_told_in_one_line(fails: Fails, run: Path, tmp_path: Path) -> None:
    pets = folder_of_classes(tmp_path / "pets", {"cat": 3, "dog": 3})
    line = fails(run, "--data", pets, "--image-size", "32")
    assert "knows 3 classes and the data have 2" in line
    assert "--new-head" in line


def test_folder_in_use_and_folder_with_a_run_are_told(fails: Fails, run: Path, data: Path) -> None:
    common = ("test_efficientnet", "--untrained", "--data", data, "--out", run, *SMALL)
    assert "already holds a run" in fails(*common)
    assert "augment: light there, none here" in fails(*common, "--resume", "--augment", "none")


@pytest.mark.slow
def test_comparison_from_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "finetune",
        "disco_effb0",
        "--data",
        str(data),
        "--few",
        "2",
        "--few",
        "4",
        "--seeds",
        "0,1",
        "--compare-untrained",
        "--out",
        str(tmp_path / "few"),
        *SMALL,
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "pretrained minus random" in printed
    assert len([*tmp_path.rglob("model.safetensors")]) == 8
    assert not [*tmp_path.rglob("checkpoint.pt")]
    assert main([*arguments, "--resume", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [len(cell["top1"]) for cell in facts["cells"]] == [2] * 4


def test_print_shows_every_setting_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["finetune", "disco_effb0", "--head-only", "--few", "5", "--set", "weight_decay=0.01", "--print"]
    assert main(arguments) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == FinetuneSettings(model="disco_effb0", head_only=True, few=5, weight_decay=0.01).as_dict()
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert [*tmp_path.iterdir()] == []
    folder = str(folder_of_classes(tmp_path / "photos", {"a": 20, "b": 20}))
    assert main(["finetune", "disco_effb0", "--data", folder, "--print", "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)
    assert (chosen["epochs"], chosen["lr"] is None) == (400, False)  # one step an epoch, at least 400 steps
    assert main(["finetune", "disco_effb0", "--set", "weight_decai=0.01", "--print"]) == 2
    assert "weight_decay" in capsys.readouterr().err
