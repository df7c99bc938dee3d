"""What a launcher (torchrun, accelerate, SLURM) tells the processes that it starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from disco_zoo.errors import LostProcess

# torchrun counts its own restarts, SLURM those of a requeued job.
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def was_restarted() -> bool:
    """Whether the launcher has started this command before: then its arguments are those of the first time."""
    return any(_whole(os.environ.get(name)) > 0 for name in _RESTARTS)


def is_first_process() -> bool:
    """Before the processes of a run have met; afterwards `distributed.rank` knows."""
    return _whole(os.environ.get("RANK")) == 0


def processes_on_this_machine() -> int:
    return max(1, _whole(os.environ.get("LOCAL_WORLD_SIZE")))


@contextlib.contextmanager
def meeting() -> Iterator[None]:
    """Say in one line that the processes of a run do not find each other.

    torchrun's static rendezvous, its default with --master-port, keeps the addresses of processes that are gone:
    restarted ones may then call those.

    Raises:
        LostProcess: they do not.
    """
    try:
        yield
    except RuntimeError as error:
        if _whole(os.environ.get("WORLD_SIZE")) < 2:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LostProcess(
            f"the processes of this run did not find each other ({reason}). On one machine use torchrun --standalone, "
            "on several --rdzv-backend c10d: docs/launch.md"
        ) from error


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
