"""What the reports of detection and segmentation have in common: backbone, images, training and curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from disco_zoo.core.console import duration
from disco_zoo.data.summary import lines_of
from disco_zoo.plotting.style import plot_curves
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run_folder import RunFolder


def fact_lines(title: str, facts: Mapping[str, Any], backbone: str) -> list[str]:
    """Heading, command and facts of a run, from run.json; `backbone` is what to say of it beside its weights."""
    start = "its weights" if facts["pretrained"] else "random weights"
    lines = [f"# {title} on {facts['model']}", "", f"`{facts['command']}`", ""]
    lines.append(f"- backbone: {facts['network']} from {start}, {backbone}")
    for split, data in facts["data"].items():
        boxes = f", {data['boxes']} boxes" if "boxes" in data else ""
        lines.append(f"- {split}: {data['name']}, {data['images']} images{boxes}")
        lines += look_lines(facts, split)
    speed = f"{facts['images_per_s']} images/s, " if "images_per_s" in facts else ""
    lines.append(
        f"- training: preset {facts['preset']}, {facts['steps']} of {facts['total_steps']} steps, "
        f"{duration(facts['training_seconds'])}, {speed}seed {facts['seed']}"
    )
    return lines


def look_lines(facts: Mapping[str, Any], split: str) -> list[str]:
    """Lines of a report on what the images of a split are, from run.json; none of runs of before it said so."""
    look = facts.get("look", {}).get(split)
    return [f"  - {line}" for line in lines_of(look)] if look else []


def curve_lines(folder: RunFolder, title: str) -> list[str]:
    """Draw the curves of a run, and give the lines that show them; none where nothing was logged."""
    metrics = read_metrics(folder.path)
    if not metrics:
        return []
    plot_curves(curve_rows(metrics), folder.figures / "curves.png", title)
    return ["", "![curves](figures/curves.png)"]


def curve_rows(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records without the figures that were taken only once, at the end: one point is no curve."""
    taken = Counter(key for row in metrics for key in row if key != "step")
    least = min(2, max(taken.values(), default=0))
    return [{key: value for key, value in row.items() if key == "step" or taken[key] >= least} for row in metrics]
