"""Results of `disco-zoo evaluate` side by side, or as `measured:` entries of the catalog.

In a table rows are protocols, columns are models. Frozen and fine-tuned figures, other test images, and looks at a
part of them never share a table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from disco_zoo.errors import BadData
from disco_zoo.zoo.facts import metric_title
from disco_zoo.zoo.schema import Measured

TASKS = {"knn": "Nearest neighbours", "linear": "Linear probe", "semi": "Few labels", "transfer": "Transfer"}
MODES = {"frozen": "frozen backbone", "finetune": "fine-tuned"}
_NEEDED = (
    "task",
    "preset",
    "protocol",
    "model",
    "data",
    "figures",
    "intervals",
    "num_scored",
    "look",
    "seed",
    "command",
)


@dataclass(frozen=True)
class ResultTable:
    """Figures that may stand side by side.

    Attributes:
        title: task and mode.
        images: the data in words.
        columns: models.
        rows: protocol, figure, and a cell for each model.
        notes: what each protocol is, and what the intervals are.
        commands: that measured the figures.
    """

    title: str
    images: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        return ("protocol", "figure", *self.columns)


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what `evaluate --out` wrote.

    Raises:
        BadData: a file is no such result, or two of them are the same measurement.
    """
    results: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], Path] = {}
    for path in paths:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadData(f"{path} is no result of `disco-zoo evaluate --out`: {error}") from error
        if not isinstance(values, dict) or any(key not in values for key in _NEEDED):
            raise BadData(f"{path} is no result of `disco-zoo evaluate --out`. Give only files that it wrote")
        identity = (*_group_of(values), values["protocol"], _column_of(values), values["seed"])
        if identity in seen:
            raise BadData(f"{seen[identity]} and {path} are the same measurement. Leave one out")
        seen[identity] = path
        results.append(values)
    return results


