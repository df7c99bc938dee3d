"""The list of unreadable images in a run folder; above a limit the run stops."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.core.distributed import rank
from disco_zoo.data.unreadable import UnreadableTally

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
