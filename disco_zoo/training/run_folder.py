"""The folder of a run: who may write into it, and with which settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disco_zoo.config.optim import COSINES
from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.claimed_dir import FACTS, ClaimedFolder, already_holds_a_run, holds_run, without_checkpoint
from disco_zoo.errors import BadRunFolder


@dataclass(frozen=True)
class RunSettings:
    """All that decides the outcome of a run but its images, as the run's folder keeps it.

    Attributes:
        file: where the folder keeps it.
        text: what is written there.
        difference: given a file of an earlier run, the first setting that differs, as text for a message; None where
            the run may go on.
        another: what a run of others is called in messages.
    """

    file: str
    text: str
    difference: Callable[[Path], str | None]
    another: str = "other settings"


class RunFolder(ClaimedFolder):
    """A claimed run folder.

    Attributes:
        kept: the facts of a run that is there without its checkpoint, and so can only stay as it is; else empty.

    Args:
        path: created when absent.
        settings: written into the folder.
        resume: go on with what the folder holds. Without it the folder must hold no run.
        writes: False in all processes of a run but one: they neither claim nor write.

    Raises:
        BadRunFolder: in use by another process, holding a run of other settings, or not writable.
    """

    def __init__(self, path: Path, settings: RunSettings, *, resume: bool, writes: bool = True) -> None:
        super().__init__(path)
        self.kept: dict[str, Any] = self.read_json(FACTS) if resume and without_checkpoint(path) else {}
        self._settings, self._writes = settings, writes
        if not writes:
            return
        if resume and not (path / settings.file).is_file():
            raise BadRunFolder(f"{path} holds no run to resume. Repeat the command without --resume")
        self._acquire_if(lambda: self._claim(settings, resume))

    @property
    def student(self) -> Path:
        """The weights that a pretraining leaves."""
        return self.path / "student.safetensors"

    def _claim(self, settings: RunSettings, resume: bool) -> None:
        if not resume and holds_run(self.path):
            raise already_holds_a_run(self.path)
        if resume and (difference := settings.difference(self.path / settings.file)):
            raise BadRunFolder(
                f"{self.path} holds a run of {settings.another} ({difference}). "
                "Choose another --out, or repeat the command that started it"
            )
        if not resume:
            self.write_text(settings.file, settings.text)

    def accept(self) -> None:
        """Write the settings into a folder that goes on with them: its checkpoint and the images fit."""
        if self._writes:
            self.write_text(self._settings.file, self._settings.text)

    @property
    def kept_line(self) -> str:
        return f"{self.path} holds this run to its end: it stays as it is"

    def require_kept(self, *, images: bool, total_steps: int, max_steps: int | None) -> None:
        """Refuse a `kept` run that is not the whole of what the command asks for.

        Args:
            images: whether it is of the command's images.

        Raises:
            BadRunFolder: it is of other images, or of another length.
        """
        if not images:
            raise BadRunFolder(f"{self.path} holds this run on other images. Choose another --out")
        steps, wanted = self.kept.get("steps", 0), total_steps if max_steps is None else min(total_steps, max_steps)
        if steps != wanted and not (self.kept.get("stopped_early") and steps < wanted):
            raise BadRunFolder(
                f"{self.path} holds a run of {steps} steps, not {wanted}, and has no checkpoint to go on from. "
                "Choose another --out"
            )


def recipe_settings(recipe: Recipe) -> RunSettings:
    """A pretraining's settings: the full resolved `recipe.yaml`."""

    def difference(stored: Path) -> str | None:
        former = load_recipe(str(stored))
        same = former.digest() == recipe.digest() or _goes_on(former, recipe)
        return None if same else first_difference(former, recipe)

    return RunSettings("recipe.yaml", recipe.as_yaml(), difference, another="another recipe")


def require_begun(*folders: Path) -> None:
    """Refuse to resume where nothing has begun, so that a misspelt folder does not start a new run.

    Raises:
        BadRunFolder: none of the folders holds a recipe.
    """
    if not any((folder / "recipe.yaml").is_file() for folder in folders):
        raise BadRunFolder(f"{folders[0]} holds no run to resume. Repeat the command without --resume")


def _goes_on(former: Recipe, recipe: Recipe) -> bool:
    """Whether `recipe` is the former one with more epochs, all of whose steps so far it would have taken itself.

    Raises:
        BadRunFolder: more epochs, but of a schedule that has come to its end.
    """
    end, restarts = former.optim.epochs, recipe.optim.restarts
    before = {epoch: share for epoch, share in restarts.items() if epoch < end}
    shorter = recipe.optim.model_copy(update={"epochs": end, "restarts": before})
    if recipe.optim.epochs <= end or recipe.model_copy(update={"optim": shorter}).digest() != former.digest():
        return False
    if recipe.optim.schedule in ("constant", "multistep") or end in restarts:
        return True
    drawn = "" if recipe.student.weight_init == "timm" else " --set student.weight_init=timm"
    final = recipe.optim.final_lr_fraction
    anew = dict(sorted({**restarts, end: 0.5 if final < 0.5 else (1 + final) / 2}.items()))
    can_begin = recipe.optim.schedule in COSINES and recipe.optim.warmup_epochs < end and final < 1
    further = f"begin it anew: --set 'optim.restarts={anew}'; or " if can_begin else ""
    raise BadRunFolder(
        f"optim.schedule {recipe.optim.schedule} ends with epoch {end} of this run: of {recipe.optim.epochs} epochs it "
        f"would be another run from its first step on. To train on, {further}choose another --out and start from this "
        f"run's student, in place of --resume: --set student.init=checkpoint --set student.init_from=THIS_FOLDER{drawn}"
    )


def first_difference(former: Recipe, recipe: Recipe) -> str:
    """The first key that decides the outcome and differs, as text for a message."""
    old, new = former.decisive(), recipe.decisive()
    for section, value in new.items():
        if isinstance(value, dict) and isinstance(old[section], dict):
            for key in {**old[section], **value}:
                if old[section].get(key) != value.get(key):
                    return f"{section}.{key}: {old[section].get(key)} there, {value.get(key)} here"
        elif old[section] != value:
            return f"{section}: {old[section]} there, {value} here"
    return "same keys"
