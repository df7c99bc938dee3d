"""The interface of a method, what the training code may ask of it, and the batch it gets in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from disco_zoo.errors import BadRecipe
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.teacher_cache.feature_bank import Preparation
from disco_zoo.transforms.view_dataset import Companions

Network = Callable[[Tensor, int | None], Tensor]


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Attributes:
        views: uint8 (b, 3, S, S) each: the big ones, then the small ones, then in the same order the companions'.
        index: int64 (b,), the numbers of the images.
        targets: for each view the teacher's float32 embeddings (b, D), not normalized, read from a cache; None without
            one.
    """

    views: Sequence[Tensor]
    index: Tensor
    targets: Sequence[Tensor] | None = None

    def teacher_embeddings(self, teacher: Network, numbers: Sequence[int], size: int | None = None) -> Tensor:
        """The teacher's embeddings (n·b, D), not normalized, of the views `numbers`, cached or from one forward.

        Args:
            teacher: maps views (n·b, 3, S, S), resized to side `size`, to embeddings.
            size: side in pixels; None for the teacher's own.
        """
        if self.targets is not None:
            return torch.cat([self.targets[number] for number in numbers])
        views = [self.views[number] for number in numbers]
        return teacher(views[0] if len(views) == 1 else torch.cat(views), size)


def batch_on(device: torch.device | str, loaded: Mapping[str, Any]) -> Batch:
    """What `collate_views` made, on the device."""
    views, index, targets = loaded["views"], loaded["index"], loaded.get("targets")
    return Batch(
        [view.to(device, non_blocking=True) for view in views],
        index.to(device, non_blocking=True),
        # Rows travel as float16, which PyTorch joins with nothing under autocast to bfloat16.
        None if targets is None else [rows.to(device, non_blocking=True).float() for rows in targets],
    )


SomeMethod = TypeVar("SomeMethod", bound="Method")


@dataclass(frozen=True)
class SmallViews:
    """The small crops of a multi-crop recipe: their number, and each network's input size in pixels."""

    count: int
    student_size: int
    teacher_size: int


class Method(nn.Module):
    """A training objective around a student.

    The constructor's positional arguments come from the engine; its keyword-only arguments, and before them those of
    its `PARTS`, *are* the schema of a recipe's `method:` section. State that must survive a resume lives in parameters
    and buffers.

    Attributes:
        num_views: big views drawn of each image.
        small_views: whether the method takes small crops: "no", "optional", "needed".
        takes_companions: whether the views of another image follow those of each image.
        own_width: whether a student without a head keeps its own feature width rather than take the teacher's.
        needs_teacher: whether a recipe must name one.
        needs_index: whether it keeps something for each image by its number, which a stream cannot give.
        takes_any_batch: whether a smaller last batch fits its memories.
        PARTS: modules that the constructor hands further keyword arguments on to.
        OFFICIAL: what `preset: official` sets, as recipe paths, to repeat the authors' code with its quirks.
        crops: the small crops of this run, set after construction; None without any.
        companions: another image for each image, whose views follow its own; set by `prepare`, None for none.
    """

    num_views: ClassVar[int] = 2
    small_views: ClassVar[Literal["no", "optional", "needed"]] = "no"
    takes_companions: ClassVar[bool] = False
    own_width: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    needs_index: ClassVar[bool] = False
    takes_any_batch: ClassVar[bool] = False
    PARTS: ClassVar[tuple[type, ...]] = ()
    OFFICIAL: ClassVar[dict[str, Any]] = {}
    # Of what `variant_of` makes: the method itself, arguments that are no keys of a recipe, other defaults.
    VARIANT_OF: ClassVar[type[Method] | None] = None
    DECIDED: ClassVar[Mapping[str, Any]] = {}
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    crops: SmallViews | None = None
    companions: Companions | None = None

    def __init__(self, student: Encoder, teacher: Teacher | None, embed_dim: int, num_images: int = 0) -> None:
        """Keep what the engine supplies.

        Args:
            student: backbone and head; its embeddings have `embed_dim` numbers.
            teacher: frozen, None without one.
            embed_dim: width of the student's embeddings.
            num_images: of the training data, for memories with a row an image; 0 where it is unknown.
        """
        super().__init__()
        self.student, self.teacher, self.embed_dim, self.num_images = student, teacher, embed_dim, num_images

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to {"loss": scalar, other scalars to log}.

        Methods get the teacher's embeddings from the batch, which may hold cached ones.
        """
        raise NotImplementedError

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[str]:
        """Faults of a whole recipe that this method finds beyond its own schema.

        Args:
            values: the recipe's sections as they were read: keys may be missing, or of a wrong type.

        Returns:
            One line each, which begins with the key and says what to type.
        """
        return []

    def prepare(self, preparation: Preparation) -> None:
        """Called once before training, also before a resumed one: the place for bags and cached features."""

    def start_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again when a run resumes in its middle."""

    def before_step(self) -> None:
        """Called when a step's gradients are complete, before the optimiser takes it: the place to drop some."""

    def after_step(self) -> None:
        """Called once after each step of the optimiser: the place for EMA updates."""

    def compared(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """The rows (b, D) of student and teacher that this method draws together, each its own image's.

        Asked while a training is watched: without gradient, in eval mode, and it must change nothing.

        Args:
            embeddings: of the student's head, not normalised.
            targets: of the teacher, for the same images, not normalised.

        Returns:
            None where the two spaces are not compared number by number.
        """
        return None if self.own_width or embeddings.shape != targets.shape else (embeddings, targets)

    def require_teacher(self) -> Teacher:
        """The teacher of a method that cannot do without.

        Raises:
            BadRecipe: there is none.
        """
        if self.teacher is None:
            raise BadRecipe(f"{type(self).__name__} learns from a teacher. Type: --set teacher.source=NAME")
        return self.teacher


def variant_of(
    method: type[SomeMethod],
    name: str,
    doc: str,
    *,
    decided: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> type[SomeMethod]:
    """The same method under another name of recipes, told apart by its arguments alone.

    Args:
        decided: arguments with these values, which are then no keys of a recipe.
        defaults: other defaults of keys.
        attributes: of the class, e.g. own_width.
    """
    fixed, open_ = dict(decided or {}), dict(defaults or {})

    def construct(self: SomeMethod, *positional: Any, **options: Any) -> None:
        method.__init__(self, *positional, **{**open_, **options, **fixed})

    names = {"__doc__": doc, "__module__": method.__module__, "__init__": construct}
    made = {"VARIANT_OF": method, "DECIDED": fixed, "DEFAULTS": open_}
    return cast(type[SomeMethod], type(name, (method,), {**names, **made, **attributes}))
