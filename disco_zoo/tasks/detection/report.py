"""The report of a detector: report.md, the curves, and a sheet of images with true and detected boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import open_image
from disco_zoo.errors import require
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.dense_report import curve_lines, fact_lines
from disco_zoo.tasks.detection.annotations import EXTRA, AnnotatedImage, AnnotatedSet
from disco_zoo.training.run_folder import RunFolder

COLUMNS, MAX_IMAGES = 4, 12
MIN_SCORE = 0.5
LEGEND = f"white, dashed: annotated; coloured: found with a score of {MIN_SCORE} or more"
_INCHES = 3.0


def draw_sheet(
    annotated: AnnotatedSet,
    detections: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str,
    min_score: float = MIN_SCORE,
) -> list[int]:
    """Draw some images, evenly spread over the set: truth dashed, found boxes of at least `min_score` solid.

    Args:
        detections: of each image in order, from `average_precision.compact`; masks are tinted.
        path: the PNG to write.

    Returns:
        The numbers of the images that are shown.
    """
    spread = torch.linspace(0, len(annotated) - 1, min(len(annotated), MAX_IMAGES)).round().long().tolist()
    columns = min(COLUMNS, len(spread))
    rows = -(-len(spread) // columns)
    with drawing(_INCHES * columns, 0.8 + _INCHES * rows, title, path) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis in axes:
            axis.set_axis_off()
        for axis, number in zip(axes, spread, strict=False):
            found = detections[number]
            _draw(axis, annotated.images[number], found, annotated.class_names, min_score, annotated.ranges)
    return [int(number) for number in spread]


def _draw(
    axis: Any,
    image: AnnotatedImage,
    found: Mapping[str, Any],
    names: Sequence[str],
    min_score: float,
    ranges: ValueRanges,
) -> None:
    try:
        pixels = open_image(image.path, (image.width, image.height), ranges)
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        axis.set_title(f"unreadable: {error}"[:40], fontsize=9)
        return
    # The surest last: it lies above the others.
    certain = [n for n, score in enumerate(found["scores"].tolist()) if score >= min_score][::-1]
    shown = np.asarray(pixels)
    for number in certain if found.get("rles") else ():
        shown = _tinted(shown, found["rles"][number], COLORS[(int(found["labels"][number]) - 1) % len(COLORS)])
    axis.imshow(shown, interpolation="nearest")
    for instance in image.instances:
        _rectangle(axis, instance.box, "white", "--")
    for number in certain:
        label, box = int(found["labels"][number]) - 1, found["boxes"][number].tolist()
        color = COLORS[label % len(COLORS)]
        _rectangle(axis, box, color, "-")
        axis.text(
            box[0],
            box[1],
            f"{names[label]} {float(found['scores'][number]):.2f}",
            fontsize=9,
            color="white",
            verticalalignment="bottom",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1},
        )


def _rectangle(axis: Any, box: Sequence[float], color: str, style: str) -> None:
    patches = require("matplotlib.patches", EXTRA)
    x1, y1, x2, y2 = box
    # Pixel n covers n - 0.5 to n + 0.5 on matplotlib's axis.
    axis.add_patch(
        patches.Rectangle(
            (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=1.6
        )
    )


def _tinted(pixels: Any, rle: dict[str, Any], color: str) -> Any:
    coding = require("faster_coco_eval.core.mask", EXTRA)
    inside = coding.decode(rle).astype(bool)
    tint = np.array([int(color[n : n + 2], 16) for n in (1, 3, 5)])
    tinted = pixels.copy()
    tinted[inside] = (0.5 * tinted[inside] + 0.5 * tint).astype(np.uint8)
    return tinted


SHOWN = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """One line for boxes and one for masks: "box: AP 31.2, AP50 52.0, ..."."""
    return [
        f"{kind}: " + ", ".join(f"{title} {shown(figures[f'{kind}_{key}'])}" for key, title in SHOWN.items())
        for kind in ("box", "mask")
        if f"{kind}_ap" in figures
    ]


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def write_report(folder: RunFolder, notes: Sequence[str]) -> None:
    """Draw the curves and write report.md."""
    facts = folder.read_json(FACTS)
    hardware = facts["hardware"]
    devices = "".join(f", {name}" for name in hardware["accelerators"])
    lines = fact_lines("Detector", facts, f"fingerprint `{facts['backbone_sha256'][:16]}`")
    lines.append(f"- hardware: {hardware['cpu_cores']} CPU cores ({hardware['cpu']}){devices}")
    lines += [f"- {note}" for note in notes]
    if figures := facts.get("figures"):
        lines += ["", *_tables(figures, facts), "", "![detections](figures/detections.png)"]
    lines += curve_lines(folder, f"{facts['model']}: detector")
    folder.write_text("report.md", "\n".join(lines) + "\n")


def _tables(figures: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in figures]
    lines = [f"| | {' | '.join(SHOWN.values())} |", f"|---|{'---:|' * len(SHOWN)}"]
    for kind in kinds:
        lines.append(f"| {kind} | {' | '.join(shown(figures[f'{kind}_{key}']) for key in SHOWN)} |")
    lines += ["", f"| class | {' | '.join(f'{kind} AP' for kind in kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for name in facts["class_names"]:
        values = [shown(figures[f"{kind}_ap_per_class"][name]) for kind in kinds]
        lines.append(f"| {name} | {' | '.join(values)} |")
    points = facts["ap_points"]
    levels = "COCO's 101" if points == 101 else f"VOC 2007's {points}"
    return [*lines, "", f"Average precision in percent: AP is the mean over IoU 0.5 to 0.95; {levels} recall levels."]
