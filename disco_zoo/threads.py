"""One CPU thread for work made of many short operations."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import torch

from disco_zoo.errors import require


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one CPU thread, then with as many as before.

    L-BFGS and t-SNE make thousands of short operations. On a busy machine, waiting for the other threads at
    each of them made both several times slower (measured). One thread also gives the same bits whatever
    the number of cores.
    """
    threads = torch.get_num_threads()
    limits: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if importlib.util.find_spec("threadpoolctl") is not None:  # scikit-learn brings it, and needs it here
        limits = require("threadpoolctl", "train").threadpool_limits(1)
    torch.set_num_threads(1)
    try:
        with limits:
            yield
    finally:
        torch.set_num_threads(threads)
