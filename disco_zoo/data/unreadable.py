"""Unreadable images: counted, listed and replaced; above a limit the work stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from disco_zoo.core.console import console
from disco_zoo.core.distributed import rank
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.errors import BadData, UnreadableImage

UNREADABLE_SHARE = 0.01  # of the images; with more of them missing a figure is worth little


UNREADABLE_FLOOR = 10


def unreadable_limit(num_images: int) -> int:
    """How many of `num_images` may be unreadable before an evaluation stops."""
    return max(UNREADABLE_FLOOR, round(UNREADABLE_SHARE * num_images))


def load_or_replace(source: ImageSource, index: int) -> tuple[Image.Image, int, UnreadableImage | None]:
    """Load an image or, if it is unreadable, the next readable one: see `use_or_replace`.

    Returns:
        The RGB image, the index it really has, and the error of `index` (None when it was readable).
    """
    return use_or_replace(source, index, lambda image, _: image.rgb())


def use_or_replace(
    source: ImageSource, index: int, use: Callable[[SourceImage, int], Used]
) -> tuple[Used, int, UnreadableImage | None]:
    """Make something of an image or, if it is unreadable, of the next readable one, so that batches keep their size.

    The replacement depends on nothing but the source and the index.

    Args:
        use: is given the opened image and its index, and decodes it.

    Returns:
        What `use` made, the index of its image, and the error of `index` (None when it was readable).

    Raises:
        BadData: No readable image among the next `MAX_CONSECUTIVE_UNREADABLE`.
    """
    first_error: UnreadableImage | None = None
    tries = min(len(source), MAX_CONSECUTIVE_UNREADABLE)
    for step in range(tries):
        candidate = (index + step) % len(source)
        try:
            return use(source.opened(candidate), candidate), candidate, first_error
        except UnreadableImage as error:
            first_error = first_error or error
    raise BadData(f"{tries} images in a row are unreadable in {source.name}. First: {first_error}")


class UnreadableTally:
    """Counts the unreadable images of a run, each once, and stops the run above a limit.

    Attributes:
        limit: Largest number of unreadable images that is tolerated.
        messages: What was wrong, by index.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.messages: dict[int, str] = {}

    def add(self, index: int, message: str) -> bool:
        """Record one unreadable image; return whether it is new."""
        is_new = index not in self.messages
        self.messages.setdefault(index, message)
        return is_new

    def write(self, path: Path) -> None:
        """Write the list, one line per image, ordered by index."""
        path.write_text(
            "".join(f"{self.messages[index]}\n" for index in sorted(self.messages)), "utf-8", "backslashreplace"
        )

    def say(self, what: str) -> None:
        """One line, `what: the first of them`; none where all could be read."""
        if self.messages:
            first = self.messages[min(self.messages)]
            console.print(f"{what}. First: {first}", soft_wrap=True)

    def check(self, list_path: Path | None = None) -> None:
        """Stop above the limit.

        Raises:
            BadData: More than `limit` images are unreadable; the list is at `list_path` if given.
        """
        if len(self.messages) <= self.limit:
            return
        if list_path is not None:
            self.write(list_path)
        where = f"The list is in {list_path}. " if list_path is not None else ""
        first = self.messages[min(self.messages)]
        raise BadData(
            f"{len(self.messages)} images are unreadable, {self.limit} are tolerated. {where}"
            f"Repair or remove them. First: {first}"
        )


Used = TypeVar("Used")


MAX_CONSECUTIVE_UNREADABLE = 100


FILE = "unreadable_images.txt"


class UnreadableList:
    """The list of a run folder; the first process writes it.

    Args:
        limit: largest number of unreadable images that is tolerated.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.path, self.limit = folder / FILE, limit

    def note(self, messages: dict[int, str], found: list[tuple[int, str]]) -> None:
        """Add what a batch found to `messages`, by index.

        Raises:
            BadData: they are too many.
        """
        if not found:
            return
        tally = self._tally(messages)
        new = [tally.add(index, message) for index, message in found]
        if any(new):
            self.write(messages)
        tally.check(self.path)

    def write(self, messages: dict[int, str]) -> None:
        if messages and rank() == 0:
            self._tally(messages).write(self.path)

    def _tally(self, messages: dict[int, str]) -> UnreadableTally:
        tally = UnreadableTally(self.limit)
        tally.messages = messages
        return tally
