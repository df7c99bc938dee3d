"""`disco-zoo evaluate knn|linear`: figures of any zoo model, timm model or run folder on frozen features."""

from __future__ import annotations

import json
from typing import Any

import click

from disco_zoo.cli.options import DEVICE, JSON, chosen_device, default_workers

_OPTIONS = [
    click.argument("model"),
    click.option("--data", required=True, help="Labelled images: folder, .tar, .parquet, hfds/NAME, or 'sample'."),
    click.option("--eval-data", help="Labelled test images; default: the test split beside --data."),
    click.option("--image-size", type=click.IntRange(min=16), help="Crop in pixels.  [default: the model's]"),
    click.option("--resize-size", type=click.IntRange(min=16), help="Shorter side before it.  [default: the model's]"),
    DEVICE,
    click.option("--workers", type=click.IntRange(min=0), help="Processes that read images."),
    JSON,
]  # fmt: skip


def _options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("evaluate")
def command() -> None:
    """Measure the frozen features of MODEL: a zoo name, a timm name or a run folder.

    \b
    Examples:
      disco-zoo evaluate knn disco_effb0 --data cifar10_train.parquet
      disco-zoo evaluate linear runs/mine --data photos/ --protocol fast
    """


@command.command("knn")
@_options
@click.option("--k", "ks", type=click.IntRange(min=1), multiple=True, help="Repeatable.  [default: 1, 20, 200]")
@click.option("--temperature", type=float, default=0.07, show_default=True, help="T of the weights exp(sim/T).")
def knn(ks: tuple[int, ...], temperature: float, as_json: bool, **given: Any) -> None:
    """Weighted kNN: k in {1, 20, 200}, cosine, weights exp(sim/T)."""
    from disco_zoo.evaluate.model import evaluate_knn, load_subject

    subject = load_subject(**_prepared(given))
    figures = evaluate_knn(subject, ks=ks or (1, 20, 200), temperature=temperature)
    _print(subject.describe() | {"protocol": f"weighted kNN, T={temperature}"}, figures, as_json)


@command.command("linear")
@_options
@click.option(
    "--protocol",
    default="fast",
    show_default=True,
    help="fast, disco, moco, seed, bingo_r, bingo_eff, compress, swav, ssl_small.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the protocol's own.")
@click.option("--seed", type=int, default=0, show_default=True)
def linear(protocol: str, epochs: int | None, seed: int, as_json: bool, **given: Any) -> None:
    """A linear probe by the protocol of a paper, or the fast one on cached features."""
    from disco_zoo.evaluate.linear_protocols import linear_protocol
    from disco_zoo.evaluate.model import evaluate_linear, load_subject

    linear_protocol(protocol)  # an unknown one is told before anything is loaded
    subject = load_subject(**_prepared(given))
    result = evaluate_linear(subject, protocol=protocol, epochs=epochs, seed=seed)
    figures = {"linear_top1": result.top1, "linear_last_top1": result.last_top1}
    figures |= {} if result.top5 is None else {"linear_top5": result.top5}
    _print(subject.describe() | {"protocol": result.protocol}, figures, as_json)


def _prepared(given: dict[str, Any]) -> dict[str, Any]:
    workers = given.pop("workers")
    return given | {
        "device": chosen_device(given["device"]),
        "workers": default_workers() if workers is None else workers,
    }


def _print(facts: dict[str, Any], figures: dict[str, float], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**facts, "figures": figures}))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in facts.items()))
    for metric, value in figures.items():
        click.echo(f"  {metric:18} {value:6.2f} %")
