#!/usr/bin/env bash
# torch 2.14.1: a thread's own set_num_threads is lost where another thread sets a number before it has first asked.
#
# `torch.set_num_threads` sets the calling thread's number and the process's. A thread that has not yet computed anything
# in parallel, nor asked `get_num_threads`, then takes the process's number at its first such call, whatever it has set
# for itself before. So a pool whose initializer is `torch.set_num_threads(1)`, after which the main thread restores its
# own number, computes with all threads in each worker: features stay right and every core is asked for several times.
# One call of `get_num_threads` in the initializer keeps the number. In turn, threads that start later take what a worker set.
# Seen: [4] in a worker that had set 1; [1] in one that had also asked; [1] in a new thread after another had set 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import threading

import torch


def number_later(asks: bool) -> int:
    """What a worker that has set 1 computes with, after the main thread has set 4 again."""
    found, is_set, go = [], threading.Event(), threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        if asks:
            torch.get_num_threads()
        is_set.set()
        go.wait()
        found.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    is_set.wait()
    torch.set_num_threads(4)
    go.set()
    worker.join()
    return found[0]


def number_of_a_new_thread() -> int:
    found = []
    for target in (lambda: torch.set_num_threads(1), lambda: found.append(torch.get_num_threads())):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    return found[0]


torch.set_num_threads(4)
lost, kept, new = number_later(asks=False), number_later(asks=True), number_of_a_new_thread()
print("torch", torch.__version__, "lost", lost, "kept", kept, "new thread", new, "main", torch.get_num_threads())
assert lost == 4, "a worker's own number now stays"
assert kept == 1, "asking no longer keeps it"
assert new == 1, "a worker's number no longer reaches new threads"
PYTHON
