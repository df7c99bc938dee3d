"""Model cards, generated from the catalog: only sections that can be filled, no figure without its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from disco_zoo.core.files import PACKAGE_DIR
from disco_zoo.zoo import facts as model_facts
from disco_zoo.zoo.catalog import Catalog, Checkpoint
from disco_zoo.zoo.facts import SUBJECTS, metric_title

GENERATED_MARK = "<!-- Generated from the catalog by `disco-zoo card`; edits are lost. -->"
HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "unknown": "unknown",
}


def wants_card(checkpoint: Checkpoint) -> bool:
    """A card needs something of ours to say: weights to hand out, a recipe, or a measured figure."""
    return bool(checkpoint.weights.loadable or checkpoint.recipe or checkpoint.measured)


def cards_folder() -> Path:
    """Where the cards are: beside the package in a checkout, inside it in an installed wheel."""
    packaged = PACKAGE_DIR / "model_cards"
    return packaged if packaged.is_dir() else PACKAGE_DIR.parent / "model_cards"


def generated_cards(catalog: Catalog) -> dict[str, str]:
    """File name -> text of every card that the catalog gives."""
    rows = (row for row in catalog.checkpoints.values() if wants_card(row))
    return {f"{row.name}.md": render_card(row, catalog) for row in rows}


def stale_cards(folder: Path, catalog: Catalog) -> list[str]:
    """Names of card files in `folder` that are missing, differ from the catalog, or have no row any more.

    A file that is no generated card, such as a README, is not ours and not named.
    """
    expected = generated_cards(catalog)
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.md") if path.is_file()}
    present = {path.name: text for path, text in texts.items() if path.name in expected or _heading(path.stem) in text}
    return sorted(name for name in {*expected, *present} if expected.get(name) != present.get(name))


def render_card(checkpoint: Checkpoint, catalog: Catalog, weights_file: str | None = None) -> str:
    """Write a checkpoint's card as Markdown with Hub front matter.

    Args:
        checkpoint: The catalog's row, or a copy with other measured figures (a run's card).
        catalog: For the titles of teacher, data and architecture.
        weights_file: A run's own safetensors file; the card then loads it in place of published weights.
    """
    trained = "How it was trained" if checkpoint.measured else "How it is trained"
    sections = (
        ("How to load", _how_to_load(checkpoint, catalog, weights_file)),
        ("Intended use", _bullets(model_facts.intended_use(checkpoint, catalog))),
        (trained, _facts(model_facts.training_facts(checkpoint, catalog))),
        ("Measured", measured_section(checkpoint, catalog)),
        ("Reported, not measured here", _reported(checkpoint)),
        ("Limits", _bullets(model_facts.limits(checkpoint, catalog, weights_file))),
        ("Licences", _facts(model_facts.licence_facts(checkpoint, catalog))),
        ("Provenance", _provenance(checkpoint, catalog)),
        ("Citation", _citation(checkpoint, catalog)),
    )
    front = yaml.safe_dump(_front_matter(checkpoint, catalog), sort_keys=False, allow_unicode=True, width=1000)
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    return f"---\n{front}---\n\n{_heading(checkpoint.name)}\n{checkpoint.summary}.\n\n{body}\n"


def _heading(name: str) -> str:
    """What every generated card of `name` has, and no other file."""
    return f"{GENERATED_MARK}\n\n# {name}\n"


def measured_section(checkpoint: Checkpoint, catalog: Catalog) -> str:
    """The measured figures as a Markdown table with protocol and command; "" where there are none."""
    if not checkpoint.measured:
        return ""
    metrics, rows = model_facts.figure_cells(checkpoint)
    lines = [
        "| | " + " | ".join(metric_title(metric) for metric in metrics) + " |",
        "| --- |" + " ---: |" * len(metrics),
        *(f"| {SUBJECTS[subject]} | " + " | ".join(cell or "-" for cell in cells) + " |" for subject, cells in rows),
        "",
        model_facts.measured_remark(checkpoint, catalog),
        "",
    ]
    for detail, values in model_facts.measured_facts(checkpoint).items():
        quoted = [f"`{value}`" if detail == "command" else value for value in values]
        lines.append(f"- {detail.capitalize()}: {'; '.join(quoted)}")
    return "\n".join(lines)


def _front_matter(checkpoint: Checkpoint, catalog: Catalog) -> dict[str, Any]:
    tags = ["timm", "disco-zoo", "self-supervised-learning", checkpoint.method.replace("_", "-")]
    if checkpoint.teacher:
        tags.insert(3, "knowledge-distillation")
    if model_facts.transformers_lines(checkpoint, catalog, "REPO"):
        tags.insert(1, "transformers")  # its AutoModel reads timm's Hub format
    licence = HUB_LICENCES.get(checkpoint.licence.weights, "other")
    front: dict[str, Any] = {"license": licence}
    if licence == "other":
        front["license_name"] = checkpoint.licence.weights
    dataset = catalog.datasets[checkpoint.data]
    front |= {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
        **({"datasets": [dataset.hub_id]} if dataset.hub_id else {}),
    }
    figures = [measured for measured in checkpoint.measured if measured.subject == "student"]
    if figures:
        metrics = [
            {"type": "accuracy", "name": metric_title(figure.metric), "value": round(figure.mean, 2)}
            for figure in figures
        ]
        tested = catalog.measured_on(checkpoint)
        result = {
            "task": {"type": "image-classification", "name": "Frozen features"},
            "dataset": {"type": tested.hub_id, "name": tested.title, "split": "test"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": checkpoint.name, "results": [result]}]
    return front


def _how_to_load(checkpoint: Checkpoint, catalog: Catalog, weights_file: str | None) -> str:
    lines = model_facts.load_lines(checkpoint, catalog, weights_file)
    if not lines:
        return "The weights cannot be loaded: timm has no such network."
    parts = []
    if not (weights_file or checkpoint.weights.loadable):
        get = model_facts.get_command(checkpoint, catalog)
        if get is None:
            train = checkpoint.reproduce_command
            return "The weights are not published." + (f" To train your own:\n\n{_block([train])}" if train else "")
        no_link = "" if checkpoint.weights.downloadable else ", if you have it (no link is known to lead to it)"
        parts += [f"The weights are the authors' file. This converts and installs it{no_link}:", _block([get]), "Then:"]
    size = checkpoint.input.size
    parts.append(_block(lines, "python"))
    parts.append(
        f"`images` is (N, 3, {size}, {size}), normalised; `timm.data.create_transform("
        "**timm.data.resolve_model_data_config(model))` makes it so."
    )
    if not weights_file and checkpoint.weights.source == "hub":
        line = model_facts.hub_line(checkpoint, catalog)
        parts.append("Without this package:" if line else "Only with this package, which registers the network.")
        if line:
            parts.append(_block(["import timm", line], "python"))
            lines = model_facts.transformers_lines(checkpoint, catalog, checkpoint.weights.repo or "")
            parts += ["With transformers 5:", _block(lines, "python")]
    return "\n\n".join(parts)


def _reported(checkpoint: Checkpoint) -> str:
    if not checkpoint.reported:
        return ""
    lines = ["| figure | percent | source | |", "| --- | ---: | --- | --- |"]
    for figure in checkpoint.reported:
        remark = "verified" if figure.verified else "not verified"
        remark += f"; {figure.note}" if figure.note else ""
        lines.append(f"| {metric_title(figure.metric)} | {figure.value:.1f} | {figure.source} | {remark} |")
    return "\n".join(lines)


def _provenance(checkpoint: Checkpoint, catalog: Catalog) -> str:
    weights = checkpoint.weights
    facts = {
        "Method": model_facts.method_reference(checkpoint),
        "Data": catalog.datasets[checkpoint.data].url,
        "Origin": checkpoint.origin,
    }
    if weights.source == "official":
        facts["The authors' file"] = f"`{weights.file}`"
        facts["Link"] = f"<{weights.url}>" if weights.url else "unknown"
        facts["Where the link was read"] = weights.url_note or ""
    elif weights.sha256:
        facts["Weights"] = f"`{weights.file}`, sha256 `{weights.sha256}`"
    if weights.repo:
        # The card inside a repository cannot know the commit that it is part of.
        facts["Repository"] = f"`{weights.repo}`" + (f" at `{weights.revision}`" if weights.revision else "")
    return _facts({key: value for key, value in facts.items() if value})


def _citation(checkpoint: Checkpoint, catalog: Catalog) -> str:
    papers = model_facts.citations(checkpoint, catalog)
    return _block([paper.bibtex for paper in papers], "bibtex") if papers else ""


def _facts(facts: Mapping[str, str]) -> str:
    return _bullets(f"{key}: {value}" for key, value in facts.items())


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _block(lines: list[str], language: str = "") -> str:
    text = "\n".join(lines)
    return f"```{language}\n{text}\n```"
