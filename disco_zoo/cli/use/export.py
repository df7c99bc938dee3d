"""`disco-zoo export`: a network as a file of another runtime, compared with PyTorch; int8; latencies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.options import JSON
from disco_zoo.core.files import user_path

TABLE_PIXELS = 224
KINDS = ["onnx", "openvino", "torch", "coreml", "executorch", "litert", "ncnn", "tensorrt"]


@click.command("export")
@click.argument("models", metavar="MODEL", nargs=-1)
@click.option("--format", "kind", type=click.Choice(KINDS), help="Those after torch by timmx.  [default: by --out]")
@click.option("--keys", type=click.Choice(["torchvision"]), help="A state_dict under torchvision's names, .pth.")
@click.option("--out", type=click.Path(path_type=Path), help="FILE.onnx, .xml, .pt2, ...  [default: MODEL.onnx]")
@click.option("--int8", type=click.Choice(["dynamic", "static"]), help="Also an int8 file, MODEL.int8.onnx.")
@click.option(
    "--calibration",
    "--calibrate",
    "calibration",
    help="Images for the ranges of --int8 static.  [default: those of --data]",
)
@click.option(
    "--ranges",
    type=click.Choice(["percentile", "minmax"]),
    default="percentile",
    show_default=True,
    help="How --int8 static finds the ranges of activations.",
)
@click.option("--data", help="Images on which the loss by int8 is measured: with labels as accuracy.")
@click.option("--eval-data", help="Labelled test images; default: the test split beside --data.")
@click.option(
    "--max-images", type=click.IntRange(min=2), default=2000, show_default=True, help="Measure on so many of each."
)
@click.option("--features", is_flag=True, help="Of a fine-tuned classifier only the features, without its head.")
@click.option("--normalise-inside", is_flag=True, help="The file takes uint8 pixels and normalises them itself.")
@click.option("--image-size", type=click.IntRange(min=16), help="Input in pixels.  [default: the model's]")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Refuse larger differences.  [default: 0.0001]")
@click.option("--yes", is_flag=True, help="Write over files that are there.")
@click.option("--table", is_flag=True, help="Sizes and CPU latencies of MODELs, or of the zoo's students.")
@click.option("--rounds", type=click.IntRange(min=4), default=30, show_default=True, help="Timings of --table.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of --table.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that read images.")
@JSON
def command(models: tuple[str, ...], table: bool, as_json: bool, **given: Any) -> None:
    """Write the backbone of MODEL, or a fine-tuned classifier, to a file that other runtimes read.

    Batches of any size, or of 1 in the formats of timmx. The file says how to prepare a picture and what the classes
    are called, and is compared with PyTorch; one that differs is not kept.

    \b
    Examples:
      disco-zoo export disco_effb0 --out effb0.onnx
      disco-zoo export runs/my_classifier --out mine.onnx
      disco-zoo export disco_effb0 --format torch
      disco-zoo export disco_effb0 --format openvino --int8 static --calibrate photos/
      disco-zoo export disco_effb0 --format ncnn
      disco-zoo export disco_r18 --keys torchvision --out r18.pth
      disco-zoo export disco_effb0 --int8 static --data cifar10_train.parquet
      disco-zoo export --table
    """
    if table:
        _table(models, given, as_json)
        return
    if len(models) != 1:
        raise click.UsageError("Give one MODEL, or --table. Type: disco-zoo export MODEL --out FILE.onnx")
    _export(models[0], given, as_json)


def _export(model: str, given: dict[str, Any], as_json: bool) -> None:
    from disco_zoo.exporting.export import export
    from disco_zoo.exporting.timmx_file import why_not_compared

    if given["keys"] is not None:
        if given["kind"] is not None:
            raise click.UsageError("--keys and --format both name what to write. Leave one of them out")
        given["kind"] = given["keys"]
    chosen = {key: value for key, value in given.items() if key not in ("yes", "rounds", "threads", "keys")}
    made = export(model, write_over=given["yes"], **chosen)
    if as_json:
        click.echo(json.dumps(made.as_json()))
        return
    facts = made.facts
    compared = f"largest difference from PyTorch {made.difference:.1e}" if made.difference is not None else ""
    compared = compared or f"not compared with PyTorch here: {why_not_compared(made.path.suffix)}"
    click.echo(f"{made.path}: {made.size_bytes / 1e6:.1f} MB, {compared}")
    click.echo(f"  takes {facts['input']}\n  gives {facts['output']}")
    if made.loss is not None and made.int8_bytes is not None:
        click.echo(f"{made.int8_path}: {made.int8_bytes / 1e6:.1f} MB, int8 {given['int8']}; {made.loss.describe()}")


def _table(models: tuple[str, ...], given: dict[str, Any], as_json: bool) -> None:
    from disco_zoo.core.environment import hardware_line, versions
    from disco_zoo.core.files import write_out
    from disco_zoo.errors import Interrupted, counted
    from disco_zoo.exporting.job import require_free
    from disco_zoo.exporting.latency import Row, as_markdown, latency_rows
    from disco_zoo.exporting.onnx_file import require_onnx
    from disco_zoo.zoo.catalog import load_catalog

    require_onnx()
    out: Path | None = given["out"]
    if out is not None:
        require_free(out, given["yes"])
    size = given["image_size"] or TABLE_PIXELS
    names = models or tuple(name for name, row in load_catalog().architectures.items() if row.registered)
    subjects = [_subject_of_table(name, size) for name in names]  # all of them, so that a mistake shows at once
    rows: list[Row] = []
    stopped = False
    try:
        rows.extend(latency_rows(iter(subjects), len(names), given["rounds"], given["threads"]))
    except KeyboardInterrupt:
        stopped = True
    note = (
        f"One picture of {size} × {size} pixels, {counted(given['threads'], 'thread')}, {hardware_line('cpu')}; median "
        f'[quartiles] of {given["rounds"]} rounds in which the three take turns, "faster" is the median of the '
        f"rounds' ratios. int8 is static, with int8 weights per channel. "
        f"torch {versions()['torch']}, ONNX Runtime {_runtime()}."
    )
    text = as_markdown(rows, note)
    if out is not None and not stopped:
        write_out(out, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))
    if rows or not stopped:
        click.echo(json.dumps({"note": note, "rows": [row.as_json() for row in rows]}) if as_json else text)
    if stopped:
        raise Interrupted(f"{len(rows)} of {len(names)} networks are measured. Name the others to measure them alone")


def _subject_of_table(name: str, size: int) -> Any:
    """Random weights where they suffice: latency does not depend on them, and no download is needed."""
    from disco_zoo.evaluation.subject import fit_to
    from disco_zoo.exporting.subject import subject_of
    from disco_zoo.models.load import load_model
    from disco_zoo.zoo.catalog import load_catalog

    is_its_weights = user_path(name).exists() or name in load_catalog().teachers
    named = load_model(name, pretrained=is_its_weights)
    fit_to(named.backbone, size, name)
    return subject_of(named, image_size=size)


def _runtime() -> str:
    from importlib.metadata import version

    return version("onnxruntime")
