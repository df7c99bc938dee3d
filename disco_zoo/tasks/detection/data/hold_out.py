"""Holds out test images of an annotated set without a test split, as labelling tools export it."""

from __future__ import annotations

from dataclasses import replace

from disco_zoo.data.hold_out import held_out_images, held_out_note
from disco_zoo.errors import BadData
from disco_zoo.tasks.detection.data.annotations import AnnotatedSet


def held_out(annotated: AnnotatedSet) -> tuple[AnnotatedSet, AnnotatedSet]:
    """Split into images to train on and a fifth to measure on. Each class keeps an image to learn from.

    Raises:
        BadData: none with a box can be spared.
    """
    chosen = held_out_images([{i.label for i in image.instances if i.learn} for image in annotated.images])
    train, test = (
        tuple(image for number, image in enumerate(annotated.images) if (number in chosen) == held)
        for held in (False, True)
    )
    if not any(image.instances for image in test):
        raise BadData(f"{annotated.name} has too few images to hold some out. Name those to measure on: --eval-data")
    note = held_out_note(len(test), len(annotated))
    return (
        replace(annotated, name=f"{annotated.name} (train)", images=train),
        replace(annotated, name=f"{annotated.name} (held out)", images=test, notes=(note,)),
    )
