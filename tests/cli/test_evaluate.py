"""`disco-zoo evaluate` from end to end on toy images, and all that it refuses in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_makers import encode, make_parquet
from evaluate_runs import COMMON, NUM_TEST, NUM_TRAIN, evaluate
from PIL import Image
from tiny_runs import toy_images, toy_parquet

from disco_zoo.cli import main
from disco_zoo.data.pairing import open_labeled_pair
from disco_zoo.evaluation.measure import Bench
from disco_zoo.evaluation.metrics import wilson_interval

pytestmark = pytest.mark.usefixtures("one_thread")

TOY = ["test_resnet", "--untrained", *COMMON]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_parquet(tmp_path_factory.mktemp("data"), num_train=NUM_TRAIN, num_test=NUM_TEST))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr."""
    assert main(["evaluate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "metrics", "preset"),
    [
        (["knn", "--k", "1", "--k", "20"], {"knn1_top1", "knn20_top1"}, "default"),
        (["knn", "--protocol", "ssl_small", "--k", "3"], {"knn3_top1"}, "ssl_small"),
        (["linear"], {"linear_top1"}, "fast"),
        (["linear", "--protocol", "bingo", "--epochs", "2"], {"linear_top1", "linear_last_top1"}, "bingo_r@2ep"),
        (["semi", "--fraction", "0.1"], {"semi10_frozen_top1"}, "fast"),
        (
            ["semi", "--fraction", "0.1", "--protocol", "disco", "--epochs", "2"],
            {"semi10_frozen_top1", "semi10_frozen_last_top1"},
            "disco@2ep",
        ),
        (
            ["semi", "--fraction", "0.5", "--mode", "finetune", "--epochs", "1"],
            {"semi50_finetune_top1", "semi50_finetune_last_top1"},
            "swav@1ep",
        ),
        (["transfer"], {"transfer_frozen_top1"}, "fast"),
        (
            ["transfer", "--protocol", "ssl_small", "--mode", "finetune", "--lr", "0.01", "--epochs", "1"],
            {"transfer_finetune_top1", "transfer_finetune_last_top1"},
            "ssl_small@1ep@lr0.01",
        ),
    ],
)
def test_every_task_gives_figures_with_all_that_fixes_them(
    arguments: list[str], metrics: set[str], preset: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task, *rest = arguments
    values = evaluate(capsys, task, *TOY, "--data", data, *rest)
    assert values["figures"].keys() == metrics
    assert (values["task"], values["preset"]) == (task, preset)
    assert values["num_scored"] == NUM_TEST
    for metric, value in values["figures"].items():
        assert round(value * NUM_TEST / 100, 6).is_integer()
        assert values["intervals"][metric] == pytest.approx(wilson_interval(value, NUM_TEST))
    assert values["model"]["untrained"] is True
    assert values["model"]["network"] == "test_resnet"
    assert values["measured"] == []  # the catalog has no place for random weights
    assert values["data"]["num_classes"] == 3
    assert f"{32} px" in values["protocol"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("task", [["knn", "--k", "1", "--k", "20"], ["linear"]])
def test_figures_are_the_same_by_every_engine(
    task: list[str], engine: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine)
    plain = evaluate(capsys, task[0], *TOY, "--data", data, *task[1:])
    fast = evaluate(capsys, task[0], *TOY, "--data", data, *task[1:], "--engine", engine)
    assert fast["figures"] == plain["figures"]
    engines = [values["details"].get("settings", values["details"])["engine"] for values in (plain, fast)]
    assert engines[0] == "torch"
    assert engines[1].startswith(f"{engine} ")


def test_an_engine_is_for_features_that_are_computed_once(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["linear", *TOY, "--data", data, "--protocol", "disco", "--engine", "onnxruntime"]
    assert "disco asks the network at each step. Leave --engine out" in refusal(capsys, *arguments)


def test_text_shows_figures_intervals_and_the_epoch(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "linear", *TOY, "--data", data, "--protocol", "disco", "--epochs", "3"]) == 0
    out = capsys.readouterr().out
    assert "test_resnet (random weights)" in out
    assert "90 training images, 30 test images, 3 classes" in out
    assert "95 % interval" in out
    assert "of 3, chosen on the test images" in out


def test_the_best_k_is_told_to_be_optimistic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(toy_parquet(tmp_path, num_train=120, num_test=30))
    assert main(["evaluate", "knn", *TOY, "--data", data, "--protocol", "ssl_small"]) == 0
    assert "chosen on the test images: optimistic" in capsys.readouterr().out
    values = evaluate(capsys, "knn", *TOY, "--data", data, "--protocol", "ssl_small")
    by_k = values["details"]["top1_by_k"]
    assert len(by_k) == 51
    assert values["figures"]["knn_best_top1"] == max(by_k.values()) == by_k[str(values["details"]["best_k"])]


def test_random_weights_come_from_the_seed(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["knn", *TOY, "--data", data, "--k", "1"]
    torch.manual_seed(1)
    first = evaluate(capsys, *arguments)["model"]["backbone_sha256"]
    torch.manual_seed(2)
    assert evaluate(capsys, *arguments)["model"]["backbone_sha256"] == first
    assert evaluate(capsys, *arguments, "--seed", "1")["model"]["backbone_sha256"] != first


def test_a_look_takes_all_classes_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy_parquet(tmp_path, num_train=300, num_test=270)
    values = evaluate(capsys, "linear", *TOY, "--data", str(data), "--steps", "1", "--protocol", "disco")
    assert (values["data"]["num_train"], values["data"]["num_test"]) == (256, 256)
    assert values["preset"] == "disco@1ep"


def test_a_stopped_probe_goes_on(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from disco_zoo.evaluation.probes import linear_sgd

    arguments = ["linear", *TOY, "--data", data, "--protocol", "disco", "--epochs", "4"]
    whole = evaluate(capsys, *arguments)
    out = tmp_path / "probe.json"
    real, calls = linear_sgd._Layer.score, []

    def stop(layer: Any, *rest: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(layer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(linear_sgd._Layer, "score", stop)
        assert main(["evaluate", *arguments, "--out", str(out)]) == 130
    assert not out.exists()
    assert "Add --resume to go on" in refusal(capsys, *arguments, "--out", str(out))
    again = evaluate(capsys, *arguments, "--out", str(out), "--resume")
    assert again["figures"] == whole["figures"]
    assert again["details"]["top1_per_epoch"] == whole["details"]["top1_per_epoch"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.json"]


def test_a_list_of_names_replaces_the_fraction(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "ten.txt"
    names.write_text("".join(f"train_{i}.png\n" for i in range(9)), "utf-8")
    values = evaluate(capsys, "semi", *TOY, "--data", data, "--list", str(names))
    assert values["data"]["num_train"] == 9
    assert values["figures"].keys() == {"semi10_frozen_top1"}
    assert "9 labels of ten.txt" in values["protocol"]
    names.write_text("train_0.png\nnone.png\n", "utf-8")
    assert "1 of the 2 names" in refusal(capsys, "semi", *TOY, "--data", data, "--list", str(names))


# --- what is refused, before any image is seen by the network ---


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("worked before checking")

    monkeypatch.setattr("disco_zoo.models.encoder.pooled", work)
    monkeypatch.setattr("disco_zoo.evaluation.probes.linear_sgd.pooled", work)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knn", "--k", "91"], "k=91 needs at least 91 training images, there are 90"),
        (["knn", "--protocol", "dno"], "Did you mean 'dino'"),
        (["knn", "--protocol", "compress", "--temperature", "1"], "Leave out --temperature"),
        (["linear", "--protocol", "disko"], "Did you mean 'disco'"),
        (["linear", "--epochs", "3"], "cannot run 3 epochs"),
        (["linear", "--lr", "3"], "Leave --lr out"),
        (["linear", "--resume"], "Type the same --out"),
        (["linear", "--resume", "--out", "none.json"], "nothing to resume"),
        (["semi", "--protocol", "swav", "--mode", "frozen"], "The protocol swav fine-tunes"),
        (["semi", "--protocol", "disco", "--mode", "finetune"], "keeps the backbone frozen"),
        (["semi", "--protocol", "moco"], "Known: disco, fast, swav"),
        (["semi", "--fraction", "0.01"], "1 images are fewer than the 3 classes"),
        (["semi", "--fraction", "0.04"], "has one training image; the fast probe needs two"),
        (["semi", "--fraction", "2"], "--fraction"),
        (["semi", "--mode", "finetune", "--lr", "1", "--lr", "2"], "one --lr at a time"),
        (["transfer", "--protocol", "ssl_small", "--mode", "finetune"], "states no rate for fine-tuning"),
        (["linear", "--resize-size", "20"], "--resize-size 20 is smaller than the crop of 32"),
    ],
)
def test_options_that_cannot_be(
    arguments: list[str],
    message: str,
    data: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, arguments[0], *TOY, "--data", data, *arguments[1:])


def labelled(folder: Path, split: str, names: list[str]) -> str:
    cells = [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(toy_images(len(names), seed=0))]
    path = folder / f"set_{split}.parquet"
    pq.write_table(pa.table({"image": cells, "label": names}), path)
    return str(path)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["cat"] * 6, ["cat"] * 2, "needs two classes, the training images have 1: cat"),
        (["cat", "dog"] * 3, ["cat", "cow"], "the classes of .* differ: cow, dog"),
    ],
)
@pytest.mark.parametrize("task", ["knn", "linear", "semi", "transfer"])
def test_labels_that_do_not_fit(
    task: str, train: list[str], test: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = labelled(tmp_path, "train", train)
    labelled(tmp_path, "test", test)
    assert re.search(message, refusal(capsys, task, *TOY, "--data", data))


def test_a_class_without_test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, classes in (("train", ("cat", "cow", "dog")), ("test", ("cat", "cow"))):
        for name in classes:
            for number in range(3):
                path = tmp_path / "pets" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    labels, names = {"train": [0, 1, 2, 0, 1, 2], "test": [0, 1]}, {"label": {"names": ["cat", "cow", "dog"]}}
    for split, numbers in labels.items():
        cells = [{"bytes": encode(image), "path": ""} for image in toy_images(len(numbers), seed=0)]
        make_parquet(tmp_path / f"set_{split}.parquet", numbers, cells, metadata=names)
    for data in ("pets", "set_train.parquet"):
        train, test = open_labeled_pair(str(tmp_path / data))
        Bench(train, test, 8, None).check(ks=())
        assert (
            f"{test.name}: no test images of 1 of the 3 classes, which are not measured: dog" in capsys.readouterr().err
        )


def test_a_result_that_cannot_be_written_is_found_first(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str], no_work: None
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    out = tmp_path / "file" / "result.json"
    assert "Cannot write to" in refusal(capsys, "knn", *TOY, "--data", data, "--k", "1", "--out", str(out))
    line = refusal(capsys, "knn", *TOY, "--data", data, "--k", "1", "--out", str(tmp_path / "file"))
    assert "is there already" in line
    assert "--yes" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unreadable_images_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy_parquet(tmp_path / "few", num_train=60, num_test=30, broken=(4,))
    values = evaluate(capsys, "knn", *TOY, "--data", str(data), "--k", "1")
    assert len(values["unreadable"]) == 1
    assert "not an image" in values["unreadable"][0]
    data = toy_parquet(tmp_path / "many", num_train=60, num_test=30, broken=tuple(range(11)))
    assert "11 images are unreadable, 10 are tolerated" in refusal(capsys, "knn", *TOY, "--data", str(data), "--k", "1")


def test_a_size_that_a_network_cannot_have(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(
        capsys, "knn", "vit_tiny_patch16_224", "--untrained", "--data", data, "--image-size", "50", "--k", "1"
    )
    assert "cannot look at 50 pixels" in line
    assert "--image-size 48" in line


def test_an_unknown_model_and_missing_data(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean" in refusal(capsys, "knn", "disco_efb0", "--data", data, "--k", "1")
    assert "there is no data at" in refusal(capsys, "knn", *TOY, "--data", data.replace("toy_", "toi_"))
