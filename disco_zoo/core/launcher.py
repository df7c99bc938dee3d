"""What a launcher (torchrun, accelerate, SLURM) tells the processes that it starts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from disco_zoo.errors import LostProcess, own_words

# A launcher ends the other processes of a machine within a second of the first failure.
GIVE_WAY_SECONDS = 3.0

# torchrun counts its own restarts, SLURM those of a requeued job.
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def was_restarted() -> bool:
    """Whether the launcher has started this command before: then its arguments are those of the first time."""
    return any(_whole(os.environ.get(name)) > 0 for name in _RESTARTS)


def will_be_restarted() -> bool:
    """Whether torchrun will start the run again if this process fails, and it can then go on."""
    left = _whole(os.environ.get("TORCHELASTIC_MAX_RESTARTS")) - _whole(os.environ.get("TORCHELASTIC_RESTART_COUNT"))
    return left > 0 and not _meets_in_launchers_store()


def num_launched() -> int:
    """Processes of the run, before they have met."""
    return max(1, _whole(os.environ.get("WORLD_SIZE")))


def is_first_process() -> bool:
    """Before the processes of a run have met; afterwards `distributed.rank` knows."""
    return _whole(os.environ.get("RANK")) == 0


def give_way_to_first_process() -> None:
    """Let the first process of this machine say what went wrong, which mostly is the same for all.

    The launcher then ends the others. One that it leaves alive is alone with its error, and says it itself.
    """
    if _whole(os.environ.get("LOCAL_RANK")) > 0:
        with contextlib.suppress(KeyboardInterrupt):  # it ends anyway; what is wrong is still worth a line
            time.sleep(GIVE_WAY_SECONDS)


def processes_on_this_machine() -> int:
    return max(1, _whole(os.environ.get("LOCAL_WORLD_SIZE")))


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """This process's share of them, beside the other processes of its run."""
    return max(1, usable_cores() // processes_on_this_machine())


# Of gloo, and of torch's store: that another process cannot be reached.
_NOT_MET = ("connectFullMesh", "Connection refused", "timed out", "TCPStore", "Connection reset", "Socket")


@contextlib.contextmanager
def rendezvous_errors() -> Iterator[None]:
    """Say in one line that the processes of a run do not find each other, or would not for certain.

    By default torchrun's processes meet in a store of torchrun's own, which keeps the addresses of processes that are
    gone: restarted ones may call those and wait for ever.

    Raises:
        LostProcess: they do not.
    """
    if was_restarted() and _meets_in_launchers_store():
        raise LostProcess(
            "restarted processes may not find each other in torchrun's own store. What is finished is kept. To go on, "
            "train with --resume; for restarts type: export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (docs/launch.md)"
        )
    try:
        yield
    except RuntimeError as error:
        if num_launched() == 1 or not any(word in str(error) for word in _NOT_MET):
            raise
        raise LostProcess(
            f"the processes of this run did not find each other ({own_words(error)}): docs/launch.md"
        ) from error


def _meets_in_launchers_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def chosen_device(device: str) -> str:
    """`auto` is the accelerator torch sees, or the CPU.

    Raises:
        DiscoZooError: torch sees none of this kind.
    """
    if device == "cpu":
        return device
    import torch

    from disco_zoo.errors import DiscoZooError

    found = [name for name, there in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if there.is_available()]
    if device != "auto" and device not in found:
        raise DiscoZooError(f"--device {device}: torch {torch.__version__} sees none here. Type: --device auto")
    return next(iter(found), "cpu") if device == "auto" else device


def default_workers() -> int:
    """Of each process: the cores are shared with those beside it."""
    return max(1, min(8, own_cores() - 1))
