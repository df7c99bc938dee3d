"""One process works, the other waits as long as it takes, and hears of a failure."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_pair
from preparations import preparation
from tiny import tiny_teacher

from disco_zoo.core import distributed
from disco_zoo.core.distributed import Heartbeat, on_first_process
from disco_zoo.errors import BadData, DiscoZooError
from disco_zoo.methods.bingo_bags import teacher_bags


def test_one_process_just_works() -> None:
    done = []

    def work(beat: Heartbeat) -> None:
        beat()
        done.append(1)

    on_first_process(work)
    assert done == [1]


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.HEARTBEAT_SECONDS = 0.1
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {"worked": False}

    def work(beat: Heartbeat) -> None:
        found["worked"] = True
        for _ in range(8):
            time.sleep(0.05)
            beat()
        Path(folder, "result").write_text("whole")

    def fail(beat: Heartbeat) -> None:
        raise BadData("all images are gone")

    on_first_process(work)
    found["saw"] = Path(folder, "result").read_text()
    try:
        on_first_process(fail)
    except DiscoZooError as error:
        found["error"] = f"{type(error).__name__}: {error}"

    def hear_ctrl_c(beat: Heartbeat) -> None:
        raise KeyboardInterrupt

    try:
        on_first_process(hear_ctrl_c)
    except KeyboardInterrupt:
        found["interrupted"] = True
    found["bags"] = teacher_bags(tiny_teacher(), preparation(Path(folder, "run")), bag_size=3).tolist()
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("pair")
    run_pair(one_of_two, folder)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_the_first_of_two_works_and_the_other_sees_the_whole_result(pair: list[dict]) -> None:
    assert [found["worked"] for found in pair] == [True, False]
    assert [found["saw"] for found in pair] == ["whole", "whole"]


def test_a_failure_stops_both(pair: list[dict]) -> None:
    assert pair[0]["error"] == "BadData: all images are gone"
    assert pair[1]["error"] == "DiscoZooError: the first process stopped: all images are gone"


def test_ctrl_c_on_the_first_stops_both_as_such(pair: list[dict]) -> None:
    assert [found["interrupted"] for found in pair] == [True, True]


def test_two_processes_share_one_set_of_bags_equal_to_those_of_one(pair: list[dict], tmp_path: Path) -> None:
    one = teacher_bags(tiny_teacher(), preparation(tmp_path), bag_size=3)
    assert all(np.array_equal(found["bags"], one) for found in pair)
