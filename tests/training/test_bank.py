"""Training images without labels: the student is measured on labelled ones of another source, its own split as bank."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_runs import toy_parquet, toy_recipe

import disco_zoo
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    labelled = pq.read_table(toy_parquet(tmp_path / "photos"))
    path = tmp_path / "my_photos.parquet"
    pq.write_table(labelled.select(["image"]), path)
    return path


def test_the_bank_is_the_training_split_of_the_evaluation_data(tmp_path: Path, unlabelled: Path) -> None:
    labelled = toy_parquet(tmp_path / "eval", num_train=250, num_test=30)
    data = open_data(toy_recipe(), str(unlabelled), str(labelled))
    assert (len(data.train), len(data.bank), len(data.test or ())) == (pq.read_table(unlabelled).num_rows, 250, 30)
    assert data.has_labels


def test_its_figures_are_those_of_evaluate(tmp_path: Path, unlabelled: Path, capfd: pytest.CaptureFixture) -> None:
    labelled = toy_parquet(tmp_path / "eval", num_train=250, num_test=30)
    recipe = toy_recipe("moco_v2", optim__epochs=1, log__knn_every_epochs=1)
    facts = disco_zoo.train(recipe, str(unlabelled), tmp_path / "run", eval_data=str(labelled), workers=0)
    assert facts is not None
    assert facts["bank"] == {"source": str(labelled), "images": 250}
    assert "has no labels" in capfd.readouterr().err
    again = disco_zoo.evaluate(str(tmp_path / "run"), str(labelled), device="cpu", workers=0)
    assert facts["figures"]["knn20_top1"] == pytest.approx(again.figures["knn20_top1"])


def test_each_source_is_told_of_once(tmp_path: Path, unlabelled: Path, capfd: pytest.CaptureFixture) -> None:
    labelled = toy_parquet(tmp_path / "eval", num_train=250, num_test=30)
    open_data(toy_recipe(), str(unlabelled), str(labelled))
    told = "".join(capfd.readouterr().err.split())  # whatever the width of the terminal
    assert [told.count(words) for words in ("250trainingimages,", "30testimages", "250testimages")] == [1, 1, 0]


def test_without_a_bank_nothing_is_measured(tmp_path: Path, unlabelled: Path, capfd: pytest.CaptureFixture) -> None:
    labelled = toy_parquet(tmp_path / "eval", num_train=4, num_test=30)
    data = open_data(toy_recipe(), str(unlabelled), str(labelled.with_name("toy_test.parquet")))
    assert not data.has_labels
    assert "training images themselves" not in capfd.readouterr().err