def result_tables(results: Iterable[dict[str, Any]]) -> list[ResultTable]:
    """One table for each task, mode and set of images; models and protocols in the order of the results.

    Raises:
        BadData: one name stands for two sets of weights.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(_group_of(result), []).append(result)
    return [_table(members) for members in groups.values()]


def as_markdown(tables: Sequence[ResultTable]) -> str:
    """The tables as one page, and the commands of all figures below."""
    lines = ["# Evaluation", ""]
    for table in tables:
        lines += [f"## {table.title}", "", table.images, "", f"| {' | '.join(table.header)} |"]
        lines += ["|---|---|" + "---:|" * len(table.columns)]
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
        lines += ["", *(f"- {note}" for note in table.notes), ""]
    commands = [command for table in tables for command in table.commands]
    return "\n".join([*lines, "## Commands", "", "```", *commands, "```", ""])


def _group_of(result: dict[str, Any]) -> tuple[Any, ...]:
    data = result["data"]
    images = (data["test_fingerprint"], data["num_test"], result["look"])
    # A share of the labels is drawn by the seed: other training images are one measurement there.
    bank = (data.get("train_fingerprint"), data["num_train"]) if result["task"] != "semi" else ()
    return (result["task"], _mode_of(result), *images, *bank)


def _mode_of(result: dict[str, Any]) -> str:
    return str(result.get("details", {}).get("mode", "frozen"))


def _column_of(result: dict[str, Any]) -> str:
    model = result["model"]
    return f"{model['name']}, random weights" if model["untrained"] else str(model["name"])


def _table(results: list[dict[str, Any]]) -> ResultTable:
    columns = tuple(dict.fromkeys(map(_column_of, results)))
    for column in columns:
        _require_one_model(column, [result for result in results if _column_of(result) == column])
    rows = []
    for protocol in dict.fromkeys(result["protocol"] for result in results):
        members = [result for result in results if result["protocol"] == protocol]
        for metric in dict.fromkeys(metric for result in members for metric in result["figures"]):
            cells = [_cell(metric, [one for one in members if _column_of(one) == column]) for column in columns]
            rows.append((_row_title(members[0], metric, results), metric_title(metric), *cells))
    look = ", a look" if results[0]["look"] else ""
    return ResultTable(
        f"{TASKS.get(results[0]['task'], results[0]['task'])}, {MODES[_mode_of(results[0])]}{look}",
        _images_text(results[0]),
        columns,
        tuple(rows),
        _notes(results),
        tuple(dict.fromkeys(str(result["command"]) for result in results)),
    )


def _require_one_model(column: str, results: list[dict[str, Any]]) -> None:
    weights = {result["model"]["backbone_sha256"] for result in results if not result["model"]["untrained"]}
    if len(weights) > 1:
        raise BadData(f"'{column}' stands for {len(weights)} different weights in these files. Give one of them alone")


def _row_title(result: dict[str, Any], metric: str, results: list[dict[str, Any]]) -> str:
    """The preset, or the whole protocol where two of the same preset have this figure."""
    rivals = [other for other in results if other["preset"] == result["preset"] and metric in other["figures"]]
    same = {other["protocol"] for other in rivals}
    return str(result["preset"] if len(same) == 1 else result["protocol"])


def _cell(metric: str, results: list[dict[str, Any]]) -> str:
    """One seed: figure and interval; several: mean ± standard deviation."""
    found = [result for result in results if metric in result["figures"]]
    values = [result["figures"][metric] for result in found]
    if not values:
        return "–"
    if len(values) > 1:
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)} seeds)"
    low, high = found[0]["intervals"][metric]
    return f"{values[0]:.2f} [{low:.1f}, {high:.1f}]"


def _images_text(result: dict[str, Any]) -> str:
    data = result["data"]
    look = ", a part of the images" if result["look"] else ""
    if result["task"] == "semi":
        return f"{data['test']}: {data['num_test']:,} test images{look}. Accuracies in percent."
    return (
        f"{data['train']}: {data['num_train']:,} training and {data['num_test']:,} test images{look}. "
        "Accuracies in percent."
    )


def _notes(results: list[dict[str, Any]]) -> tuple[str, ...]:
    protocols = dict.fromkeys((result["preset"], result["protocol"]) for result in results)
    notes = [f"{preset}: {protocol}" for preset, protocol in protocols]
    confidence = next((str(result["confidence"]) for result in results if "confidence" in result), None)
    return (*notes, *([f"In brackets: {confidence}."] if confidence else []))


def measured_entries(results: Iterable[dict[str, Any]]) -> list[Measured]:
    """One entry a subject and metric, in the order of the results; the seeds of one measurement become one entry.

    Raises:
        BadData: figures of two models, or of two protocols under one metric, or none that a card has a place for.
    """
    found: dict[tuple[str, str], list[Measured]] = {}
    models: dict[str, str] = {}
    for result in results:
        for entry in _entries(result):
            found.setdefault((entry.subject, entry.metric), []).append(entry)
            model = str(result["model"]["name"])
            if models.setdefault(entry.subject, model) != model:
                raise BadData(f"{models[entry.subject]} and {model} are two models. A card is of one: give its files")
    if not found:
        raise BadData("There is nothing for a card in these files: random weights and looks (--steps) have no place")
    return [_joined(entries) for entries in found.values()]


def as_yaml(entries: Iterable[Measured]) -> str:
    """The entries as text that can be pasted under a row of the catalog."""
    rows = [entry.model_dump() for entry in entries]
    text = yaml.safe_dump({"measured": rows}, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
    return str(text)


def _entries(result: dict[str, Any]) -> list[Measured]:
    try:
        return [Measured.model_validate(row) for row in result["measured"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise BadData("These files hold no `measured` rows: make them again with this version of disco-zoo") from error


def _joined(entries: list[Measured]) -> Measured:
    """The seeds of one measurement."""
    first = entries[0]
    protocols = list(dict.fromkeys(entry.protocol for entry in entries))
    if len(protocols) > 1:
        raise BadData(
            f"A card has one place for {first.metric}, and these are two protocols: {' and '.join(protocols[:2])}. "
            "Give the files of one"
        )
    seeds = [seed for entry in entries for seed in entry.seeds]
    values = [value for entry in entries for value in entry.values]
    return first.model_copy(update={"seeds": seeds, "values": values, "date": max(entry.date for entry in entries)})
