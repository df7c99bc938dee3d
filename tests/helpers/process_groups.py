"""Runs of several processes, as launchers start them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forked import Forked
from tiny_runs import command, subprocess_environment

# LayerNorm alone: with BatchNorm each process normalises over its own half, so weights would differ in earnest.
NORM_FREE: dict[str, Any] = {
    "student__model": "test_convnext",
    "teacher__source": "test_convnext",
    "log__knn_every_epochs": 1.0,
    "log__log_every_steps": 1,
    "optim__base_lr": 0.3,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_ranks(size: int, command: list[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> list[Forked]:
    """Start one command as ranks 0 to `size` - 1, as `accelerate launch` or `torchrun` do."""
    common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared = {**(env or subprocess_environment()), **common}
    return [
        Forked(command, cwd=cwd, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(size)
    ]


def start_training(size: int, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> list[Forked]:
    typed = command("train", *arguments, "--device", "cpu", "--workers", 0, "--json")
    return start_ranks(size, typed, cwd=cwd, env=env)


def finish(processes: list[Forked]) -> list[tuple[int | None, str, str]]:
    try:
        outputs = [process.communicate(timeout=270) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]
