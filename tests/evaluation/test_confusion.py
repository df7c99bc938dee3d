"""Confusion matrices by hand, and a picture that shows what is in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disco_zoo.evaluation.metrics import (
    Confusion,
    confusion_matrix,
    mean_recall,
    most_confused,
    plot_confusion,
    precisions,
    recalls,
    short_name,
)

NAMES = ["cat", "dog", "owl"]
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2])
PREDICTIONS = torch.tensor([0, 0, 1, 2, 1, 0, 2])


def test_matrix_counts_each_pair_with_the_truth_in_the_rows() -> None:
    assert confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == [[2, 1, 1], [1, 1, 0], [0, 0, 1]]


def test_figures_by_hand() -> None:
    matrix = confusion_matrix(LABELS, PREDICTIONS, 3)
    assert recalls(matrix).tolist() == pytest.approx([50.0, 50.0, 100.0])
    assert mean_recall(matrix) == pytest.approx(200 / 3)
    assert precisions(matrix).tolist() == pytest.approx([100 * 2 / 3, 50.0, 50.0])


def test_class_without_images_or_predictions_has_no_figure_and_does_not_count() -> None:
    matrix = confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 0]), 2)
    assert math.isnan(recalls(matrix)[1])
    assert math.isnan(precisions(matrix)[1])
    assert mean_recall(matrix) == 100.0


def test_most_confused_sorts_by_share_of_the_class_and_leaves_out_what_never_happened() -> None:
    found = most_confused(confusion_matrix(LABELS, PREDICTIONS, 3), NAMES, 10)
    assert found == [
        Confusion("dog", "cat", 1, 50.0),
        Confusion("cat", "dog", 1, 25.0),
        Confusion("cat", "owl", 1, 25.0),
    ]


def test_labels_and_predictions_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 labels and 1"):
        confusion_matrix(torch.tensor([0, 1]), torch.tensor([0]), 2)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).astype(float)


def test_picture_of_a_perfect_classifier_differs_from_one_that_guesses(tmp_path: Path) -> None:
    perfect, guess = torch.eye(5, dtype=torch.int64) * 10, torch.full((5, 5), 2)
    names = [f"class {number}" for number in range(5)]
    plot_confusion(perfect, names, tmp_path / "a.png", "perfect")
    plot_confusion(guess, names, tmp_path / "b.png", "guess")
    pictures = [pixels(tmp_path / name) for name in ("a.png", "b.png")]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).max() > 100
    plot_confusion(perfect, names, tmp_path / "again.png", "perfect")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_long_names_keep_their_beginning() -> None:
    assert short_name("n02085782_Japanese_spaniel") == "n02085782_Japanes…"
    assert short_name("a name of just 18!") == "a name of just 18!"
    assert short_name("a name of words, cut") == "a name of words,…"


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    """matplotlib would read `$\\x$` as mathematics, and stop."""
    plot_confusion(torch.eye(2, dtype=torch.int64), ["$\\x$", "b"], tmp_path / "a.png", "title")
    assert pixels(tmp_path / "a.png").min() < 100


def test_many_classes_are_drawn_without_numbers_and_in_bounds(tmp_path: Path) -> None:
    plot_confusion(
        torch.eye(200, dtype=torch.int64), [f"a long class name {i}" for i in range(200)], tmp_path / "many.png", "many"
    )
    drawn = pixels(tmp_path / "many.png")
    assert max(drawn.shape) < 1600
    assert drawn.min() < 100
