"""One run from a recipe, from data to report: `disco-zoo train`, and `disco_zoo.train`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from disco_zoo.config.recipe import Recipe, load_recipe, with_seed
from disco_zoo.core.claimed_dir import CHECKPOINT, FACTS
from disco_zoo.core.console import console, duration
from disco_zoo.core.distributed import peers
from disco_zoo.data.summary import lines_of
from disco_zoo.errors import BadData, BadRecipe
from disco_zoo.evaluation.measure import Measurement, recipe_bench
from disco_zoo.models.student import Inheritance
from disco_zoo.plotting.embedding_map import plot_embedding_maps
from disco_zoo.plotting.style import plot_curves
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.monitoring.online_health import health_lines
from disco_zoo.training.run import Run, RunOptions, run_options
from disco_zoo.training.run_data import open_data
from disco_zoo.training.run_facts import DataFacts, RunFacts, StudentFacts, matches_recipe, read_run_facts
from disco_zoo.training.run_folder import RunFolder, require_begun
from disco_zoo.zoo.catalog import load_catalog

SHOWN_METRICS = {"knn20_top1": "kNN", "linear_top1": "linear"}
# A judgement: 312 steps on 10,000 images leave EfficientNet-B0 from inherited tensors at 20.9 % kNN (docs/photos.md).
FEW_STEPS = 1000


def finish_training(run: Run) -> RunFacts | None:
    """Measure a trained student where there are labels; write pictures and report.md; return the facts of the run.

    All processes call this; the first one alone writes, and the others return None.
    """
    if run.folder.kept:
        return kept_facts(run)
    measured = _measure(run) if run.data.has_labels and run.task.finished else None
    if not run.is_main_process:
        return None
    facts = read_run_facts(run.folder)
    trained = facts["steps"] > 0
    if trained:
        write_curves(run.folder, run.recipe.name)
    title = run.recipe.name if trained else f"{run.recipe.name}: the start, untrained"
    lines = [f"# {title}", "", f"`{facts['command']}`", "", *fact_lines(facts)]
    optim = run.recipe.optim
    few = enough_line(len(run.data.trained_on), optim.batch_size, facts["total_steps"], optim.epochs)
    if trained and few:
        lines += ["", few]
        console.print(few, soft_wrap=True)
    if measured is not None:
        protocol, measurement = measured
        facts["figures"] = measurement.figures
        run.folder.write_json(FACTS, facts)
        plot_embedding_maps(
            {"": measurement.test_features.features},
            measurement.test_features.labels,
            run.data.bank.class_names,
            run.folder.figures / "embedding_map.png",
            f"{run.recipe.name}: test features",
        )
        lines += ["", "| metric | top-1, % |", "|---|---:|"]
        lines += [f"| {metric} | {value:.2f} |" for metric, value in measurement.figures.items()]
        lines += ["", f"Protocol: {protocol}.", "", "![map](figures/embedding_map.png)"]
        shown = ", ".join(f"{title} {measurement.figures[metric]:.1f} %" for metric, title in SHOWN_METRICS.items())
        console.print(f"{run.recipe.name}: {shown}", soft_wrap=True)
    if trained:
        lines += [*health_lines(run.folder.path, facts), "", "![curves](figures/curves.png)"]
        lines += ["", "## How to load it", "", *load_lines(facts["student"])]
    (run.folder.path / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"{'Student' if trained else 'Start'} and report are in {run.folder.path}", soft_wrap=True)
    return facts


def kept_facts(run: Run) -> RunFacts | None:
    """The facts of a run that was finished before, which is said."""
    if not run.is_main_process:
        return None
    console.print(run.folder.kept_line, soft_wrap=True)
    return read_run_facts(run.folder)


def _measure(run: Run) -> tuple[str, Measurement] | None:
    """None where labels or images do not allow it: the training is done and its student stays."""
    assert run.data.test is not None
    try:
        bench = recipe_bench(run.recipe, run.data.bank, run.data.test, run.options.device)
        return bench.protocol, bench.measure_student(run.parts.student, "measuring student")
    except BadData as error:
        console.print(f"Not measured: {error}", soft_wrap=True)
        return None


def write_curves(folder: RunFolder, name: str) -> None:
    plot_curves(read_metrics(folder.path), folder.figures / "curves.png", f"{name}: training")


def fact_lines(facts: RunFacts) -> list[str]:
    student, teacher = facts["student"], facts["teacher"]
    lines = [
        f"- student: {student['model']}, {student['parameters'] / 1e6:.2f} M parameters, {student['image_size']} px, "
        f"sha256 `{student['sha256']}`",
        f"- data: {facts['data']['images']} images of {_data_name(facts['data'])}, "
        f"fingerprint `{facts['data']['fingerprint'][:16]}`",
        *(f"  - {line}" for look in (facts["data"].get("look"), facts.get("test_data")) for line in lines_of(look)),
        f"- training: {facts['steps']} of {facts['total_steps']} steps, {duration(facts['training_seconds'])}, "
        f"{facts['images_per_s']} images/s, {facts['data_wait_share']:.0%} of the time waiting for data, "
        f"seed {facts['seed']}",
        f"- hardware: {facts['hardware']['cpu_cores']} CPU cores ({facts['hardware']['cpu']})"
        + "".join(f", {name}" for name in facts["hardware"]["accelerators"]),
    ]
    if extra := facts.get("extra_data"):
        lines.insert(
            2,
            f"- extra data: {extra['images']} images of {extra['id']}, {extra['repeats']} times an epoch, "
            f"fingerprint `{extra['fingerprint'][:16]}`",
        )
    if teacher is not None:
        lines.insert(1, f"- teacher: {teacher['title']}, sha256 `{teacher['sha256'] or 'not a file'}`")
        for cache in teacher.get("caches") or ():
            lines.insert(2, f"- its embeddings: of {cache['views']} fixed views an image, from cache {cache['id']}")
    if student["inherited_tensors"]:
        lines.insert(1, f"- start: {Inheritance(**student['inherited_tensors'])}")
    if facts["unreadable_images"]:
        lines.append(f"- {facts['unreadable_images']} images could not be read: unreadable_images.txt")
    return lines


def _data_name(data: DataFacts) -> str:
    """The recipe's data set where its source was used and has as many images, else what the user typed."""
    known = load_catalog().datasets.get(data["id"])
    is_it = known is not None and known.num_train == data["images"] and matches_recipe(data)
    return str(data["id"]) if is_it else str(data["source"])


