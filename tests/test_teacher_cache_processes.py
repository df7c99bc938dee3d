"""Builds of a teacher cache by one, two and four processes, killed, interrupted, and out of room."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_runs import NUM_IMAGES, content
from test_distributed_run import finish, free_port
from tiny_runs import command, differences, subprocess_environment, toy_parquet, toy_recipe_file, train

from disco_zoo.recipe import load_recipe
from disco_zoo.teacher_cache.cache_folder import CacheFolder

pytestmark = pytest.mark.usefixtures("one_thread")
VIEWS = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    toy_parquet(folder, num_train=NUM_IMAGES)
    toy_recipe_file(folder, "disco", optim__epochs=3)
    return folder


def environment(caches: Path, **more: str) -> dict[str, str]:
    return {**subprocess_environment(), "DISCO_ZOO_CACHE": str(caches), **more}


def build_command(work: Path, views: int = VIEWS) -> list[str]:
    recipe, data = work / "toy_disco.yaml", work / "toy_train.parquet"
    return command("cache", "build", recipe, "--data", data, "--views", views, "--workers", 0, "--device", "cpu")


def build(work: Path, caches: Path, processes: int = 1) -> CacheFolder:
    """Build to the end."""
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            build_command(work), cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(caches, **(common | {"RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {})),
        )
        for n in range(processes)
    ]  # fmt: skip
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


SLOW_BUILD = """
import sys, time
from disco_zoo.cli import main
from disco_zoo.teacher_cache import cache_folder
former = cache_folder._write_all
def slowly(file, content):
    for start in range(0, len(content), 4096):
        former(file, content[start:start + 4096])
        time.sleep(0.04)
cache_folder._write_all = slowly
sys.exit(main(sys.argv[1:]))
"""


def start_slowly(work: Path, caches: Path) -> subprocess.Popen[str]:
    arguments = build_command(work)[3:]
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, *arguments], cwd=work, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(caches),
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.02)


def wait_for_cache(caches: Path, process: subprocess.Popen[str]) -> Path:
    """The folder of the cache, once its first rows are being written."""
    while process.poll() is None:
        for rows in (caches / "teacher_views").glob("*/rows.f16"):
            return rows.parent
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_builds_leave_nothing_that_is_wrongly_trusted(kills: int, work: Path, whole: Any) -> None:
    caches, chance = work / f"killed{kills}", random.Random(5)
    for number in range(kills):
        process = start_slowly(work, caches)
        folder = wait_for_cache(caches, process)
        time.sleep(chance.uniform(0.0, 2.0))
        process.kill()
        process.communicate()
        cache = CacheFolder(folder)
        assert cache.damaged() == [], f"kill {number}"
    cache = build(work, caches)
    assert (cache.path.name, content(cache)) == whole


def test_ctrl_c_keeps_what_is_finished(work: Path, whole: Any) -> None:
    caches = work / "interrupted"
    process = start_slowly(work, caches)
    folder = wait_for_cache(caches, process)
    wait_for(folder / "done-0.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 130, shown
    assert shown.splitlines()[-1].startswith("Interrupted: stopped after ")
    assert "they are kept. To go on, repeat the command" in shown
    assert CacheFolder(folder).missing(VIEWS).any()
    cache = build(work, caches)
    assert (cache.path.name, content(cache)) == whole


LIMITED = """
import resource, sys
from disco_zoo.cli import main
from disco_zoo.teacher_cache import build
def limited(*arguments, _former=build._do_block):
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # what is beyond this offset cannot be written any more
    return _former(*arguments)
if sys.argv[1] == "middle":
    build._do_block = limited
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("when", [pytest.param("start", marks=pytest.mark.slow), "middle"])
def test_no_room_is_one_line_and_nothing_is_lost(when: str, work: Path, whole: Any) -> None:
    caches = work / f"no_room_{when}"
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, when, *build_command(work)[3:]], cwd=work, env=environment(caches),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2, found.stderr
    (line,) = [line for line in found.stderr.splitlines() if "teacher's views" not in line]
    assert line.startswith("Error: cannot write the teacher cache in ")
    assert "DISCO_ZOO_CACHE" in line
    cache = build(work, caches)
    assert (cache.path.name, content(cache)) == whole


