"""The report of a fine-tuning: pictures, `report.md`, the classifier's card, and the lines on the terminal."""

from __future__ import annotations

from typing import Any

from disco_zoo.core.console import duration
from disco_zoo.core.environment import hardware_text
from disco_zoo.data.summary import lines_of
from disco_zoo.errors import counted
from disco_zoo.evaluation.metrics import Confusion, most_confused, plot_confusion, precisions, recalls
from disco_zoo.models.classifier_dir import MODEL_FOLDER, label_list
from disco_zoo.plotting.style import plot_curves
from disco_zoo.tasks.finetune.scoring import Scores
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run_folder import RunFolder

SHOWN_PAIRS = 10


def write_report(folder: RunFolder, facts: dict[str, Any], scores: Scores | None) -> None:
    """Curves, confusion matrix as picture and JSON, and report.md."""
    title = _title(facts)
    plot_curves(read_metrics(folder.path), folder.figures / "curves.png", f"{title}: training")
    if scores is not None:
        names = facts["model"]["classes"]
        kind = f"{scores.num_images} {facts['measured_on']} images, top-1 {scores.top1:.1f} %"
        plot_confusion(scores.matrix, names, folder.figures / "confusion.png", f"{title}\n{kind}")
        folder.write_json("confusion.json", {"classes": names, "rows_are_true": scores.matrix.tolist()})
    folder.write_text("report.md", _report(facts, scores))


def summary_lines(facts: dict[str, Any], out: str) -> list[str]:
    """Lines that the command prints at the end."""
    classes = facts["model"]["classes"]
    lines = [
        f"{_title(facts)}, {facts['data']['train_images']} training images, {len(classes)} classes: "
        f"{label_list(classes, 10)}"
    ]
    if facts["figures"]:
        lines += [f"  {line}" for line in _figure_lines(facts)]
    if not facts["finished"]:
        lines.append(f"  Stopped after {facts['steps']} of {facts['total_steps']} steps. To go on: --resume")
    return [*lines, f"Everything is in {out}; the classifier is {out}/{MODEL_FOLDER}"]


def model_card(facts: dict[str, Any]) -> str:
    """README.md of the classifier's folder."""
    settings, data, model = facts["settings"], facts["data"], facts["model"]
    ours = "import disco_zoo  # registers the network\n" if model["architecture"].startswith("disco_") else ""
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags:",
        "- timm",
        "- image-classification",
        "---",
        f"# {_title(facts)}",
        "",
        f"{model['architecture']}, {model['parameters'] / 1e6:.2f} M parameters, {model['image_size']} px, "
        f"{len(model['classes'])} classes: {label_list(model['classes'])}.",
        "",
        *[f"- {line}" for line in _figure_lines(facts)],
        f"- start: {'random weights' if settings['untrained'] else facts['name']}"
        + (", backbone frozen" if settings["head_only"] else ""),
        f"- data: {data['train_images']} training images of {data['name']}",
        "",
        "```python",
        f"import timm, torch\n{ours}from PIL import Image",
        "",
        'model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()  # or "hf-hub:ORG/NAME"',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        'image = transform(Image.open("photo.jpg").convert("RGB"))[None]',
        "with torch.no_grad():",
        "    scores = model(image).softmax(-1)[0]",
        'print(model.pretrained_cfg["label_names"][scores.argmax()], float(scores.max()))',
        "```",
        "",
        "To publish it: `hf upload ORG/NAME PATH_OF_THIS_FOLDER`. Trained with disco-zoo; all settings are in "
        "`config.json` under `disco_zoo`. Name a licence before you publish: the data's terms decide it, too.",
    ]
    return "\n".join(lines) + "\n"


def _report(facts: dict[str, Any], scores: Scores | None) -> str:
    settings, data = facts["settings"], facts["data"]
    early = f", stopped early ({settings['patience']} epochs without a better one)" if facts["stopped_early"] else ""
    chosen = f"epoch {facts['best_epoch']}, the best on the held-out images" if facts["best_epoch"] else "the last step"
    lines = [
        f"# {_title(facts)}",
        "",
        f"`{facts['command']}`",
        "",
        *[f"- {line}" for line in _figure_lines(facts)],
        f"- data: {data['train_images']} training, {data['held_out_images']} held-out and {data['test_images']} test "
        f"images of {data['name']}, fingerprint `{data['fingerprint'][:16]}`",
        *(f"- {line}" for look in facts["look"].values() if look for line in lines_of(look)),
        f"- weights: {chosen}. Test images choose nothing",
        f"- training: {facts['steps']} of {facts['total_steps']} steps{early}, {duration(facts['training_seconds'])}, "
        f"{facts['images_per_s']} images/s, seed {settings['seed']}",
        f"- hardware: {hardware_text(facts['hardware'])}",
    ]
    if facts["unreadable_images"]:
        lines.append(f"- {facts['unreadable_images']} training images could not be read: unreadable_images.txt")
    if scores is not None:
        lines += _class_table(scores, facts["model"]["classes"])
        lines += _pair_lines(most_confused(scores.matrix, facts["model"]["classes"], SHOWN_PAIRS))
        lines += ["", "![confusion matrix](figures/confusion.png)"]
    lines += [
        "",
        "![training curves](figures/curves.png)",
        "",
        f"The classifier is `{MODEL_FOLDER}/`; its README says how to load it. `run.json` holds all facts, "
        "`finetune.yaml` all settings, `metrics.jsonl` the curves, `confusion.json` the counts.",
    ]
    return "\n".join(lines) + "\n"


def _title(facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    start = " (random start)" if settings["untrained"] else ""
    few = f", {settings['few']} a class" if settings["few"] else ""
    return f"{facts['name']}{start} on {facts['data']['name']}{few}"


def _figure_lines(facts: dict[str, Any]) -> list[str]:
    figures = facts["figures"]
    if not figures:
        return ["not measured: there are neither test nor held-out images"]
    low, high = figures["top1_interval"]
    where = f"{figures['num_images']} {facts['measured_on']} images"
    optimistic = ", which chose the epoch: optimistic" if facts["measured_on"] == "held-out" else ""
    lines = [f"top-1 {figures['top1']:.2f} % (95 % interval {low:.2f} to {high:.2f}) on {where}{optimistic}"]
    if "top5" in figures:
        lines.append(f"top-5 {figures['top5']:.2f} %")
    if figures["unreadable_images"]:
        lines.append(
            f"left out as unreadable: {counted(figures['unreadable_images'], facts['measured_on'] + ' image')}"
        )
    return [*lines, f"mean over the classes {figures['mean_recall']:.2f} %"]


def _class_table(scores: Scores, names: list[str]) -> list[str]:
    found, right, images = recalls(scores.matrix), precisions(scores.matrix), scores.matrix.sum(dim=1)
    rows = [
        f"| {name} | {int(images[label])} | {_percent(found[label])} | {_percent(right[label])} |"
        for label, name in enumerate(names)
    ]
    return ["", "| class | images | recall, % | precision, % |", "|---|---:|---:|---:|", *rows]


def _percent(value: Any) -> str:
    return "–" if value != value else f"{float(value):.1f}"


def _pair_lines(pairs: list[Confusion]) -> list[str]:
    if not pairs:
        return []
    rows = [f"| {pair.truth} | {pair.taken_for} | {pair.count} | {pair.share:.1f} |" for pair in pairs]
    return [
        "",
        "Most often confused:",
        "",
        "| class | taken for | images | share of the class, % |",
        "|---|---|---:|---:|",
        *rows,
    ]
