"""Builds of a teacher cache by one, two and four processes, killed, interrupted, and out of room."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_runs import NUM_IMAGES, content
from forked import Forked, run
from paused import killed_at, start_until
from process_groups import finish, start_ranks, start_training
from safetensors.torch import load_file
from tiny_runs import (
    checkpoint_of,
    command,
    differences,
    subprocess_environment,
    toy_parquet,
    toy_recipe_file,
    train,
)

from disco_zoo.config.recipe import load_recipe
from disco_zoo.teacher_cache.cache_dir import CacheFolder

pytestmark = pytest.mark.usefixtures("one_thread")
VIEWS = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    toy_parquet(folder, num_train=NUM_IMAGES)
    toy_recipe_file(folder, "disco", optim__epochs=3)
    return folder


def environment(caches: Path) -> dict[str, str]:
    return {**subprocess_environment(), "DISCO_ZOO_CACHE": str(caches)}


def build_command(work: Path, views: int = VIEWS) -> list[str]:
    recipe, data = work / "toy_disco.yaml", work / "toy_train.parquet"
    return command("cache", "build", recipe, "--data", data, "--views", views, "--workers", 0, "--device", "cpu")


def build(work: Path, caches: Path, processes: int = 1) -> CacheFolder:
    """Build to the end."""
    typed, where = build_command(work), environment(caches)
    alone = processes == 1
    started = [Forked(typed, cwd=work, env=where)] if alone else start_ranks(processes, typed, cwd=work, env=where)
    results = finish(started)
    assert [code for code, _, _ in results] == [0] * processes, results
    return only_cache(caches)


def only_cache(caches: Path) -> CacheFolder:
    (folder,) = (caches / "teacher_views").iterdir()
    return CacheFolder(folder)


@pytest.fixture(scope="module")
def whole(work: Path) -> tuple[str, tuple[bytes, bytes]]:
    """Id and content of an undisturbed build by one process."""
    cache = build(work, work / "one")
    return cache.path.name, content(cache)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_many_processes_build_the_cache_of_one(processes: int, work: Path, whole: Any) -> None:
    cache = build(work, work / f"by{processes}", processes)
    assert (cache.path.name, content(cache)) == whole
    assert sorted(path.name for path in cache.path.glob("done-*")) == [
        f"done-{n}.jsonl" for n in range(min(processes, 3))
    ]


@pytest.mark.slow
def test_a_build_goes_on_with_another_number_of_processes(work: Path, whole: Any) -> None:
    cache = build(work, work / "two_then_one", 2)
    (cache.path / "done-1.jsonl").unlink()  # as if the second process had not begun
    assert cache.missing(VIEWS).any()
    build(work, work / "two_then_one", 1)
    assert (cache.path.name, content(cache)) == whole


# Blocks of one view, and points: before each is computed, in the middle of each write, and after it.
PAUSING_BUILD = """
import io, sys
from pathlib import Path
from forked import Forked, run
from paused import by_halves, point
from disco_zoo.cli import main
from disco_zoo.teacher_cache import builder as build, cache_dir as cache_folder, journal

class TornFile(io.BufferedRandom):
    def write(self, content):
        by_halves(self.write_through, content)
    def write_through(self, part):
        super().write(part)
        self.flush()

class TornPath(type(Path())):
    def open(self, *arguments, **options):
        appended = self.name.startswith("done-") and arguments == ("ab+",)
        return TornFile(io.FileIO(self, "a+")) if appended else super().open(*arguments, **options)

do_block, write_all, append = build._do_block, cache_folder._write_all, journal.Journal.append
def pausing_append(self, done, writer):
    self.folder = TornPath(self.folder)
    append(self, done, writer)

