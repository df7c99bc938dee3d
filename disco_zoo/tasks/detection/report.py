"""The report of a detector: report.md and the curves, from run.json and metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from disco_zoo.core.console import duration
from disco_zoo.plotting.style import plot_curves
from disco_zoo.tasks.dense_task import curve_rows
from disco_zoo.tasks.run_settings import look_lines
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run_folder import RunFolder

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
    facts, metrics = folder.read_json("run.json"), read_metrics(folder.path)
    if metrics:
        plot_curves(curve_rows(metrics), folder.figures / "curves.png", f"{facts['model']}: detector")
    lines = [f"# Detector on {facts['model']}", "", f"`{facts['command']}`", "", *_fact_lines(facts)]
    lines += [f"- {note}" for note in notes]
    if figures := facts.get("figures"):
        lines += ["", *_tables(figures, facts), "", "![detections](figures/detections.png)"]
    if metrics:
        lines += ["", "![curves](figures/curves.png)"]
    folder.write_text("report.md", "\n".join(lines) + "\n")


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    start = "its weights" if facts["pretrained"] else "random weights"
    lines = [f"- backbone: {facts['network']} from {start}, fingerprint `{facts['backbone_sha256'][:16]}`"]
    for split, data in facts["data"].items():
        lines.append(f"- {split}: {data['name']}, {data['images']} images, {data['boxes']} boxes")
        lines += look_lines(facts, split)
    lines.append(
        f"- training: preset {facts['preset']}, {facts['steps']} of {facts['total_steps']} steps, "
        f"{duration(facts['training_seconds'])}, {facts['images_per_s']} images/s, seed {facts['seed']}"
    )
    hardware = facts["hardware"]
    devices = "".join(f", {name}" for name in hardware["accelerators"])
    return [*lines, f"- hardware: {hardware['cpu_cores']} CPU cores ({hardware['cpu']}){devices}"]


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
