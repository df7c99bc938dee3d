"""A source described in one line for the screen, and as facts for run.json and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disco_zoo.core.console import say_once
from disco_zoo.data.dataset import ImageSource, split_words

SHOWN = 4
WHOLE = "all images"


def tell(source: ImageSource) -> None:
    """Say what a source is, in one line; in a second one what of its images is guessed or changed."""
    for line in lines_of(look_facts(source)):
        say_once(line)


def change_line(source: ImageSource) -> str:
    """What is guessed or changed on the way to RGB of 8 bits, "" for nothing."""
    return changes_of(look_facts(source))


def lines_of(facts: Mapping[str, Any] | None) -> list[str]:
    """Both lines from the facts, the second where there is something to say; none without facts."""
    return [line for line in (summary_of(facts), changes_of(facts)) if line] if facts else []


def summary_of(facts: Mapping[str, Any]) -> str:
    """Images, classes and where they come from, split and why, modes, and how many files are left out."""
    where = "" if facts["split_from"] == WHOLE else f" ({facts['split_from']})"
    count = f"{facts['images']:,}" if facts["images"] else "an unknown number of"
    parts = [f"{count} {split_words(facts['split'])}{where}"]
    parts += [f"{number:,} {kind}" for kind, number in facts.get("objects", {}).items()]
    if facts["classes"] is None:
        parts.append("a stream" if facts.get("stream") else "no labels")
    else:
        parts.append(f"{facts['classes']:,} classes" + (f" by {facts['labels_from']}" if facts["labels_from"] else ""))
    if without := facts["images_without_label"]:
        parts.append(f"{without:,} of the images without a label")
    if modes := facts["modes"]:
        some = f" (of {facts['looked_at']:,} looked at)" if facts["looked_at"] < facts["images"] else ""
        ranked = sorted(modes.items(), key=lambda one: -one[1])
        parts.append("modes " + ", ".join(f"{mode} {count:,}" for mode, count in ranked) + some)
    if left_out := sum(facts["left_out"].values()):
        listed = sorted(facts["left_out"].items(), key=lambda one: -one[1])[:SHOWN]
        parts.append(f"{left_out:,} files left out ({', '.join(f'{count:,} {kind}' for kind, count in listed)})")
    return f"{facts['name']}: {', '.join(parts)}"


def changes_of(facts: Mapping[str, Any]) -> str:
    """As `change_line`, from `look_facts`."""
    parts = [f"{count:,} {words}" for words, count in facts["converted"].items()]
    parts += [
        f"mode {kind} holds {low:g} to {high:g}, of which {facts['white'][kind]:g} is white"
        for kind, (low, high) in sorted(facts["values"].items())
    ]
    some = f", of {facts['looked_at']:,} images looked at" if parts and facts["looked_at"] < facts["images"] else ""
    return f"{facts['name']}: {'; '.join(parts)}{some}" if parts else ""


def look_facts(source: ImageSource) -> dict[str, Any]:
    """What is known of a source, as plain values."""
    origin, seen = source.origin, source.survey
    return {
        "name": source.name,
        "split": source.split,
        "split_from": origin.split or WHOLE,
        "images": len(source),
        "stream": not source.has_index,
        "labels_from": origin.labels or None,
        "classes": None if source.labels is None else len({label for label in set(source.labels) if label >= 0}),
        "images_without_label": source.num_unlabeled,
        "left_out": dict(origin.left_out),
        "notes": list(origin.notes),
        "looked_at": seen.looked,
        "modes": dict(seen.modes),
        "values": {kind: list(found) for kind, found in seen.spans.items()},
        "white": source.white() if seen.spans else {},
        "converted": seen.converted(),
        "sides_px": list(seen.side),
    }