def enough_line(images: int, batch_size: int, total_steps: int, epochs: int) -> str | None:
    """A sentence for runs of few steps, and what to type; None for others.

    Args:
        images: of an epoch.
        total_steps: of the whole recipe.
    """
    if total_steps >= FEW_STEPS:
        return None
    a_epoch = max(1, images // batch_size)
    wanted = -(-FEW_STEPS // a_epoch)
    return (
        f"{images} images are {_steps(a_epoch)} an epoch, {_steps(total_steps)} in {epochs} epochs: a start from "
        f"random or inherited tensors learns little from so few, ready weights change little. For {FEW_STEPS} steps: "
        f"--set optim.epochs={wanted}. Ready weights without training: disco-zoo list --weights bundled"
    )


def load_lines(student: StudentFacts) -> list[str]:
    """How to load an exported student in timm, alone where the network is its own, with its input size, mean and std.

    Args:
        student: of run.json.
    """
    size = student["image_size"]
    resize = student["resize_size"] or round(size * 256 / 224)
    options = "".join(f", {name}={value!r}" for name, value in student.get("options", {}).items())
    return [
        "```python",
        *(["import disco_zoo  # registers the network"] if student["architecture"].startswith("disco_") else []),
        "import timm",
        "from safetensors.torch import load_file",
        "from timm.data import create_transform",
        "",
        f'model = timm.create_model("{student["architecture"]}", num_classes=0{options})',
        f'model.load_state_dict(load_file("{student["file"]}"))',
        "transform = create_transform(",
        f'    {size}, crop_pct={size} / {resize}, interpolation="bilinear", mean={tuple(student["mean"])}, '
        f"std={tuple(student['std'])}",
        ")",
        "features = model.eval()(transform(image)[None])",
        "```",
    ]


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"


def train(
    recipe: Recipe | str,
    data: str | None = None,
    out: Path | str | None = None,
    *,
    eval_data: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    trackers: Sequence[str] = (),
) -> RunFacts | None:
    """Train a student, measure it where there are labels, and leave student, checkpoint and report in `out`.

    Args:
        recipe: a bundled recipe's name, a path to a .yaml, or what `load_recipe` gave.
        data: images: a folder, .tar, .parquet, hfds/NAME, or "sample"; None for the recipe's.
        out: run folder; None for runs/NAME.
        eval_data: labelled images to measure on; None for the test split beside `data`.
        overrides: keys of a recipe by name to change, e.g. ["optim.epochs=2"]; `load_recipe` takes them, too.
        seed: of initialisation, order and views; None for the recipe's.
        device, workers, trackers: see `run_options`.
        resume: go on with the run in `out`, exactly where it stopped.
        max_steps: stop after so many steps.

    Returns:
        What `run.json` holds, with "figures" in percent where labels exist; None in all processes but the first.

    Raises:
        DiscoZooError: its children say what is wrong with recipe, data or folder.
    """
    loaded = _changed(recipe, tuple(overrides), seed)
    options = run_options(device, workers, resume, max_steps, "disco_zoo.train(...)", trackers)
    return train_into(Path(out or Path("runs") / loaded.name), loaded, data, eval_data, options)


def _changed(recipe: Recipe | str, overrides: tuple[str, ...], seed: int | None) -> Recipe:
    if isinstance(recipe, str):
        return load_recipe(recipe, with_seed(overrides, seed))
    if overrides:
        raise BadRecipe("overrides are for a recipe's name. Type: load_recipe(NAME, OVERRIDES)")
    return recipe if seed is None else recipe.model_copy(update={"seed": seed})


def train_into(
    folder: Path, recipe: Recipe, data: str | None, eval_data: str | None, options: RunOptions
) -> RunFacts | None:
    """See `train`."""
    checkpoint = folder / CHECKPOINT
    if options.resume:
        require_begun(folder)
    sources = open_data(recipe, data, eval_data)

    def how_to_go_on() -> str:
        if checkpoint.is_file():
            return "The last checkpoint is kept; to go on, repeat the command with --resume"
        return "There was no checkpoint yet; repeat the command"

    with peers(how_to_go_on):
        run = Run(recipe, sources, folder, options, label=recipe.name)
        try:
            run.train()
            return finish_training(run)
        finally:
            run.close()
