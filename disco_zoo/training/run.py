"""One run from recipe to student: claim the folder, build, train, export, write down the facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from disco_zoo.config.recipe import Recipe
from disco_zoo.config.validation import OWN_DATA
from disco_zoo.core.checkpoint import export_backbone
from disco_zoo.core.console import console
from disco_zoo.core.distributed import gather_objects
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import sha256_of
from disco_zoo.core.launcher import chosen_device, default_workers, rendezvous_errors
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.data.joined import JoinedSource
from disco_zoo.data.summary import look_facts
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import Parts, build_parts, count_parameters
from disco_zoo.training.engine import Trainer
from disco_zoo.training.monitoring.health_report import health_facts
from disco_zoo.training.monitoring.online_health import OnlineHealth
from disco_zoo.training.monitoring.online_knn import OnlineKnn
from disco_zoo.training.position import TrainResult
from disco_zoo.training.run_data import Data
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.zoo.catalog import load_catalog


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what: none of it changes the resulting weights on one machine.

    Attributes:
        workers: processes that draw views.
        max_steps: stop there; `--resume` without it goes on.
        command: what the user typed, for the record.
    """

    device: str = "cpu"
    workers: int = 1
    resume: bool = False
    max_steps: int | None = None
    command: str = ""


def run_options(
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    command: str = "",
) -> RunOptions:
    """The options of a run on this machine.

    Args:
        device: "auto" for the accelerator that torch sees, or the CPU.
        workers: processes that draw views; None for the cores but one, at most 8.
    """
    workers = default_workers() if workers is None else workers
    return RunOptions(chosen_device(device), workers, resume, max_steps, command)


