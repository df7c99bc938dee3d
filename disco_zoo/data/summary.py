"""What a source is, in one line for the screen and as facts for run.json and reports."""

from __future__ import annotations

from typing import Any

from disco_zoo.core.console import say_once
from disco_zoo.data.dataset import ImageSource, split_words

SHOWN = 4


def tell(source: ImageSource) -> None:
    """Say what a source is, in one line; in a second one what of its images is guessed or changed."""
    say_once(summary_line(source))
    if changes := change_line(source):
        say_once(changes)


def summary_line(source: ImageSource) -> str:
    """Images, classes and where they come from, split and why, modes, and how many files are left out."""
    origin, seen = source.origin, source.survey
    count = f"{len(source):,}" if len(source) else "an unknown number of"
    parts = [f"{count} {split_words(source.split)}" + (f" ({origin.split})" if origin.split else "")]
    if source.labels is None:
        parts.append("no labels" if source.has_index else "a stream")
    else:
        classes = len({label for label in set(source.labels) if label >= 0})
        parts.append(f"{classes:,} classes" + (f" by {origin.labels}" if origin.labels else ""))
    if source.num_unlabeled:
        parts.append(f"{source.num_unlabeled:,} of the images without a label")
    if seen.modes:
        some = f" (of {seen.looked:,} looked at)" if seen.looked < seen.total else ""
        parts.append("modes " + ", ".join(f"{mode} {count:,}" for mode, count in seen.modes.most_common()) + some)
    if left_out := sum(origin.left_out.values()):
        listed = sorted(origin.left_out.items(), key=lambda one: -one[1])[:SHOWN]
        parts.append(f"{left_out:,} files left out ({', '.join(f'{count:,} {kind}' for kind, count in listed)})")
    return f"{source.name}: {', '.join(parts)}"


def change_line(source: ImageSource) -> str:
    """What is guessed or changed on the way to RGB of 8 bits, "" for nothing."""
    seen = source.survey
    parts = [f"{count:,} {words}" for words, count in seen.converted().items()]
    if seen.spans:
        parts.append(source.depth_words())
    some = f", of {seen.looked:,} images looked at" if parts and seen.looked < seen.total else ""
    return f"{source.name}: {'; '.join(parts)}{some}" if parts else ""


def look_facts(source: ImageSource) -> dict[str, Any]:
    """The same as plain values."""
    origin, seen = source.origin, source.survey
    return {
        "name": source.name,
        "split": source.split,
        "split_from": origin.split or "all images",
        "images": len(source),
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
