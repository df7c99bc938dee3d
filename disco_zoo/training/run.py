"""One run from recipe to student: claim the folder, build, train, export, write down the facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.checkpoint import NETWORK, export_backbone
from disco_zoo.core.claimed_dir import FACTS, holds_run
from disco_zoo.core.console import console
from disco_zoo.core.distributed import gather_objects
from disco_zoo.core.environment import now
from disco_zoo.core.launcher import chosen_device, default_workers, rendezvous_errors
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.training.metrics import require_trackers
from disco_zoo.training.monitoring.online_health import OnlineHealth
from disco_zoo.training.monitoring.pretraining_log import K, OnlineKnn
from disco_zoo.training.pretraining import Pretraining
from disco_zoo.training.run_data import Data
from disco_zoo.training.run_facts import images_of, native_architecture, run_facts
from disco_zoo.training.run_folder import RunFolder, recipe_settings
from disco_zoo.training.task import Position, total_steps
from disco_zoo.training.trainer import Trainer


@dataclass(frozen=True)
class RunOptions:
    """How to run, as opposed to what: none of it changes the resulting weights on one machine.

    Attributes:
        workers: processes that draw views.
        max_steps: stop there; `--resume` without it goes on.
        command: what the user typed, for the record.
        trackers: Accelerate's names of where metrics go, too; see `require_trackers`.
    """

    device: str = "cpu"
    workers: int = 1
    resume: bool = False
    max_steps: int | None = None
    command: str = ""
    trackers: tuple[str, ...] = ()


def run_options(
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    command: str = "",
    trackers: Sequence[str] = (),
) -> RunOptions:
    """The options of a run on this machine.

    Args:
        device: "auto" for the accelerator that torch sees, or the CPU.
        workers: processes that draw views; None for the cores but one, at most 8.
        trackers: "tensorboard", "wandb", "mlflow", "trackio" and Accelerate's others.

    Raises:
        BadRecipe, MissingExtra: of a tracker, see `require_trackers`.
    """
    trackers = require_trackers(trackers)
    workers = default_workers() if workers is None else workers
    return RunOptions(chosen_device(device), workers, resume, max_steps, command, trackers)


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
        self.resume = options.resume and holds_run(folder)
        self.started = now()
        with rendezvous_errors():
            accelerator = make_accelerator(recipe, options.device)
        self.is_main_process = bool(accelerator.is_main_process)
        self.folder = RunFolder(folder, recipe_settings(recipe), resume=self.resume, writes=self.is_main_process)
        try:
            if self.folder.kept:
                same = images_of(self.folder.kept) == data.fingerprints
                steps = total_steps(recipe, len(data.trained_on))
                self.folder.require_kept(images=same, total_steps=steps, max_steps=options.max_steps)
            self.parts: Parts = build_parts(recipe, data.trained_on, accelerator.device, at_hand=teacher)
            if self.parts.inheritance and self.is_main_process and not self.resume:
                console.print(f"{recipe.student.model}: {self.parts.inheritance}", soft_wrap=True)
            health = OnlineHealth(recipe, data.trained_on, data.test) if recipe.log.health_images else None
            self.task = Pretraining(
                recipe,
                self.parts,
                data.trained_on,
                accelerator=accelerator,
                knn=self._online_knn(),
                health=health,
                workers=options.workers,
                label=label,
            )
            self.trainer = Trainer(self.task, self.folder, trackers=options.trackers, settings=recipe.decisive())
        except BaseException:
            self.folder.close()
            raise

    def train(self) -> Position:
        """Train to the end or to `max_steps`, then export the student and write `run.json`.

        A run that is kept without its checkpoint stays as it is; its student is loaded.
        """
        if kept := self.folder.kept:
            self.parts.student.backbone.load_state_dict(load_file(self.folder.student), strict=True)
            return Position(kept["steps"], kept["training_seconds"])
        reached = self.trainer.train(resume=self.resume, max_steps=self.options.max_steps)
        if self.is_main_process:
            self._export(reached)
        gather_objects(None)  # the file is there
        if not self.is_main_process:
            self.parts.student.backbone.load_state_dict(load_file(self.folder.student), strict=True)
        return reached

    def close(self) -> None:
        self.folder.close()

    def _online_knn(self) -> OnlineKnn | None:
        if not self.data.train.has_index and self.is_main_process:
            console.print(
                f"{self.data.train.name} is a stream: no kNN on the way and no figures at the end. To measure the "
                "student on labelled images: disco-zoo evaluate knn --help",
                soft_wrap=True,
            )
        if not self.recipe.log.knn_every_epochs:
            return None
        if self.data.test is None and self.data.bank.labels is not None and self.is_main_process:
            console.print("no test images: no kNN on the way. To measure it, add --eval-data", soft_wrap=True)
        if self.data.test is None or not self.data.has_labels:
            return None
        images = min(self.recipe.log.knn_bank_images, len(self.data.bank))
        if images < K:
            if self.is_main_process:
                console.print(f"kNN needs {K} labelled training images, not {images}: none on the way", soft_wrap=True)
            return None
        return OnlineKnn(
            self.data.bank,
            self.data.test,
            num_images=self.recipe.log.knn_bank_images,
            seed=self.recipe.seed,
            image_size=self.recipe.eval_size,
            resize_size=self.recipe.eval.resize_size,
        )

    def _export(self, reached: Position) -> None:
        """Write the student as fp16 and put exactly those values back, so that figures are of the exported file."""
        backbone = self.parts.student.backbone
        metadata = {
            NETWORK: native_architecture(self.recipe.student.model),
            "recipe": self.recipe.name,
            "recipe_sha256": self.recipe.digest(),
            "step": str(reached.step),
        }
        export_backbone(backbone, self.folder.student, half=True, metadata=metadata)
        backbone.load_state_dict(load_file(self.folder.student), strict=True)
        facts = run_facts(
            self.task,
            self.parts,
            self.data,
            self.folder,
            command=self.options.command,
            started=self.started,
            resumed=self.resume,
        )
        self.folder.write_json(FACTS, facts)