class Run:
    """A run in its folder.

    Args:
        folder: created or, with `options.resume`, continued.
        label: shown beside the progress.
        teacher: one that the command has loaded already, see `build_parts`.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        folder: Path,
        options: RunOptions,
        *,
        label: str,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self.data, self.options = recipe, data, options
        # Resuming a pair of runs may find that the second one had not begun.
        self.resume = options.resume and (folder / "checkpoint.pt").is_file()
        self.started = now()
        with rendezvous_errors():
            accelerator = make_accelerator(recipe, options.device)
        self.is_main_process = bool(accelerator.is_main_process)
        self.folder = RunFolder(folder, recipe, resume=self.resume, writes=self.is_main_process)
        try:
            self.parts: Parts = build_parts(recipe, data.trained_on, accelerator.device, at_hand=teacher)
            health = OnlineHealth(recipe, data.trained_on, data.test) if recipe.log.health_images else None
            self.trainer = Trainer(
                recipe,
                self.parts,
                data.trained_on,
                self.folder,
                accelerator=accelerator,
                knn=self._online_knn(),
                health=health,
                workers=options.workers,
                label=label,
            )
        except BaseException:
            self.folder.close()
            raise

    def train(self) -> TrainResult:
        """Train to the end or to `max_steps`, then export the student and write `run.json`."""
        result = self.trainer.train(resume=self.resume, max_steps=self.options.max_steps)
        if self.is_main_process:
            self._export(result)
        gather_objects(None)  # the file is there
        if not self.is_main_process:
            self.parts.student.backbone.load_state_dict(load_file(self.folder.student), strict=True)
        return result

    def close(self) -> None:
        self.folder.close()

    def _online_knn(self) -> OnlineKnn | None:
        if not self.data.train.has_index and self.is_main_process:
            console.print(
                f"{self.data.train.name} is a stream: no kNN on the way and no figures at the end. To measure the "
                "student on labelled images: disco-zoo evaluate knn --help",
                soft_wrap=True,
                markup=False,
            )
        if self.data.test is None or not self.data.has_labels or not self.recipe.log.knn_every_epochs:
            return None
        return OnlineKnn(
            self.data.bank,
            self.data.test,
            num_images=self.recipe.log.knn_bank_images,
            seed=self.recipe.seed,
            image_size=self.recipe.eval_size,
            resize_size=self.recipe.eval.resize_size,
        )

    def _export(self, result: TrainResult) -> None:
        """Write the student as fp16 and put exactly those values back, so that figures are of the exported file."""
        backbone = self.parts.student.backbone
        metadata = {"recipe": self.recipe.name, "recipe_sha256": self.recipe.digest(), "step": str(result.steps)}
        export_backbone(backbone, self.folder.student, half=True, metadata=metadata)
        backbone.load_state_dict(load_file(self.folder.student), strict=True)
        self.folder.write_json("run.json", self._facts(result))

    def _facts(self, result: TrainResult) -> dict[str, Any]:
        recipe, parts = self.recipe, self.parts
        former = self.folder.read_json("run.json") if self.resume else {}
        return {
            "name": recipe.name,
            "command": self.options.command,
            "started": former.get("started", self.started),
            "ended": now(),
            "seed": recipe.seed,
            "recipe_sha256": recipe.digest(),
            "steps": result.steps,
            "total_steps": result.total_steps,
            "training_seconds": round(result.seconds, 1),
            "images_per_s": round(result.images_per_s, 2),
            "data_wait_share": round(result.data_wait_share, 4),
            "peak_memory_mib": self._peak_memory(former),
            "unreadable_images": result.num_unreadable,
            "health": health_facts(self.folder.path, self.trainer.health),
            "data": self._data_facts(),
            "test_data": None if self.data.test is None else look_facts(self.data.test),
            "extra_data": self._extra_facts(),
            "bank": {"source": self.data.bank.name, "images": len(self.data.bank)} if self.data.has_labels else None,
            "teacher": None
            if parts.teacher is None
            else {
                "title": parts.teacher.title,
                "sha256": parts.teacher.loaded.sha256,
                "supervised": parts.teacher.loaded.supervised,
                "caches": self.trainer.replay.facts() if self.trainer.replay else None,
            },
            "student": {
                "model": recipe.student.model,
                "architecture": native_architecture(recipe.student.model),
                "file": self.folder.student.name,
                "sha256": sha256_of(self.folder.student),
                "size_bytes": self.folder.student.stat().st_size,
                "parameters": count_parameters(parts.student.backbone),
                "image_size": recipe.eval_size,
                "resize_size": recipe.eval.resize_size,
                "mean": list(recipe.student.mean),
                "std": list(recipe.student.std),
                "inherited_tensors": None if parts.inheritance is None else vars(parts.inheritance),
            },
            "versions": versions(),
            "hardware": hardware(),
        }

    def _data_facts(self) -> dict[str, Any]:
        train, recipe = self.data.train, self.recipe
        # Another source than the recipe's is not the data set of that name.
        is_recipes = recipe.data.source in (None, train.name)
        return {
            "id": recipe.data.id,
            "is_recipes": is_recipes,
            "source": train.name,
            "split": train.split,
            "images": len(train),
            "fingerprint": train.fingerprint(),
            "look": look_facts(train),
        }

    def _extra_facts(self) -> dict[str, Any] | None:
        """What was trained on beside the main data."""
        joined, section = self.data.extra, self.recipe.data
        if not isinstance(joined, JoinedSource):
            return None
        return {
            "id": section.extra_id or OWN_DATA,
            "images": len(joined.extra),
            "repeats": joined.repeats,
            "fingerprint": joined.extra.fingerprint(),
        }

    def _peak_memory(self, former: dict[str, Any]) -> float | None:
        """Of this process, which trains and draws views unless there are workers, over all resumes."""
        peaks = [former.get("peak_memory_mib"), peak_memory_mib(self.trainer.accelerator.device)]
        return round(max(known), 1) if (known := [peak for peak in peaks if peak is not None]) else None


def native_architecture(model: str) -> str:
    """timm's own name for a zoo model, so that the file loads without this package."""
    architectures = load_catalog().architectures
    return architectures[model].native or model if model in architectures else model
