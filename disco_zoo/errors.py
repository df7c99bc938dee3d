"""The errors a user can meet. Each says in one line what is wrong and what to type next."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class DiscoZooError(Exception):
    """Base of all errors meant for the user: the command line prints the message alone and exits with 2."""


class UnknownName(DiscoZooError):
    """A model, recipe, method, source or key that does not exist."""


class BadRecipe(DiscoZooError):
    """A recipe with unknown keys, wrong types or missing keys; the message lists all of them."""


class BadCatalog(DiscoZooError):
    """The catalog does not follow its schema; the message lists every fault."""


class MissingExtra(DiscoZooError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class BadData(DiscoZooError):
    """A data source that is missing, empty, unreadable or unfit for the method."""


class NoTestImages(BadData):
    """A source of training images alone."""


class UnreadableImage(BadData):
    """One image whose bytes are missing or damaged.

    Attributes:
        index: Number of the image in its source.
        path: Name by which a user finds it.
        reason: What the decoder said.
    """

    def __init__(self, index: int, path: str, reason: str) -> None:
        super().__init__(f"image {index} ({path}) is unreadable: {reason}")
        self.index = index
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[int, str, str]]:
        # Exceptions are unpickled from their message alone unless told otherwise; workers send these.
        return type(self), (self.index, self.path, self.reason)


class CannotRead(DiscoZooError):
    """Images that could not be read for a reason that is not theirs: disk, network, memory, or a lost process.

    No image is replaced for it, since that would silently be another run.
    """


class BadTeacher(DiscoZooError):
    """A teacher file that is missing, damaged, or of another architecture."""


class BadCache(DiscoZooError):
    """A teacher cache that is busy, damaged, cannot be written, or was built from other views."""


class BadRunFolder(DiscoZooError):
    """The output folder is in use, belongs to another recipe, or cannot be written."""


class TrainingDiverged(DiscoZooError):
    """The loss is not finite."""


class LostProcess(DiscoZooError):
    """Another process of the run ended in the middle of it."""


class Interrupted(DiscoZooError):
    """The user stopped a run; its checkpoint is saved."""


class CannotWrite(DiscoZooError):
    """A file or folder that cannot be written: no permission, no room, not there."""


class BadCheckpoint(DiscoZooError):
    """A file that cannot be converted or verified: unreadable, hostile, of no known layout, or of another network."""


class WrongNetwork(BadCheckpoint):
    """Tensors whose names or shapes are not those of the network they were meant for; the message lists them."""


class CannotExport(DiscoZooError):
    """A network that the format cannot hold, or whose file computes something else."""


class PublishError(DiscoZooError):
    """A publication that did not happen, or whose upload is not what was sent."""


class WeightsError(DiscoZooError):
    """Weights that cannot be handed out; the children say why."""


class NotPublished(WeightsError):
    """The catalog knows the checkpoint but nobody has published its weights, or its repository is private."""


class Gated(WeightsError):
    """The repository asks for its terms to be accepted first."""


class AccessDenied(WeightsError):
    """The Hub refuses the token, or refuses this user."""


class Offline(WeightsError):
    """Offline mode is on and the weights are not in the cache."""


class HubUnreachable(WeightsError):
    """The Hub cannot be reached, does not answer, or answers with an error of its own."""


class OutOfStep(WeightsError):
    """The package names a commit or file that the Hub no longer has."""


class CacheNotWritable(WeightsError):
    """The cache folder is read-only or full."""


class Busy(WeightsError):
    """Another process is at it; wait for it."""


class Damaged(WeightsError):
    """A weights file whose sha256 is not the catalog's."""


def shown(name: str) -> str:
    """A file or tensor name fit for one line of a terminal, whatever characters it has and however many."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) < 400 else f"{name[:200]}…{name[-100:]}"


def one_line(text: str) -> str:
    """A message on one line: what does not print, such as a line break in somebody's key, as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string.

    A typing error seldom changes the first letter: one that does must be near indeed ("effnet" is no "alexnet"). Where
    none is near, one that begins alike will do.
    """
    others = [other for other in known if other != name]
    near = difflib.get_close_matches(name, others, n=5, cutoff=0.6)
    near = [one for one in near if one[:1] == name[:1] or _likeness(name, one) >= 0.75]
    alike = [other for other in others if len(name) > 3 and other.startswith(name[:3])]
    nearest = near or difflib.get_close_matches(name, alike, n=1, cutoff=0.4)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        MissingExtra: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0].replace("_", "-")
        raise MissingExtra(f'{package} is not installed. Type: pip install "disco-zoo[{extra}]"') from error


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "12,000 images", "2 classes"."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def own_words(error: BaseException | None) -> str:
    """The first line of what an error says itself, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def first_line(error: BaseException) -> str:
    """The words of the innermost cause, for one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
