"""Runs of several processes, as launchers start them."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

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


def start_pair(*arguments: object, folder: Path) -> list[subprocess.Popen[str]]:
    """Start one command as ranks 0 and 1, as `accelerate launch` or `torchrun` do."""
    return start_group(2, *arguments, folder=folder)


def start_group(size: int, *arguments: object, folder: Path) -> list[subprocess.Popen[str]]:
    common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            command("train", *arguments, "--device", "cpu", "--workers", 0, "--json"),
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**subprocess_environment(), **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    try:
        outputs = [process.communicate(timeout=270) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]
