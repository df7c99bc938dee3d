"""Runs a detector over annotated images and computes COCO's average precision, by faster-coco-eval.

Of the maintained evaluators: it gives pycocotools' figures (a test compares them), counts in C++, which on COCO's 5000
images saves minutes a measurement, and brings nothing but numpy; torchmetrics would wrap one of these two.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import counted, require
from disco_zoo.models.encoder import frozen
from disco_zoo.tasks.detection.annotations import EXTRA, AnnotatedSet, rle_of, rle_of_pixels
from disco_zoo.tasks.detection.batches import in_order

KINDS = {"box": "bbox", "mask": "segm"}
_AREAS = {"": 0, "_small": 1, "_medium": 2, "_large": 3}
_IOU_50, _IOU_75 = 0, 5  # places of 0.5 and 0.75 among 0.5, 0.55, ..., 0.95


def compact(found: Mapping[str, Tensor]) -> dict[str, Any]:
    """One image's detections as the evaluation keeps them: on the CPU, masks as RLE.

    Args:
        found: torchvision's output: boxes (N, 4), scores (N,), labels (N,) from 1, masks (N, 1, H, W) of probabilities.
    """
    kept: dict[str, Any] = {key: found[key].cpu() for key in ("boxes", "scores", "labels")}
    if "masks" in found:
        kept["rles"] = [rle_of_pixels(mask[0] > 0.5) for mask in found["masks"]]
    return kept


def average_precision(
    annotated: AnnotatedSet, detections: Sequence[Mapping[str, Any]], *, masks: bool = False, points: int = 101
) -> dict[str, Any]:
    """Figures in percent: `box_ap` (mean over IoU 0.5 to 0.95), `box_ap50`, `box_ap75`, `box_ap_small`, ... and masks'.

    Args:
        annotated: the truth; what is to be ignored counts neither as found nor as missed.
        detections: of each image in order, from `compact`.
        points: recall levels: 101 as COCO, 11 as VOC 2007.

    Returns:
        The figures, None where there is nothing to measure, and `box_ap_per_class` (and `mask_ap_per_class`): class
        name -> AP.
    """
    figures: dict[str, Any] = {}
    for kind in ("box", "mask") if masks else ("box",):
        precision = _precision(annotated, detections, kind, points)
        for suffix, area in _AREAS.items():
            figures[f"{kind}_ap{suffix}"] = _mean(precision[:, :, :, area])
        figures[f"{kind}_ap50"] = _mean(precision[_IOU_50, :, :, 0])
        figures[f"{kind}_ap75"] = _mean(precision[_IOU_75, :, :, 0])
        figures[f"{kind}_ap_per_class"] = {
            name: _mean(precision[:, :, label, 0]) for label, name in enumerate(annotated.class_names)
        }
    return figures


def _precision(annotated: AnnotatedSet, detections: Sequence[Mapping[str, Any]], kind: str, points: int) -> Any:
    """Precision (IoU, recall level, class, area) at up to 100 detections an image; -1 where there is no truth."""
    api = require("faster_coco_eval", EXTRA)
    dataset, rows = _truth(annotated, kind), _rows(detections, kind)
    with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
        truth = api.COCO(dataset)
        found = truth.loadRes(rows) if rows else api.COCO({**dataset, "annotations": []})
        evaluation = _evaluator(api)(truth, found, KINDS[kind])
        evaluation.params.recThrs = np.linspace(0, 1, points)
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1]


def _evaluator(api: Any) -> Any:
    """COCO's evaluation, where what lies in a difficult object is forgiven by ordinary IoU, as in VOC."""
    coding = require("faster_coco_eval.core.mask", EXTRA)

    class Evaluation(api.COCOeval_faster):
        def computeIoU(self, image: int, label: int) -> Any:
            truth, found = (
                coco.loadAnns(coco.getAnnIds(imgIds=[image], catIds=[label])) for coco in (self.cocoGt, self.cocoDt)
            )
            if not (found and any(row["difficult"] for row in truth)):
                return super().computeIoU(image, label)
            best = sorted(found, key=lambda row: -row["score"])[: self.params.maxDets[-1]]
            key = "bbox" if self.params.iouType == "bbox" else "segmentation"
            crowds = [int(row["iscrowd"] and not row["difficult"]) for row in truth]
            return coding.iou([row[key] for row in best], [row[key] for row in truth], crowds)

    return Evaluation


def _truth(annotated: AnnotatedSet, kind: str) -> dict[str, Any]:
    images = [{"id": n, "width": i.width, "height": i.height} for n, i in enumerate(annotated.images, 1)]
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(annotated.images, 1):
        for instance in image.instances:
            x1, y1, x2, y2 = instance.box
            row: dict[str, Any] = {
                "id": len(rows) + 1,
                "image_id": number,
                "category_id": instance.label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": instance.area,
                "iscrowd": int(instance.ignore),  # COCO's only way to leave an object out
                "difficult": instance.ignore and instance.learn,
            }
            if kind == "mask":
                row["segmentation"] = rle_of(instance.outline, image.height, image.width)
            rows.append(row)
    categories = [{"id": label, "name": name} for label, name in enumerate(annotated.class_names, 1)]
    return {"info": {}, "images": images, "annotations": rows, "categories": categories}


def _rows(detections: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    rows = []
    for number, found in enumerate(detections, 1):
        for place, (box, score, label) in enumerate(
            zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
        ):
            x1, y1, x2, y2 = box
            row = {"image_id": number, "category_id": label, "score": score}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "box" else {"segmentation": found["rles"][place]}
            rows.append(row)
    return rows


def _mean(precision: Any) -> float | None:
    """In percent, over what there is truth for."""
    known = precision[precision > -1]
    return round(100 * float(known.mean()), 3) if known.size else None


Progress = Callable[[int, int], None]
BATCH_SIZE = 4


def detect(
    detector: Any,
    annotated: AnnotatedSet,
    *,
    device: torch.device | str,
    workers: int = 0,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """What the detector finds in each image, in order (see `average_precision.compact`).

    The detector's modes and torch's random state are as before. In an image that cannot be read nothing is found.

    Raises:
        BadData: too many images cannot be read.
    """
    tally = UnreadableTally(unreadable_limit(len(annotated)))
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    detections: list[dict[str, Any]] = [{**nothing, "rles": []} for _ in annotated.images]
    done, kind = 0, torch.device(device).type
    with frozen(detector, device):
        for items in in_order(annotated, BATCH_SIZE, workers):
            for pixels, index, fault in items:
                if pixels is None:
                    tally.add(index, fault)
            tally.check()
            read = [(pixels.to(device) / 255.0, index) for pixels, index, _ in items if pixels is not None]
            if read:
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
                    outputs = detector([pixels for pixels, _ in read])
                for output, (_, index) in zip(outputs, read, strict=True):
                    detections[index] = compact(output)
            done += len(items)
            if progress is not None:
                progress(done, len(annotated))
    tally.say(f"Unreadable, so nothing is found there: {counted(len(tally.messages), 'image')}")
    return detections