build.SLOTS_A_BLOCK = 1
build._do_block = lambda *arguments: (point(), do_block(*arguments))[1]
cache_folder._write_all = lambda file, content: by_halves(lambda part: write_all(file, part), content)
journal.Journal.append = pausing_append
sys.exit(main(sys.argv[1:]))
"""
POINTS_A_BLOCK = 7  # its start, and two for each of rows, pairs and journal


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killed_builds_leave_nothing_that_is_wrongly_trusted(kills: int, work: Path, whole: Any) -> None:
    """Kills at random points of two blocks' work: in mid-compute, in mid-write, and within the journal's line."""
    caches, grew, unnoted = work / f"killed{kills}", 0, 0
    cache, noted = CacheFolder(caches / "teacher_views" / whole[0]), set[tuple[int, int]]()
    for number in random.Random(5).sample(range(1, 2 * POINTS_A_BLOCK + 1), kills):
        killed_at(number, PAUSING_BUILD, *build_command(work)[3:], folder=work, environment=environment(caches))
        former, noted = noted, {(done.first, done.first_slot) for done in cache.journal.read()}
        assert cache.damaged() == [], f"killed at point {number}"
        assert former <= noted, "what was finished is lost"
        assert cache.missing(VIEWS).any(), "the kill met a finished cache"
        grew += former < noted
        unnoted += written_blocks(cache) - len(noted)
    assert grew >= kills // 3
    assert unnoted >= kills // 3, "the kills met no block between its rows and its line"
    assert content(build(work, caches)) == whole[1]


def written_blocks(cache: CacheFolder) -> int:
    """Blocks of which at least the first rows are there, noted or not."""
    rows = cache.rows()
    return sum(bool(rows[slot, first].any()) for slot in range(len(rows)) for first in range(0, NUM_IMAGES, 64))


def test_ctrl_c_keeps_what_is_finished(work: Path, whole: Any) -> None:
    """Ctrl-C in the middle of the second block's rows: this block is the last."""
    caches = work / "interrupted"
    process = start_until(
        POINTS_A_BLOCK + 2, PAUSING_BUILD, *build_command(work)[3:], folder=work, environment=environment(caches)
    )
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate("\n", timeout=120)
    assert process.returncode == 130, shown
    assert shown.splitlines()[-1].startswith("Interrupted: stopped after 128 of 900 views; they are kept.")
    assert shown.splitlines()[-1].endswith("To go on, repeat the command")
    assert len([*only_cache(caches).journal.read()]) == 2
    cache = build(work, caches)
    assert (cache.path.name, content(cache)) == whole


LIMITED = """
import resource, sys
from disco_zoo.cli import main
from disco_zoo.teacher_cache import builder as build
def limited(*arguments, _former=build._do_block):
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # what is beyond this offset cannot be written any more
    return _former(*arguments)
if sys.argv[1] == "middle":
    build._do_block = limited
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["start", "middle"])
def test_no_room_is_one_line_and_nothing_is_lost(when: str, work: Path, whole: Any) -> None:
    caches = work / f"no_room_{when}"
    found = run([sys.executable, "-c", LIMITED, when, *build_command(work)[3:]], cwd=work, env=environment(caches))
    assert found.returncode == 2, found.stderr
    (line,) = [line for line in found.stderr.splitlines() if "teacher's views" not in line]
    assert line.startswith("Error: cannot write the teacher cache in ")
    assert "DISCO_ZOO_CACHE" in line
    cache = build(work, caches)
    assert (cache.path.name, content(cache)) == whole


FAILING = """
import os, sys
from disco_zoo.cli import entry_point
from disco_zoo.errors import BadCache
from disco_zoo.teacher_cache import builder as build
former = build._do_block
def fail(cache, block, *rest):
    if block.first == 64:
        raise BadCache("no room at the second process")
    return former(cache, block, *rest)
if os.environ["RANK"] == "1":
    build._do_block = fail
