"""The folder of a run: who may write into it, and the facts that make its figures checkable."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.claimed_dir import ClaimedFolder, holds_a_run
from disco_zoo.errors import BadRunFolder


class RunFolder(ClaimedFolder):
    """A claimed run folder.

    Args:
        path: created when absent.
        recipe: written as the full resolved `recipe.yaml`.
        resume: go on with what the folder holds. Without it the folder must hold no run.
        writes: False in all processes of a run but one: they neither claim nor write.

    Raises:
        BadRunFolder: in use by another process, holding another recipe's run, or not writable.
    """

    def __init__(self, path: Path, recipe: Recipe, *, resume: bool, writes: bool = True) -> None:
        super().__init__(path)
        if not writes:
            return
        self._acquire_if(lambda: self._claim(recipe, resume))

    @property
    def student(self) -> Path:
        return self.path / "student.safetensors"

    def _claim(self, recipe: Recipe, resume: bool) -> None:
        stored = self.path / "recipe.yaml"
        if not stored.is_file():
            if resume:
                raise BadRunFolder(f"{self.path} holds no run to resume. Repeat the command without --resume")
            self.write_text(stored.name, recipe.as_yaml())
            return
        if not resume and self.checkpoint.is_file():
            raise holds_a_run(self.path)
        if resume:
            former = load_recipe(str(stored))
            if former.digest() != recipe.digest() and not _goes_on(former, recipe):
                raise BadRunFolder(
                    f"{self.path} holds a run of another recipe ({_first_difference(former, recipe)}). "
                    "Choose another --out, or repeat the command that started it"
                )
        self.write_text(stored.name, recipe.as_yaml())


def require_begun(*folders: Path) -> None:
    """Refuse to resume where nothing has begun, so that a misspelt folder does not start a new run.

    Raises:
        BadRunFolder: none of the folders holds a recipe.
    """
    if not any((folder / "recipe.yaml").is_file() for folder in folders):
        raise BadRunFolder(f"{folders[0]} holds no run to resume. Repeat the command without --resume")


def _goes_on(former: Recipe, recipe: Recipe) -> bool:
    """Whether `recipe` is the former one with more epochs, under a schedule that does not end with the last of them.

    Raises:
        BadRunFolder: more epochs, but of a schedule that has come to its end.
    """
    if former.model_copy(update={"optim": recipe.optim}).digest() != recipe.digest():
        return False
    same = former.optim.model_copy(update={"epochs": recipe.optim.epochs})
    if same != recipe.optim or recipe.optim.epochs <= former.optim.epochs:
        return False
    if recipe.optim.schedule in ("constant", "multistep") and not recipe.student.image_sizes:
        return True
    what = "student.image_sizes" if recipe.student.image_sizes else f"optim.schedule {recipe.optim.schedule}"
    raise BadRunFolder(
        f"{what} is planned over all of optim.epochs, so {recipe.optim.epochs} epochs are another run from its first "
        f"step on than {former.optim.epochs}. To train on from this run's student, choose another --out and type, in "
        "place of --resume: --set student.init=checkpoint --set student.init_from=THIS_FOLDER"
    )


def _first_difference(former: Recipe, recipe: Recipe) -> str:
    old, new = former.decisive(), recipe.decisive()
    for section, value in new.items():
        if isinstance(value, dict) and isinstance(old[section], dict):
            for key in {**old[section], **value}:
                if old[section].get(key) != value.get(key):
                    return f"{section}.{key}: {old[section].get(key)} there, {value.get(key)} here"
        elif old[section] != value:
            return f"{section}: {old[section]} there, {value} here"
    return "same keys"
