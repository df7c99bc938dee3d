"""One process works while the others wait: for what is computed once and then read from a file by all.

A plain barrier would not do: collectives give up after some minutes, and the features of ImageNet take longer. So
the working process tells the others now and then that it is still at work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from disco_zoo.core.distributed import num_processes, rank
from disco_zoo.errors import DiscoZooError

Heartbeat = Callable[[], None]
"""Called by the work every few seconds or more often."""

HEARTBEAT_SECONDS = 20.0
_WORKING, _DONE, _INTERRUPTED = "working", "done", "interrupted"


def on_first_process(work: Callable[[Heartbeat], None]) -> None:
    """Let the first process do `work`; the others return when it is done. All processes must call this.

    Raises:
        DiscoZooError: on the others, when the work failed on the first, which raises what went wrong.
        KeyboardInterrupt: on all of them, when the first one heard Ctrl-C.
    """
    if num_processes() == 1:
        work(lambda: None)
    elif rank() == 0:
        _work(work)
    else:
        while (word := _broadcast(None)) == _WORKING:
            pass
        if word == _INTERRUPTED:
            raise KeyboardInterrupt
        if word != _DONE:
            raise DiscoZooError(f"the first process stopped: {word}")


def _work(work: Callable[[Heartbeat], None]) -> None:
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= HEARTBEAT_SECONDS:
            last = time.monotonic()
            _broadcast(_WORKING)

    try:
        work(beat)
    except KeyboardInterrupt:
        _broadcast(_INTERRUPTED)
        raise
    except Exception as error:
        _broadcast(str(error) or type(error).__name__)
        raise
    _broadcast(_DONE)


def _broadcast(word: str | None) -> Any:
    """The first process's word, on every process."""
    words = [word]
    dist.broadcast_object_list(words, src=0)
    return words[0]