entry_point(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_message(work: Path) -> None:
    command = [sys.executable, "-c", FAILING, *build_command(work)[3:]]
    started = start_ranks(2, command, cwd=work, env=environment(work / "failing"))
    (first, _, first_err), (second, _, second_err) = finish(started)
    assert (first, second) == (2, 2)
    assert first_err.splitlines()[-1] == "Error: process 1 stopped: no room at the second process"
    assert second_err.splitlines()[-1] == "Error: no room at the second process"


def test_a_second_build_waits_for_the_first(work: Path, whole: Any) -> None:
    first = CacheFolder(work / "shared" / "teacher_views" / whole[0])
    with first.claimed():
        second = Forked(build_command(work), cwd=work, env=environment(work / "shared"))
        line = second.stderr.readline()
    assert line == f"teacher cache {whole[0]}: another process is building it; waiting\n"
    finish([second])
    assert content(first) == whole[1]


def test_two_processes_train_from_a_cache_as_one_does(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    values = {"student__model": "test_convnext", "teacher__source": "test_convnext", "optim__base_lr": 0.3}
    recipe = toy_recipe_file(tmp_path, "disco", optim__epochs=3, teacher__cache_views=2, **values)
    one = train(load_recipe(str(recipe)), work / "toy_train.parquet", tmp_path / "one", steps=4)
    arguments = (recipe, "--data", work / "toy_train.parquet", "--steps", 4, "--out", tmp_path / "two")
    caches = environment(tmp_path / "caches2")
    results = finish(start_training(2, *arguments, cwd=tmp_path, env=caches))
    assert [code for code, _, _ in results] == [0, 0], results
    two = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    for key, value in one["method"].items():
        torch.testing.assert_close(two["method"][key], value, atol=1e-5, rtol=0, msg=key)
    assert content(only_cache(tmp_path / "caches")) == content(only_cache(tmp_path / "caches2"))
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert facts["teacher"]["caches"] == [{"id": only_cache(tmp_path / "caches2").path.name, "views": 2}]


# Points: each step's start, and the middle and the end of each checkpoint's file before it has its name.
PAUSING_RUN = """
import sys, tiny_runs
from forked import Forked, run
from paused import point, torn
from disco_zoo.core import checkpoint
from disco_zoo.cli import main
from disco_zoo.training.trainer import Trainer

micro_step, write_atomically = Trainer._micro_step, checkpoint.write_atomically
Trainer._micro_step = lambda *arguments: (point(), micro_step(*arguments))[1]
checkpoint.write_atomically = lambda path, write: write_atomically(path, torn(write))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_cached_runs_killed_at_random_moments_end_as_an_undisturbed_one(work: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(
        tmp_path,
        "disco",
        optim__epochs=3,
        teacher__cache_views=4,
        log__checkpoint_every_steps=3,
        student__model="dropping_student",
    )
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    all_steps = train(load_recipe(str(recipe)), work / "toy_train.parquet", straight, workers=1)["position"]["step"]
    arguments = ["train", recipe, "--data", work / "toy_train.parquet", "--out", killed, "--workers", 1]
    arguments += ["--device", "cpu"]
    resumed_from = []
    for number in random.Random(9).sample(range(1, 16), 10):
        resume = ["--resume"] if resumed_from else []
        killed_at(
            number, PAUSING_RUN, *arguments, *resume, folder=tmp_path, environment=environment(tmp_path / "caches")
        )
        begun = (killed / "checkpoint.pt").is_file()
        resumed_from += [checkpoint_of(killed)["position"]["step"]] if begun else []
    assert len(set(resumed_from)) >= 5, "too few kills met a run that goes on"
    assert max(resumed_from) < all_steps
    script = "import sys, tiny_runs; from disco_zoo.cli import main; sys.exit(main(sys.argv[1:]))"
    typed = [sys.executable, "-c", script, *map(str, arguments), "--resume"]
    last = run(typed, cwd=tmp_path, env=environment(tmp_path / "caches"))
    assert last.returncode == 0, last.stderr
    assert differences(checkpoint_of(straight), checkpoint_of(killed)) == []
    students = [load_file(out / "student.safetensors") for out in (straight, killed)]
    assert differences(*students) == []
    assert len(os.listdir(tmp_path / "caches" / "teacher_views")) == 1
