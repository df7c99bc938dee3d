"""Figures without labels during training: effective rank, CKA and cosine to the teacher.

They become a section of report.md, facts for run.json, and a warning of collapse.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.core.distributed import copy_buffers_from_first, gather_on_first, num_processes, rank
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.evaluation.metrics import centered_cosine, effective_rank, linear_cka, rank_bound
from disco_zoo.methods.base import Method
from disco_zoo.models.encoder import frozen
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run_data import shuffled_images
from disco_zoo.transforms.eval import eval_transform

EARLY_STEPS = (25, 50, 100)
FEWEST_STEPS = 100  # between two later looks, so that they cost about 1 % of a training with 64 images a step
BATCH_SIZE = 128
RANKS = ("student_rank", "embedding_rank")
COLLAPSED_RANK, COLLAPSED_SHARE = 1.5, 0.05
FORGOTTEN = 0.01  # share of a start that is left in BatchNorm's running statistics


class OnlineHealth:
    """Effective rank of student and teacher, and how near the student has come, on images drawn once by the seed.

    They are test images where there are any, which training does not see; else training images, of a stream those that
    come first. All are seen under EVAL, without augmentation, by networks in eval mode, at the sizes of `image_size` of
    student and teacher. An unreadable image is replaced by the next one. They stay in memory as uint8: 77 MB for 512 of
    224 pixels. The teacher sees them once a run; each look costs the student's forward of them. All processes of a run
    call it together, each for its share of the images.

    Args:
        recipe: `log.health_images` is the largest number of images.
        train: all images to train on.
        test: images that training does not see; None, a stream or next to none for none.
    """

    def __init__(self, recipe: Recipe, train: ImageSource, test: ImageSource | None) -> None:
        held_out = test is not None and test.has_index and len(test) >= 2 * num_processes()
        self.recipe, self.source = recipe, test if test is not None and held_out else train
        self.num_images = min(recipe.log.health_images, len(self.source))
        self.steps_per_epoch = recipe.optim.steps_per_epoch(len(train))

    @property
    def images(self) -> dict[str, int | str]:
        """The images that are measured, for run.json."""
        return {"images": self.num_images, "split": self.source.split}

    def is_due(self, step: int, last_step: int) -> bool:
        """At the start and the end, soon after the start, then with the online kNN, or once an epoch without it.

        Of the kNN's steps those are left out that would follow each other within `FEWEST_STEPS`.

        Args:
            step: so many are taken.
            last_step: so many will be; 0 for a start that is not trained.
        """
        every = self.recipe.log.knn_every_steps(self.steps_per_epoch) or max(1, self.steps_per_epoch)
        every *= -(-FEWEST_STEPS // every)
        return last_step > 0 and (step in EARLY_STEPS or step % every == 0 or step == last_step)

    def __call__(self, method: Method, step: int, device: torch.device | str = "cpu") -> dict[str, float]:
        """The figures; modes, BatchNorm's statistics and all random state are left as they were.

        Returns:
            `student_rank`, of the backbone's features, and `embedding_rank`, of what its head makes of them. With a
            teacher its `teacher_rank`, of the rows it teaches, `cka` of the student's features with these, all of rows
            of length 1, and where the method compares rows (`Method.compared`) their `cosine`. Of each rank the
            `_bound`. Whether BatchNorm is `settled`. Nothing on all processes but the first, and for features that are
            not finite, which is said.
        """
        copy_buffers_from_first(method.student, device)
        with frozen(method, device):
            own = self._rows(method, device)
        parts = gather_on_first(own)
        if parts is None:
            return {}
        rows = {name: torch.cat([part[name] for part in parts]) for name in own}
        bad = [name for name, values in rows.items() if not values.isfinite().all()]
        if bad:
            console.print(f"Features are not finite, so they have no rank: {', '.join(bad)}", soft_wrap=True)
            return {}
        return {**_figures(rows), "settled": settled(method.student, step)}

    def see_teacher(self, method: Method, device: torch.device | str = "cpu") -> None:
        """Let the teacher see the images; called before a run's first forward, since some move its statistics."""
        if method.teacher is not None:
            self._teacher_rows(method, device)

    def _rows(self, method: Method, device: torch.device | str) -> dict[str, Tensor]:
        """Float32 (n, D) of this process's images, on the CPU."""
        student, size = method.student, self.recipe.student.image_size
        features = torch.cat([student.features(part.to(device), size) for part in self._images.split(BATCH_SIZE)])
        embeddings = student.head(features)
        rows = {"student": features}
        if not isinstance(student.head, nn.Identity):
            rows["embedding"] = embeddings
        if method.teacher is not None:
            rows["teacher"] = self._teacher_rows(method, device)
            compared = method.compared(embeddings, rows["teacher"].to(device))
            if compared is not None:
                rows["compared"], rows["with"] = compared
        return {name: values.float().cpu() for name, values in rows.items()}

    def _teacher_rows(self, method: Method, device: torch.device | str) -> Tensor:
        """Un-normalised (n, D) on the CPU; of a teacher that is in train mode the rows in eval mode."""
        if self._kept_rows is None:
            encoder = method.require_teacher().encoder
            with frozen(encoder, device):
                parts = (encoder.features(part.to(device)) for part in self._images.split(BATCH_SIZE))
                self._kept_rows = torch.cat([encoder.head(features).cpu() for features in parts])
        return self._kept_rows

    _kept_rows: Tensor | None = None

    @functools.cached_property
    def _images(self) -> Tensor:
        """Uint8 (n, 3, S, S): this process's share, at the size at which views are drawn."""
        size = self.recipe.view_size
        transform = eval_transform(size, self.recipe.resize_at(size))
        first, last = (self.num_images * number // num_processes() for number in (rank(), rank() + 1))
        return torch.stack([transform(image) for image in itertools.islice(self._all_images(), first, last)])

    def _all_images(self) -> Iterator[Image.Image]:
        if isinstance(self.source, StreamSource):
            yield from shuffled_images(self.recipe, self.source, self.num_images)
            return
        order = torch.randperm(len(self.source), generator=stream_generator("online_health", self.recipe.seed))
        for index in order[: self.num_images].tolist():
            yield load_or_replace(self.source, index)[0]


def collapsed(figures: Mapping[str, float], earlier: Sequence[Mapping[str, float]]) -> list[str]:
    """The ranks of the student that are next to nothing: below 1.5, or r − 1 below 5 % of the highest before.

    1 is what features have that are the same for all images, 1.5 where one direction holds some 93 % of the sum of
    singular values; no fixed share of the bound says this. Looks that are not `settled` neither count nor are judged:
    while BatchNorm's running statistics are on their way, ranks fall to 1 and rise again in healthy runs. Networks
    without BatchNorm may start below 1.5; theirs must fall to half of the start's r − 1.

    Args:
        figures: of an `OnlineHealth`.
        earlier: those before, from the start of the run on.
    """
    before = [row for row in earlier if row.get("settled")]
    fallen = []
    for name in RANKS if figures["settled"] else ():
        above = [row[name] - 1 for row in before if name in row]
        start = above[0] if above and before[0]["step"] == 0 else float("inf")
        limit = max(COLLAPSED_SHARE * max(above, default=0.0), min(COLLAPSED_RANK - 1, start / 2))
        if name in figures and figures[name] - 1 < limit:
            fallen.append(name)
    return fallen


def settled(student: nn.Module, step: int) -> bool:
    """Whether BatchNorm's running statistics have forgotten where they began: after 44 steps at momentum 0.1."""
    momenta = [module.momentum for module in student.modules() if isinstance(module, _BatchNorm)]
    return all(momentum is None or (1 - momentum) ** step <= FORGOTTEN for momentum in momenta)


def _figures(rows: Mapping[str, Tensor]) -> dict[str, float]:
    """Ranks and CKA are of rows of length 1, as kNN and search see them.

    Early in a training the features of a few images may be many times as long as the others'. As they are, those few
    rows would decide the CKA, and weigh most in the rank.
    """
    figures: dict[str, float] = {}
    unit = {name: F.normalize(rows[name], dim=1) for name in ("student", "embedding", "teacher") if name in rows}
    for name, values in unit.items():
        figures |= {f"{name}_rank": effective_rank(values), f"{name}_rank_bound": rank_bound(values)}
    if "teacher" in unit:
        figures["cka"] = linear_cka(unit["student"], unit["teacher"])
    if "compared" in rows:
        figures["cosine"] = centered_cosine(rows["compared"], rows["with"])
    return {name: round(value, 4) for name, value in figures.items()}


TITLES = {
    "student_rank": "effective rank of the student's features",
    "embedding_rank": "effective rank of its head's embeddings",
    "teacher_rank": "effective rank of the teacher's features",
    "cka": "CKA of the student's features with the teacher's",
    "cosine": "cosine to the teacher",
}
HOW_TO_READ = (
    "In a healthy training the ranks rise well above those of a random start, to tens or hundreds, and stay there "
    "while cosine and CKA to a teacher rise, though in the first hundred steps each of them may fall for a while; in a "
    "collapsed one a rank falls to about 1, for all images look alike to the student."
)


def health_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run folder that hold figures measured without labels, in order."""
    return [row for row in read_metrics(folder) if "student_rank" in row]


def health_facts(folder: Path, health: OnlineHealth | None) -> dict[str, Any] | None:
    """The last figures, with the images they are of; None where none were measured."""
    records = health_records(folder)
    return {**health.images, **records[-1]} if health is not None and records else None


def collapse_line(figures: Mapping[str, float], fallen: Sequence[str], step: int) -> str:
    """The warning printed when the effective ranks named in `fallen` are close to 1."""
    ranks = " and ".join(f"the {TITLES[name]} is {figures[name]:.2f}" for name in fallen)
    return (
        f"The student has collapsed at step {step}: {ranks}, where 1 is all images alike. "
        "Stop, and start again with a lower optim.base_lr, or with another method, and another --out"
    )


def health_lines(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """The section "Is it working?" in Markdown; no lines for a run without such figures.

    Args:
        facts: of run.json.
    """
    records, images = health_records(folder), facts.get("health")
    if not records or images is None:
        return []
    shown = _shown(records)
    head = [_column(row["step"], records) for row in shown]
    lines = ["", "## Is it working?", "", f"| without labels | {' | '.join(head)} | at most |"]
    lines.append(f"|---|{'---:|' * (len(head) + 1)}")
    for name, title in TITLES.items():
        if name in records[-1]:
            values = " | ".join(_number(row.get(name)) for row in shown)
            lines.append(f"| {title} | {values} | {records[-1].get(f'{name}_bound', 1)} |")
    seen = "test images, which training does not see" if images["split"] == "test" else "training images"
    lines += ["", f"Of {images['images']} {seen}, without augmentation. {HOW_TO_READ}"]
    collapses = [row["step"] for row in records if "collapsed" in row]
    if collapses:
        lines += ["", f"**The student collapsed: seen first at step {collapses[0]}, last at step {collapses[-1]}.**"]
    return lines


def _shown(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first record, the last one within the first hundred steps, and the last of all."""
    early = [row for row in records[1:-1] if row["step"] <= EARLY_STEPS[-1]]
    return [records[0], *early[-1:], *records[1:][-1:]]


def _column(step: int, records: Sequence[Mapping[str, Any]]) -> str:
    if step == 0:
        return "start"
    return f"end, step {step}" if step == records[-1]["step"] else f"step {step}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