FAILING = """
import os, sys
from disco_zoo.cli import main
from disco_zoo.errors import BadCache
from disco_zoo.teacher_cache import build
former = build._do_block
def fail(cache, block, *rest):
    if block.first == 64:
        raise BadCache("no room at the second process")
    return former(cache, block, *rest)
if os.environ["RANK"] == "1":
    build._do_block = fail
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_fails_ends_all_with_its_message(work: Path) -> None:
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING, *build_command(work)[3:]], cwd=work, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment(work / "failing", **common, RANK=str(n), LOCAL_RANK=str(n)),
        )
        for n in range(2)
    ]  # fmt: skip
    (first, _, first_err), (second, _, second_err) = finish(started)
    assert (first, second) == (2, 2)
    assert first_err.splitlines()[-1] == "Error: process 1 stopped: no room at the second process"
    assert second_err.splitlines()[-1] == "Error: no room at the second process"


def test_a_second_build_waits_for_the_first(work: Path, whole: Any) -> None:
    first = CacheFolder(work / "shared" / "teacher_views" / whole[0])
    with first.claimed():
        second = subprocess.Popen(
            build_command(work), cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(work / "shared"),
        )  # fmt: skip
        assert second.stderr is not None
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
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    arguments = ("train", recipe, "--data", work / "toy_train.parquet", "--steps", 4, "--out", tmp_path / "two")
    results = finish([
        subprocess.Popen(
            command(*arguments, "--device", "cpu", "--workers", 0), cwd=tmp_path, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(tmp_path / "caches2", **common, RANK=str(n), LOCAL_RANK=str(n), LOCAL_WORLD_SIZE="2"),
        )
        for n in range(2)
    ])  # fmt: skip
    assert [code for code, _, _ in results] == [0, 0], results
    two = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    for key, value in one["method"].items():
        torch.testing.assert_close(two["method"][key], value, atol=1e-5, rtol=0, msg=key)
    assert content(only_cache(tmp_path / "caches")) == content(only_cache(tmp_path / "caches2"))
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert facts["teacher"]["caches"] == [{"id": only_cache(tmp_path / "caches2").path.name, "views": 2}]


@pytest.mark.slow
def test_cached_runs_killed_at_random_moments_end_as_an_undisturbed_one(work: Path, tmp_path: Path) -> None:
    chance = random.Random(9)
    recipe = toy_recipe_file(
        tmp_path, "disco", optim__epochs=3, teacher__cache_views=4, log__checkpoint_every_steps=3,
        student__model="dropping_student",
    )  # fmt: skip
    script = "import sys, tiny_runs; from disco_zoo.cli import main; sys.exit(main(sys.argv[1:]))"

    def run(out: str, *more: object) -> subprocess.Popen[str]:
        arguments = ("train", recipe, "--data", work / "toy_train.parquet", "--out", tmp_path / out, "--workers", 1)
        return subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments), "--device", "cpu", *map(str, more)], cwd=tmp_path,
            text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(tmp_path / f"caches_{out}"),
        )  # fmt: skip

    straight = run("straight")
    _, shown = straight.communicate(timeout=300)
    assert straight.returncode == 0, shown
    for _ in range(10):
        begun = (tmp_path / "killed" / "checkpoint.pt").is_file()
        process = run("killed", *(["--resume"] if begun else []))
        time.sleep(chance.uniform(3.0, 9.0))
        process.kill()
        process.communicate()
    begun = (tmp_path / "killed" / "checkpoint.pt").is_file()
    last = run("killed", *(["--resume"] if begun else []))
    _, shown = last.communicate(timeout=300)
    assert last.returncode == 0, shown
    states = [torch.load(tmp_path / out / "checkpoint.pt", weights_only=True) for out in ("straight", "killed")]
    for state in states:
        for clock in ("seconds", "data_wait_seconds"):
            state["position"].pop(clock)
    assert differences(*states) == []
    assert len(os.listdir(tmp_path / "caches_killed" / "teacher_views")) == 1
