"""Two processes over gloo: one queue, one set of weights, one writer; the same as one process with the joint batch."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run
from process_groups import NORM_FREE, finish, start_ranks, start_training
from tiny_runs import checkpoint_of, command, differences, toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.monitoring.online_health import health_records

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    toy_parquet(folder)
    toy_recipe_file(folder, "disco", **NORM_FREE)
    return folder


@pytest.fixture(scope="module")
def pair(base: Path) -> list[tuple[int, str, str]]:
    arguments = (base / "toy_disco.yaml", "--data", base / "toy_train.parquet", "--steps", 3)
    results = finish(start_training(2, *arguments, "--out", base / "two", cwd=base))
    assert [code for code, _, _ in results] == [0, 0], results
    single = run(command("train", *arguments, "--device", "cpu", "--workers", 0, "--out", base / "one"), cwd=base)
    assert single.returncode == 0, single.stderr
    return results


def test_two_processes_train_the_student_of_one_process_with_the_joint_batch(base: Path, pair: Any) -> None:
    one, two = checkpoint_of(base / "one"), checkpoint_of(base / "two")
    assert one["method"].keys() == two["method"].keys()
    for key, value in one["method"].items():
        torch.testing.assert_close(two["method"][key], value, atol=1e-5, rtol=0, msg=key)
    assert one["position"] == two["position"]


def test_joint_queue_is_in_the_order_of_the_joint_batch(base: Path, pair: Any) -> None:
    one, two = (checkpoint_of(base / name)["method"] for name in ("one", "two"))
    assert int(two["contrast.queue.position"]) == int(one["contrast.queue.position"]) == 3 * 8 % 20
    torch.testing.assert_close(two["contrast.queue.rows"], one["contrast.queue.rows"], atol=1e-5, rtol=0)


def test_only_the_first_process_prints_and_writes(base: Path, pair: list[tuple[int, str, str]]) -> None:
    (_, first_out, first_err), (_, second_out, second_err) = pair
    assert '"steps": 3' in first_out
    assert second_out == ""
    assert "3/3" in first_err
    assert second_err == ""
    lines = (base / "two" / "metrics.jsonl").read_text().splitlines()
    assert sum('"loss"' in line for line in lines) == 3
    assert sum('"knn20_top1"' in line for line in lines) == 1


def test_online_knn_is_that_of_one_process(base: Path, pair: Any) -> None:
    found = [[row["knn20_top1"] for row in read_metrics(base / name) if "knn20_top1" in row] for name in ("one", "two")]
    assert len(found[0]) == 1
    assert found[0] == found[1]


def test_what_is_watched_without_labels_is_that_of_one_process(base: Path, pair: Any) -> None:
    one, two = (health_records(base / name) for name in ("one", "two"))
    assert [row["step"] for row in two] == [row["step"] for row in one] == [0, 3]
    for own, joint in zip(one, two, strict=True):
        assert joint == pytest.approx(own, abs=0.01)
    assert two[0]["student_rank_bound"] == 12


WORKER = """
import sys
import torch
import torch.distributed as dist
from tiny_runs import toy_recipe, train
from pathlib import Path
from disco_zoo.training.trainer import Trainer

torch.set_num_threads(1)
former = Trainer.train
def train_and_look(trainer, **options):
    result = former(trainer, **options)
    seen = {"state": trainer.task.plain_method.state_dict(), "broadcast": [*trainer.task.method.named_module_buffers]}
    torch.save(seen, sys.argv[3] + f"/rank{dist.get_rank()}.pt")
    dist.barrier()  # the checkpoint is written
    return result
Trainer.train = train_and_look
recipe = toy_recipe("disco", student__model="dropping_student")
try:
    train(recipe, Path(sys.argv[1]), Path(sys.argv[2]), steps=3)
finally:
    dist.destroy_process_group()
"""


def test_both_processes_hold_the_same_queue_and_weights(base: Path, tmp_path: Path) -> None:
    """With BatchNorm and dropout, so that nothing but communication can make them equal."""
    arguments = map(str, (base / "toy_train.parquet", tmp_path / "run", tmp_path))
    results = finish(start_ranks(2, [sys.executable, "-c", WORKER, *arguments], cwd=tmp_path))
    assert [code for code, _, _ in results] == [0, 0], results
    seen = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    first, second = (found["state"] for found in seen)
    # The queue stays equal although nobody broadcasts it, nor the running centre.
    batch_norm = {key for key in first if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert batch_norm
    assert {"contrast.queue.rows", "contrast.queue.position", "centre.mean"} <= first.keys() - batch_norm
    assert all({*found["broadcast"]} == batch_norm for found in seen)
    changed = differences(first, second)
    # BatchNorm's running statistics are each process's own until the next forward broadcasts the first one's.
    assert {key.rsplit(".", 1)[1] for key in changed} <= {"running_mean", "running_var"}
    assert differences(checkpoint_of(tmp_path / "run")["method"], first) == []
    randoms = checkpoint_of(tmp_path / "run")["random"]
    assert len(randoms) == 2
    assert differences(randoms[0], randoms[1]) != []  # other dropout masks on each process


def test_ctrl_c_seen_by_one_process_stops_both_after_the_same_step(base: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(tmp_path, "disco", **{**NORM_FREE, "log__knn_every_epochs": 0, "optim__epochs": 400})
    arguments = (recipe, "--data", base / "toy_train.parquet", "--out", tmp_path / "run")
    processes = start_training(2, *arguments, cwd=tmp_path)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGINT)
    results = finish(processes)
    assert [code for code, _, _ in results] == [130, 130], results
    step = checkpoint_of(tmp_path / "run")["position"]["step"]
    assert f"stopped at step {step} of 1200" in results[0][2]
    results = finish(start_training(2, *arguments, "--resume", "--steps", step + 2, cwd=tmp_path))
    assert [code for code, _, _ in results] == [0, 0], results
    assert checkpoint_of(tmp_path / "run")["position"]["step"] == step + 2


@pytest.mark.parametrize(("first", "then"), [pytest.param(1, 2, marks=pytest.mark.slow), (2, 1)])
def test_another_number_of_processes_goes_on_with_the_run(
    first: int, then: int, base: Path, pair: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(base / {1: "one", 2: "two"}[first], folder)
    arguments = [base / "toy_disco.yaml", "--data", base / "toy_train.parquet", "--steps", 5, "--resume"]
    results = finish(start_training(then, *arguments, "--out", folder, cwd=tmp_path))
    assert [code for code, _, _ in results] == [0] * then, results
    plural = {1: "1 process", 2: "2 processes"}
    assert results[0][2].count(f"This run had {plural[first]}, now it has {then}. Nothing is lost") == 1
    for _, _, printed in results[1:]:
        assert printed == ""
    straight = tmp_path / "straight"
    shutil.copytree(base / "one", straight)
    (alone,) = finish(start_training(1, *arguments, "--out", straight, cwd=tmp_path))
    assert alone[0] == 0, alone
    assert "This run had" not in alone[2]
    found, expected = checkpoint_of(folder), checkpoint_of(straight)
    for key, value in expected["method"].items():
        torch.testing.assert_close(found["method"][key], value, atol=1e-5, rtol=0, msg=key)
    assert len(found["random"]) == then
    if then == 2:
        assert differences(*found["random"]) != []  # other dropout masks on each process


def test_reproduce_is_one_process_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["reproduce", "effb0"]) == 2
    assert "launch disco-zoo train RECIPE, then disco-zoo evaluate its run folder" in capsys.readouterr().err
