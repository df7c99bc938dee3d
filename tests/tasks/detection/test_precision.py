"""Average precision: closed forms, pycocotools, and what must not matter."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from disco_zoo.tasks.detection.annotations import AnnotatedImage, AnnotatedSet, Instance
from disco_zoo.tasks.detection.average_precision import _rows, _truth, average_precision, compact

BOX = (10.0, 10.0, 50.0, 50.0)


def image(*instances: Instance) -> AnnotatedImage:
    return AnnotatedImage(Path("x.png"), 100, 100, instances)


def instance(
    box: tuple[float, float, float, float] = BOX, label: int = 0, ignore: bool = False, learn: bool = True
) -> Instance:
    x1, y1, x2, y2 = box
    outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return Instance(box, label, ignore, learn, area=(x2 - x1) * (y2 - y1), outline=outline)


def found(*rows: tuple[Any, float, int]) -> dict[str, Any]:
    boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(rows), 1, 100, 100)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[0, y1:y2, x1:x2] = 0.9
    scores = torch.tensor([score for _, score, _ in rows])
    labels = torch.tensor([label + 1 for _, _, label in rows], dtype=torch.int64)
    return compact({"boxes": boxes, "scores": scores, "labels": labels, "masks": masks})


def annotated(*images: AnnotatedImage, names: tuple[str, ...] = ("a",)) -> AnnotatedSet:
    return AnnotatedSet("set", names, images)


def test_all_found_exactly_is_100() -> None:
    figures = average_precision(annotated(image(instance())), [found((BOX, 0.9, 0))], masks=True)
    for key in ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "box_ap_medium"):
        assert figures[key] == 100
    assert figures["box_ap_large"] is None
    assert figures["box_ap_per_class"] == {"a": 100}


def test_overlap_of_two_thirds_counts_at_four_of_ten_thresholds() -> None:
    """IoU 40·32 / (40·48) = 2/3: right at 0.5, 0.55, 0.6, 0.65, wrong from 0.7 on."""
    shifted = (10.0, 18.0, 50.0, 58.0)
    figures = average_precision(annotated(image(instance())), [found((shifted, 0.9, 0))])
    assert figures["box_ap50"] == 100
    assert figures["box_ap75"] == 0
    assert figures["box_ap"] == pytest.approx(40)


def test_a_false_box_ahead_halves_the_precision() -> None:
    wrong = (60.0, 60.0, 90.0, 90.0)
    figures = average_precision(annotated(image(instance())), [found((wrong, 0.9, 0), (BOX, 0.8, 0))])
    assert figures["box_ap50"] == pytest.approx(50)
    behind = average_precision(annotated(image(instance())), [found((wrong, 0.7, 0), (BOX, 0.8, 0))])
    assert behind["box_ap50"] == 100  # what comes after full recall costs nothing


@pytest.mark.parametrize(("points", "expected"), [(101, 100 * 51 / 101), (11, 100 * 6 / 11)])
def test_half_found_counts_the_recall_levels_up_to_a_half(points: int, expected: float) -> None:
    other = (55.0, 55.0, 95.0, 95.0)
    truth = annotated(image(instance(), instance(other)))
    figures = average_precision(truth, [found((BOX, 0.9, 0))], points=points)
    assert figures["box_ap50"] == pytest.approx(expected, abs=1e-3)


def test_what_is_to_be_ignored_neither_helps_nor_hurts() -> None:
    other = (55.0, 55.0, 95.0, 95.0)
    truth = annotated(image(instance(), instance(other, ignore=True)))
    for rows in ([(BOX, 0.8, 0)], [(BOX, 0.8, 0), (other, 0.9, 0)]):
        assert average_precision(truth, [found(*rows)])["box_ap50"] == 100


@pytest.mark.parametrize("masks", [False, True])
def test_a_difficult_object_forgives_what_overlaps_it_by_half_and_a_crowd_what_lies_in_it(masks: bool) -> None:
    """A box in the object's corner has an IoU of 1/4 with it, one over its upper half 1/2."""
    other = (55.0, 55.0, 95.0, 95.0)
    corner, half = (55.0, 55.0, 75.0, 75.0), (55.0, 55.0, 95.0, 75.0)
    difficult, crowd = (annotated(image(instance(), instance(other, 0, True, learn))) for learn in (True, False))
    key = "mask_ap50" if masks else "box_ap50"
    for truth, box, expected in ((difficult, corner, 33.333), (difficult, half, 100), (crowd, corner, 100)):
        rows = [found((box, 0.9, 0), (box, 0.85, 0), (BOX, 0.8, 0))]
        figures = average_precision(truth, rows, masks=masks)
        assert figures[key] == pytest.approx(expected)


def test_nothing_found_is_nought_and_a_class_that_is_not_there_is_left_out() -> None:
    truth = annotated(image(instance()), names=("a", "b"))
    figures = average_precision(truth, [found()])
    assert figures["box_ap"] == figures["box_ap50"] == 0
    assert figures["box_ap_per_class"] == {"a": 0, "b": None}
    assert [figures[f"box_ap_{size}"] for size in ("small", "medium", "large")] == [None, 0, None]
    assert average_precision(truth, [found((BOX, 0.9, 0))])["box_ap"] == 100


def noisy(seed: int) -> tuple[AnnotatedSet, list[dict[str, Any]]]:
    draws = np.random.default_rng(seed)
    images, detections = [], []
    for _ in range(12):
        corners = draws.integers(0, 50, (4, 2))
        sides = draws.integers(8, 50, (4, 2))
        boxes = [
            (float(x), float(y), float(x + w), float(y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)
        ]
        labels = draws.integers(0, 3, 4).tolist()
        objects = enumerate(zip(boxes, labels, strict=True))
        images.append(image(*(instance(box, label, n == 3, n != 3) for n, (box, label) in objects)))
        rows = []
        for box, label in zip(boxes, labels, strict=True):
            moved = tuple(np.clip(np.array(box) + draws.integers(-4, 5, 4), 0, 100).tolist())
            rows.append((moved, float(draws.random()), int(label if draws.random() < 0.8 else draws.integers(3))))
        detections.append(found(*rows))
    return annotated(*images, names=("a", "b", "c")), detections


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_figures_are_those_of_pycocotools(kind: str) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")
    truth, detections = noisy(0)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = _truth(truth, kind)
        reference.createIndex()
        evaluation = evaluator.COCOeval(
            reference, reference.loadRes(_rows(detections, kind)), {"box": "bbox", "mask": "segm"}[kind]
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = average_precision(truth, detections, masks=True)
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium")
    ours = [figures[f"{kind}_{key}"] for key in keys]
    assert ours == pytest.approx((100 * evaluation.stats[:5]).tolist(), abs=2e-3)
    assert 5 < ours[0] < 95


def test_order_of_images_and_of_boxes_does_not_matter() -> None:
    truth, detections = noisy(1)
    turned = AnnotatedSet("x", truth.class_names, truth.images[::-1])

    def reverse(one: dict[str, Any]) -> dict[str, Any]:
        return {key: value.flip(0) if isinstance(value, Tensor) else value[::-1] for key, value in one.items()}

    again = average_precision(turned, [reverse(one) for one in detections[::-1]], masks=True)
    assert again == average_precision(truth, detections, masks=True)


def test_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    average_precision(*noisy(2))
    assert capsys.readouterr().out == ""
