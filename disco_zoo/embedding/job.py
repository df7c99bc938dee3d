"""Embed a whole source into one file: in parts that survive an interruption, joined at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

import numpy as np
import torch

from disco_zoo.core.console import StepProgress
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.image_list import name_of
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.embedding.batches import Batch, embedded_batches
from disco_zoo.embedding.embedding_file import EmbeddingFile, Piece, check_suffix, write_embedding
from disco_zoo.embedding.facts import EmbeddingFacts
from disco_zoo.embedding.json_beside import require_json_is_ours
from disco_zoo.embedding.parts import Parts
from disco_zoo.errors import BadData, BadRunFolder, CannotWrite, Interrupted, counted
from disco_zoo.models.engine import EngineName, forward_by
from disco_zoo.models.forward import Forward
from disco_zoo.models.load import NamedModel

PART_IMAGES = 2048  # an interruption loses at most so many


@dataclass(frozen=True)
class Embedded:
    """The result of an embedding command.

    Attributes:
        num_rows: of the file; 0 as long as parts are missing.
        num_before: of all images, those that this command did not have to see.
        images_per_s: over the images of this command, None where none was left.
        parts_missing: parts that other shards have yet to make; the file is there when none is missing.
    """

    path: Path
    facts: EmbeddingFacts
    num_rows: int
    num_before: int
    seconds: float
    images_per_s: float | None
    parts_missing: int = 0


@dataclass(frozen=True)
class EmbedJob:
    """An embedding to be made.

    Attributes:
        facts: see `facts_of`; they decide every bit of the file, with the batch size and the device.
        out: the `.parquet` or `.npy`.
        batch_size: images a step; in other batches rows may differ in their last bits.
        limit: most images that may be unreadable; None for the usual `unreadable_limit`.
        part_images: images a part.
        engine: see `forward_by`; a resumed job, and the shards of one, go on with the one that began it.
        shard: (i, n): make the i-th of n shares of the parts, from 1; whoever ends last joins all. None makes all.
    """

    named: NamedModel
    source: ImageSource
    facts: EmbeddingFacts
    out: Path
    batch_size: int = 128
    device: torch.device | str = "cpu"
    workers: int = 0
    limit: int | None = None
    part_images: int = PART_IMAGES
    engine: EngineName = "torch"
    shard: tuple[int, int] | None = None

    def run(self, *, resume: bool = False, replace: bool = False) -> Embedded:
        """Make the file, or the rest of it.

        Args:
            resume: go on with the parts there are. They must be of the same model, images and settings.
            replace: a file that is there may be written over.

        Raises:
            BadData: too many unreadable images.
            BadRunFolder: something else is there already, also as the `.json` of a `.npy`, another command is at it, or
                another engine began it.
            CannotWrite: no room, no permission, or a folder of this name.
            Interrupted: by Ctrl-C; the parts are kept.
        """
        check_suffix(self.out)
        key = {**self.facts.key(), "batch_size": self.batch_size, "part_images": self.part_images}
        parts = Parts(self.out, key, -(-len(self.source) // self.part_images))
        done = self._done_before(resume or self.shard is not None, replace)
        if done is not None:
            parts.remove()  # of a command that was killed between its last two steps
            return done
        with parts.claimed(resume) if self.shard is None else parts.shared(*self.shard):
            begun = time.monotonic()
            first, step = (1, 1) if self.shard is None else self.shard
            mine = [number for number in parts.missing() if number % step == first - 1]
            self._make(parts, mine)
            seconds = time.monotonic() - begun
            made = sum(len(self._images_of(number)) for number in mine)
            whole = self._joined(parts) if self.shard is None else self._joined_in_turn(parts)
        before, speed = len(self.source) - made, made / seconds if made else None
        return replace_fields(whole, num_before=before, seconds=seconds, images_per_s=speed)

    def _joined_in_turn(self, parts: Parts) -> Embedded:
        """The file, if this shard is the last to end; another shard may be at the same."""
        with parts.turn():
            if (done := self._done_before(resume=True, replace=False)) is not None:
                parts.remove()
                return done
            if missing := len(parts.missing()):
                return Embedded(self.out, self.facts, 0, 0, 0.0, None, missing)
            self._tally(parts).check()
            return self._joined(parts)

    def _done_before(self, resume: bool, replace: bool) -> Embedded | None:
        """The finished file of this very job, where --resume has nothing left to do."""
        if self.out.is_dir():
            raise CannotWrite(f"{self.out} is a folder. Choose another --out")
        require_json_is_ours(self.out)
        if not self.out.exists() or replace:
            return None
        if not resume:
            raise BadRunFolder(f"{self.out} is there already. Choose another --out, or add --yes to write over it")
        there = EmbeddingFile(self.out)
        if not there.facts.gives_rows_of(self.facts):
            raise BadRunFolder(
                f"{self.out} is an embedding by another model, of other images or with other settings "
                f"(decode: {there.facts.decode}). Choose another --out"
            )
        return Embedded(self.out, there.facts, len(there), len(self.source), 0.0, None)

    def _images_of(self, number: int) -> range:
        first = number * self.part_images
        return range(first, min(first + self.part_images, len(self.source)))

    def _make(self, parts: Parts, missing: list[int]) -> None:
        """Compute the missing parts, in order, in one pass of the loader."""
        tally = self._tally(parts)
        tally.check()
        batches = [
            images[first : first + self.batch_size]
            for images in map(self._images_of, missing)
            for first in range(0, len(images), self.batch_size)
        ]
        before = len(self.source) - sum(map(len, batches))
        forward = self._forward(parts) if batches else Forward(self.named.backbone, self.facts.image_size)
        found = embedded_batches(
            self.named,
            self.source,
            self.facts,
            batches,
            device=self.device,
            workers=self.workers,
            forward=forward,
        )
        label = f"embedding by {self.named.name}"
        with InterruptFlag() as flag, StepProgress(label, len(self.source), before) as progress:
            watched = self._watched(found, tally, flag, progress)
            for number in missing:
                self._make_part(parts, number, watched, forward)

    def _tally(self, parts: Parts) -> UnreadableTally:
        """The unreadable images of the parts there are."""
        tally = UnreadableTally(unreadable_limit(len(self.source)) if self.limit is None else self.limit)
        for number in range(parts.count):
            part = parts.get(number)
            for index, message in {} if part is None else part.facts["unreadable"].items():
                tally.add(int(index), message)
        return tally

    def _forward(self, parts: Parts) -> Forward:
        """By the engine of the parts there are, so that all rows are one engine's; the first shard chooses for all."""
        if self.shard is None:
            return self._forward_as_begun(parts.engine())
        with parts.turn():
            forward = self._forward_as_begun(parts.engine())
            parts.note_engine(forward.engine)
        return forward

    def _forward_as_begun(self, begun: str | None) -> Forward:
        engine = self.engine if begun is None or self.engine != "auto" else _engine_name(begun)
        if begun is not None and engine != _engine_name(begun):
            name = _engine_name(begun)
            raise BadRunFolder(f"{self.out} was begun by {begun}. Type: --resume --engine {name}")
        size = self.facts.image_size
        return forward_by(self.named.backbone, size, engine=engine, num_images=len(self.source), device=self.device)

    def _watched(
        self, batches: Iterator[Batch], tally: UnreadableTally, flag: InterruptFlag, progress: StepProgress
    ) -> Iterator[Batch]:
        """The batches, while progress is shown, unreadable images are counted, and Ctrl-C is heard."""
        begun, done = time.monotonic(), progress.done
        before = done
        for batch in batches:
            for index, message in batch.unreadable.items():
                tally.add(index, message)
            tally.check()
            done += len(batch.indices) + len(batch.unreadable)
            progress.advance(done, f"{(done - before) / (time.monotonic() - begun):.0f} images/s")
            yield batch
            if flag.raised and done < progress.total:
                raise Interrupted(f"{self.out} is begun. Repeat the command with --resume to go on")

    def _make_part(self, parts: Parts, number: int, batches: Iterator[Batch], forward: Forward) -> None:
        rows: list[np.ndarray] = []
        kept: list[int] = []
        unreadable: dict[int, str] = {}
        reduced, total = 0, len(self._images_of(number))
        while len(kept) + len(unreadable) < total:
            batch = next(batches)
            if batch.indices:
                rows.append(batch.rows.numpy())
                kept += batch.indices
            unreadable |= batch.unreadable
            reduced += batch.reduced
        empty = np.empty((0, 0), self.facts.number_type)
        parts.keep(number, np.concatenate(rows) if rows else empty, kept, unreadable, forward.engine, reduced)

    def _joined(self, parts: Parts) -> Embedded:
        """Write the file from the parts, one in memory at a time, and remove them."""
        dims, num_rows, unreadable, engines = 0, 0, dict[int, str](), dict[str, None]()
        reduced: list[int | None] = []
        for number in range(parts.count):
            part = parts.get(number)
            assert part is not None  # made above, or resumed
            dims, num_rows = max(dims, part.array.shape[1]), num_rows + len(part.array)
            unreadable |= {int(index): message for index, message in part.facts["unreadable"].items()}
            engines[part.facts.get("engine", "torch")] = None
            reduced.append(part.facts.get("reduced"))  # None in parts of before this was counted
        if not num_rows:
            parts.remove()  # they hold nothing that another try could use
            first = next(iter(unreadable.values()))
            raise BadData(
                f"None of the {counted(len(self.source), 'image')} of {self.source.name} can be read. First: {first}"
            )
        counted_all = [number for number in reduced if number is not None]
        num_reduced = sum(counted_all) if len(counted_all) == len(reduced) else None
        facts = self.facts.finished(dims, unreadable, ", ".join(engines), num_reduced)
        write_embedding(self.out, facts, num_rows, self._pieces(parts))
        parts.remove()
        return Embedded(self.out, facts, num_rows, 0, 0.0, None)

    def _pieces(self, parts: Parts) -> Iterator[Piece]:
        labels = self.source.labels
        for number in range(parts.count):
            part = parts.get(number)
            if part is None or not len(part.array):
                continue
            kept = np.asarray(part.facts["kept"], np.int64)
            names = [name_of(self.source, index) for index in kept.tolist()]
            here = None if labels is None else np.asarray([labels[index] for index in kept.tolist()], np.int64)
            yield Piece(kept, names, here, part.array)


def _engine_name(title: str) -> EngineName:
    """Of "onnxruntime 1.32.0" the name that a user types."""
    name: EngineName
    for name in ("onnxruntime", "openvino"):
        if title.startswith(name):
            return name
    return "torch"
