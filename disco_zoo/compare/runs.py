"""The trainings of a comparison: each a process of its own, so that its memory is its own, and each resumable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.claimed_dir import CHECKPOINT, FACTS, read_json, without_checkpoint
from disco_zoo.core.console import StepProgress
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.core.launcher import usable_cores
from disco_zoo.errors import BadRunFolder, DiscoZooError, Interrupted
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run_facts import images_of
from disco_zoo.training.run_folder import first_difference

POLL_SECONDS = 1.0
STOP_SECONDS = 120.0  # a run that is told to stop finishes its step and saves


@dataclass(frozen=True)
class PlannedRun:
    """One training.

    Attributes:
        name: of the recipe, as `train` takes it.
        recipe: with overrides and seed.
        steps: student steps it will take.
        images: fingerprints of its training images and of extra ones, None where there are none.
        overrides: `key=value`, what `train` is to lay over the recipe.
    """

    name: str
    label: str
    recipe: Recipe
    folder: Path
    steps: int
    images: tuple[str, str | None]
    overrides: Sequence[str] = ()

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.recipe.seed}"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def finished(self) -> bool:
        """Whether its folder holds this very run to its end.

        Raises:
            BadRunFolder: it holds the run on other images, or a finished run of other settings or length.
        """
        facts, stored = read_json(self.folder / FACTS), self.folder / "recipe.yaml"
        if not facts or not stored.is_file():
            return False
        former = load_recipe(str(stored))
        odd = None if former.digest() == self.recipe.digest() else first_difference(former, self.recipe)
        if odd is None and facts["steps"] != self.steps:
            odd = f"steps: {facts['steps']} there, {self.steps} here"
        if odd is not None:
            if without_checkpoint(self.folder):
                raise BadRunFolder(
                    f"{self.folder} holds a finished run of other settings ({odd}). Choose another --out"
                )
            return False
        if images_of(facts) != self.images:
            raise BadRunFolder(f"{self.folder} holds this run on other images. Choose another --out")
        return True

    def steps_done(self) -> int:
        metrics = read_metrics(self.folder)
        return int(metrics[-1]["step"]) if metrics else 0


def train_all(runs: Sequence[PlannedRun], options: Sequence[str], *, jobs: int, resume: bool) -> None:
    """Train all unfinished runs, `jobs` at a time.

    Args:
        options: of `disco-zoo train` that all have in common.
        resume: go on with what the folders hold; without it they must hold nothing.

    Raises:
        BadRunFolder: a folder holds a run and `resume` is not given.
        Interrupted: Ctrl-C or SIGTERM; each run has saved.
        DiscoZooError: a run failed; the others are kept.
    """
    if not resume:
        for run in runs:
            if (run.folder / "recipe.yaml").is_file():
                raise BadRunFolder(f"{run.folder} already holds a run. Add --resume to go on, or choose another --out")
    waiting = [run for run in runs if not run.finished()]
    done = sum(run.steps for run in runs) - sum(run.steps for run in waiting)
    busy: list[tuple[PlannedRun, subprocess.Popen[bytes]]] = []
    try:
        with InterruptFlag() as flag, StepProgress("training", sum(run.steps for run in runs), done) as progress:
            while waiting or busy:
                if flag.raised:
                    raise Interrupted("stopped; nothing is lost. To go on, repeat the command with --resume")
                while waiting and len(busy) < jobs:
                    run = waiting.pop(0)
                    busy.append((run, _start(run, options, jobs)))
                time.sleep(POLL_SECONDS)
                for run, process in [pair for pair in busy if pair[1].poll() is not None]:
                    busy.remove((run, process))
                    _settle(run, process.returncode)
                    done += run.steps
                steps = done + sum(run.steps_done() for run, _ in busy)
                titles = "; ".join(run.title for run, _ in busy)
                progress.advance(steps, f"{len(waiting)} runs waiting; {titles}")
    finally:
        _stop([process for _, process in busy])


def _start(run: PlannedRun, options: Sequence[str], jobs: int) -> subprocess.Popen[bytes]:
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "disco_zoo", "train", run.name, "--seed", str(run.recipe.seed)]
    command += ["--out", str(run.folder), *options]
    command += [part for override in run.overrides for part in ("--set", override)]
    command += ["--resume"] if (run.folder / CHECKPOINT).is_file() else []
    environment = dict(os.environ)
    if jobs > 1:  # trainings that fight over the cores with all their threads are several times slower
        environment["OMP_NUM_THREADS"] = str(max(1, usable_cores() // jobs))
    with run.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process alone, which then tells each run once
        )


def _settle(run: PlannedRun, exit_code: int) -> None:
    """Check that a run came to its end, and drop the checkpoint that only a resume would need."""
    if exit_code or not run.finished():
        lines = run.log.read_text(encoding="utf-8", errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {exit_code}")
        raise DiscoZooError(
            f"the run of {run.title} failed: {reason.removeprefix('Error: ')} (all it said: {run.log}). "
            "The others are kept: repeat the command with --resume"
        )
    (run.folder / CHECKPOINT).unlink(missing_ok=True)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let each run save and end."""
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
