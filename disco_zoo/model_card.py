"""Model cards, generated from the catalog: only sections that can be filled, no figure without its source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from disco_zoo.catalog import Catalog, Checkpoint, Measured

PACKAGE_FOLDER = Path(__file__).parent
GENERATED_MARK = "<!-- Generated from the catalog by `disco-zoo card`; edits are lost. -->"
HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "unknown": "unknown",
}
PAPERS = {
    "disco": (
        "DisCo",
        "Gao et al., DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled "
        "Contrastive Learning, ECCV 2022, https://arxiv.org/abs/2104.09124",
    ),
    "moco_v2": (
        "MoCo-v2",
        "Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020, https://arxiv.org/abs/2003.04297",
    ),
    "seed": (
        "SEED",
        "Fang et al., SEED: Self-supervised Distillation For Visual Representation, ICLR 2021, "
        "https://arxiv.org/abs/2101.04731",
    ),
}
METHOD_TITLES = {name: title for name, (title, _) in PAPERS.items()}
STARTS = {
    "random": "random weights, as in the paper",
    "inherit": "inherited: every tensor of EfficientNet-Lite0 (trained with ImageNet labels) whose name and "
    "shape match, the rest fresh, BatchNorm statistics recalibrated; the paper starts from random weights",
}
SUBJECTS = {
    "student": "this model",
    "baseline": "baseline (MoCo-v2, same start, same steps)",
    "start": "start (before training)",
    "teacher": "teacher, at this model's input size",
    "teacher_own_size": "teacher, at the input size it taught at",
    "pixels": "raw pixels",
}


def wants_card(checkpoint: Checkpoint) -> bool:
    """A card needs something of ours to say: a recipe, or a measured figure."""
    return bool(checkpoint.recipe or checkpoint.measured)


def cards_folder() -> Path:
    """Where the cards are: beside the package in a checkout, inside it in an installed wheel."""
    packaged = PACKAGE_FOLDER / "model_cards"
    return packaged if packaged.is_dir() else PACKAGE_FOLDER.parent / "model_cards"


def generated_cards(catalog: Catalog) -> dict[str, str]:
    """File name -> text of every card that the catalog gives."""
    rows = (row for row in catalog.checkpoints.values() if wants_card(row))
    return {f"{row.name}.md": render_card(row, catalog) for row in rows}


def stale_cards(folder: Path, catalog: Catalog) -> list[str]:
    """Names of card files in `folder` that are missing, differ from the catalog, or have no row any more."""
    expected = generated_cards(catalog)
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in {*expected, *present} if expected.get(name) != present.get(name))


def render_card(checkpoint: Checkpoint, catalog: Catalog, weights_file: str | None = None) -> str:
    """Write a checkpoint's card as Markdown with Hub front matter.

    Args:
        checkpoint: The catalog's row, or a copy with other measured figures (a run's card).
        catalog: For the titles of teacher, data and architecture.
        weights_file: A run's own safetensors file; the card then loads it in place of published weights.
    """
    sections = (
        ("How to load", _how_to_load(checkpoint, catalog, weights_file)),
        (
            "How it was trained" if checkpoint.measured else "How it is trained",
            _training(checkpoint, catalog),
        ),
        ("Measured", measured_section(checkpoint, catalog)),
        ("Reported, not measured here", _reported(checkpoint)),
        ("Limits", _limits(checkpoint, weights_file)),
        ("Licences", _licences(checkpoint)),
        ("Sources", _sources(checkpoint, catalog)),
    )
    front = yaml.safe_dump(_front_matter(checkpoint, catalog), sort_keys=False, allow_unicode=True, width=1000)
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    return f"---\n{front}---\n\n{GENERATED_MARK}\n\n# {checkpoint.name}\n\n{checkpoint.summary}.\n\n{body}\n"


def metric_title(metric: str) -> str:
    """`knn20_top1` -> "weighted kNN (k=20), top-1"; an unknown metric keeps its name."""
    if found := re.fullmatch(r"knn(\d*)_top([15])", metric):
        k, top = found.groups()
        return f"weighted kNN (k={k}), top-{top}" if k else f"kNN (k not stated), top-{top}"
    if found := re.fullmatch(r"linear_top([15])", metric):
        return f"linear probe, top-{found.group(1)}"
    return metric


def _front_matter(checkpoint: Checkpoint, catalog: Catalog) -> dict[str, Any]:
    tags = ["timm", "disco-zoo", "self-supervised-learning", checkpoint.method.replace("_", "-")]
    if checkpoint.teacher:
        tags.insert(3, "knowledge-distillation")
    licence = HUB_LICENCES.get(checkpoint.licence.weights, "other")
    front: dict[str, Any] = {"license": licence}
    if licence == "other":
        front["license_name"] = checkpoint.licence.weights
    dataset = catalog.datasets[checkpoint.data]
    front |= {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
        "datasets": [dataset.hub_id],
    }
    figures = [measured for measured in checkpoint.measured if measured.subject == "student"]
    if figures:
        metrics = [
            {"type": "accuracy", "name": metric_title(figure.metric), "value": round(figure.mean, 2)}
            for figure in figures
        ]
        result = {
            "task": {"type": "image-classification", "name": "Frozen features"},
            "dataset": {"type": dataset.hub_id, "name": dataset.title, "split": "test"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": checkpoint.name, "results": [result]}]
    return front


def _how_to_load(checkpoint: Checkpoint, catalog: Catalog, weights_file: str | None) -> str:
    architecture = catalog.architectures[checkpoint.architecture]
    size = checkpoint.input.size
    transform = (
        f"`images` is (N, 3, {size}, {size}), normalised; `timm.data.create_transform("
        "**timm.data.resolve_model_data_config(model))` makes it so."
    )
    if weights_file:
        source = f'"{checkpoint.architecture}", checkpoint_path="{weights_file}"'
    elif checkpoint.weights.loadable:
        source = f'"{checkpoint.name}", pretrained=True'
    else:
        official = checkpoint.weights.source == "official"
        state = "The authors' weights are not converted yet." if official else "The weights are not published."
        if checkpoint.recipe is None:
            return state
        return f"{state} To train your own, type:\n\n```\n{checkpoint.reproduce_command}\n```"
    return (
        f"```python\nimport disco_zoo, timm\nmodel = timm.create_model({source}).eval()\n"
        f"features = model(images)  # (N, {architecture.feature_dim})\n```\n\n{transform}"
    )


def _training(checkpoint: Checkpoint, catalog: Catalog) -> str:
    architecture, dataset = catalog.architectures[checkpoint.architecture], catalog.datasets[checkpoint.data]
    teacher = "none"
    if checkpoint.teacher:
        row = catalog.teachers[checkpoint.teacher]
        supervision = {"unknown": "supervision unknown"}.get(row.supervision, f"*{row.supervision}*")
        teacher = f"{row.title} ({supervision})"
    lines = {
        "Method": PAPERS[checkpoint.method][0],
        "Student": f"timm's `{architecture.native}`, {architecture.params_millions} M parameters, headless",
        "Teacher": teacher,
        "Data": f"{dataset.title}, {dataset.num_train:,} training images, labels unused",
        "Start": STARTS[checkpoint.start] if checkpoint.start else None,
        "Recipe": f"`recipes/{checkpoint.recipe}.yaml`" if checkpoint.recipe else None,
        "Again": f"`{checkpoint.reproduce_command}`" if checkpoint.recipe else None,
    }
    return "\n".join(f"- {key}: {value}" for key, value in lines.items() if value)


def measured_section(checkpoint: Checkpoint, catalog: Catalog) -> str:
    """The measured figures as a Markdown table with protocol and command; "" where there are none."""
    if not checkpoint.measured:
        return ""
    metrics = list(dict.fromkeys(figure.metric for figure in checkpoint.measured))
    lines = [
        "| | " + " | ".join(metric_title(metric) for metric in metrics) + " |",
        "| --- |" + " ---: |" * len(metrics),
    ]
    for subject, title in SUBJECTS.items():
        cells = [_cell(checkpoint.figure(subject, metric)) for metric in metrics]
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cell or "-" for cell in cells) + " |")
    dataset = catalog.datasets[checkpoint.data]
    lines += [
        "",
        f"Percent on the {dataset.num_test:,} test images of {dataset.title}; mean ± standard deviation.",
    ]
    allowed = {metric: getattr(checkpoint.figure("student", metric), "allowed_difference", None) for metric in metrics}
    points = [f"{value:.1f} ({metric_title(metric)})" for metric, value in allowed.items() if value is not None]
    if points:
        lines[-1] += f" A new run of this model may differ by, in points: {', '.join(points)}."
    lines.append("")
    for detail in ("protocol", "command", "hardware", "date"):
        values = dict.fromkeys(str(getattr(figure, detail)) for figure in checkpoint.measured)
        quoted = [f"`{value}`" if detail == "command" else value for value in values]
        lines.append(f"- {detail.capitalize()}: {'; '.join(quoted)}")
    return "\n".join(lines)


def _cell(figure: Measured | None) -> str:
    if figure is None:
        return ""
    if figure.std is None:
        return f"{figure.mean:.2f} (1 seed)"
    return f"{figure.mean:.2f} ± {figure.std:.2f} ({len(figure.values)} seeds)"


def _reported(checkpoint: Checkpoint) -> str:
    if not checkpoint.reported:
        return ""
    lines = ["| figure | percent | source | |", "| --- | ---: | --- | --- |"]
    for figure in checkpoint.reported:
        remark = "verified" if figure.verified else "not verified"
        remark += f"; {figure.note}" if figure.note else ""
        lines.append(f"| {metric_title(figure.metric)} | {figure.value:.1f} | {figure.source} | {remark} |")
    return "\n".join(lines)


def _limits(checkpoint: Checkpoint, weights_file: str | None) -> str:
    limits = [*checkpoint.limits]
    if checkpoint.note:
        limits.append(f"{checkpoint.note[0].upper()}{checkpoint.note[1:]}.")
    if not checkpoint.measured:
        limits.append("No figure of it has been measured with this code yet.")
    if not (checkpoint.weights.loadable or weights_file):
        limits.append("There are no weights to load.")
    return "\n".join(f"- {limit}" for limit in limits)


def _licences(checkpoint: Checkpoint) -> str:
    licence = checkpoint.licence
    rows = {
        "Code": licence.code,
        "Weights": licence.weights,
        "Teacher": licence.teacher,
        "Data": licence.data,
    }
    return "\n".join(f"- {key}: {value}" for key, value in rows.items())


def _sources(checkpoint: Checkpoint, catalog: Catalog) -> str:
    weights = checkpoint.weights
    lines = [f"- Method: {PAPERS[checkpoint.method][1]}", f"- Data: {catalog.datasets[checkpoint.data].url}"]
    lines.append(f"- Origin: {checkpoint.origin}")
    if weights.source == "official":
        lines.append(f"- The authors' file, not yet converted: `{weights.file}`")
    elif weights.sha256:
        lines.append(f"- Weights: `{weights.file}`, sha256 `{weights.sha256}`")
    return "\n".join(lines)
