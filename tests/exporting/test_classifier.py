"""A fine-tuned classifier keeps its head and the names of its classes in the file; --features leaves them away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from finetune_makers import toy_settings
from tiny import TinySource
from tiny_runs import CLASSES, toy_parquet

from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.exporting.loss import classes_of, int8_loss
from disco_zoo.exporting.onnx_file import FileNetwork, metadata, write_onnx
from disco_zoo.exporting.subject import Subject, load_subject
from disco_zoo.models.classifier_dir import Classifier, read_classifier, write_classifier
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import load_model
from disco_zoo.models.onnx_network import runner, session
from disco_zoo.tasks.finetune.start import build_start

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = tuple(sorted(CLASSES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classifier: Classifier = build_start(toy_settings(), NAMES).classifier
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # the head begins near zero, and all images would be of one class
        for head in classifier.network.get_classifier().parameters():
            head.copy_(torch.randn(head.shape, generator=generator))
    path = tmp_path_factory.mktemp("run") / "model"
    write_classifier(path, classifier, facts={}, card="", description="")
    return path


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return load_subject(str(folder))


@pytest.fixture(scope="module")
def file(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "m.onnx"
    write_onnx(subject, path, 1e-4)
    return path


def test_the_file_gives_the_scores_and_says_which_class_each_is(folder: Path, subject: Subject, file: Path) -> None:
    images = subject.example(4)
    with torch.no_grad():
        expected = read_classifier(folder).network.eval()(images)
    torch.testing.assert_close(runner(file)(images), expected, atol=1e-4, rtol=1e-4)
    assert session(file).get_outputs()[0].name == "scores"
    facts = metadata(file)
    assert json.loads(facts["label_names"]) == list(NAMES)
    assert facts["output"].startswith(f"scores (batch, {len(NAMES)})")


def test_features_are_those_that_other_commands_use(folder: Path, tmp_path: Path) -> None:
    headless = load_subject(str(folder), features=True)
    write_onnx(headless, tmp_path / "m.onnx", 1e-4)
    named, images = load_model(str(folder)), headless.example(2)
    with torch.no_grad():
        expected = named.backbone.eval()(images)
    torch.testing.assert_close(runner(tmp_path / "m.onnx")(images), expected, atol=1e-4, rtol=1e-4)
    facts = metadata(tmp_path / "m.onnx")
    assert "label_names" not in facts
    assert facts["weights_sha256"] == backbone_fingerprint(named.backbone)


def test_the_loss_is_the_classifiers_own_accuracy(subject: Subject, file: Path) -> None:
    source = TinySource(30)
    source.class_names, source.split = [NAMES[2], NAMES[0], NAMES[1]], "test"
    found = int8_loss(subject, file, source, range(30))
    network = FileNetwork(file, subject.takes_pixels)
    from disco_zoo.evaluation.features import extract_features

    scores = extract_features(
        network,
        source,
        image_size=subject.image_size,
        resize_size=subject.resize_size,
        mean=subject.named.mean,
        std=subject.named.std,
    )
    truth = torch.tensor([[2, 0, 1][label] for label in source.labels or ()])
    right = 100 * (scores.features.argmax(dim=1) == truth).double().mean().item()
    assert found.top1 == pytest.approx((right, right))
    assert 0 < right < 100
    assert (found.same_class, found.k) == (100.0, None)
    source.split = "train"  # what it may have learned from says nothing
    assert int8_loss(subject, file, source, range(30)).top1 is None


def test_classes_are_matched_by_name(subject: Subject) -> None:
    source = TinySource(6)
    source.class_names = [NAMES[1], NAMES[2]]
    numbers = classes_of(subject, source)
    assert numbers is not None
    assert numbers.tolist() == [1, 2]
    source.class_names = [NAMES[0], "zebra"]
    with pytest.raises(BadData, match="zebra"):
        classes_of(subject, source)


def test_data_of_other_classes_is_refused_before_a_file_is_written(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder), "--out", "x.onnx", "--int8", "static", "--data", "sample"]) == 2
    assert "does not know these classes of sample" in capsys.readouterr().err
    assert not Path("x.onnx").exists()


@pytest.mark.slow
def test_the_command(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(toy_parquet(tmp_path / "data"))
    arguments = ("export", str(folder.parent), "--int8", "static", "--data", data, "--workers", "0", "--json")
    assert main([*arguments, "--out", "c.onnx"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label_names"] == list(NAMES)
    assert set(found["int8"]) >= {"float32_top1", "int8_top1", "same_class"}
    assert main([*arguments, "--out", "f.onnx", "--features"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "label_names" not in found
    assert set(found["int8"]) >= {"float32_knn_top1", "int8_knn_top1"}
