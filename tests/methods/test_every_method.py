"""What holds for every method: a resume to the bit, a teacher that stays as it was, two processes that equal one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from method_runs import OPTIONS, method_recipe
from process_groups import finish, start_ranks
from slow_params import slow_but
from tiny_runs import STEPS_PER_EPOCH, checkpoint_of, differences, toy_parquet, train

from disco_zoo.methods import METHODS
from disco_zoo.training.pretraining import Pretraining
from disco_zoo.zoo.papers import METHOD_PAPERS, METHOD_TITLES, PAPERS

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = STEPS_PER_EPOCH + 1  # in the middle of the second epoch
# One of each kind of communication: bags, queues, a memory of all images, assignments, pairs. Two processes of disco
# are in tests/training/test_distributed_run.py, statistics and relations in tests/core/test_autograd_collectives.py.
COMMUNICATING = ["bingo", "compress_2q_momentum", "crd", "disco_swav", "simclr"]
by_processes = pytest.mark.parametrize("method", slow_but(METHODS, COMMUNICATING))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def test_every_method_has_a_toy_run() -> None:
    assert set(OPTIONS) == set(METHODS)


# One of each kind of state; of disco and moco_v2 tests/training/test_resume.py proves it.
@pytest.mark.parametrize(
    "method", slow_but(METHODS, ["bingo", "compress_2q_momentum", "coss", "crd", "disco_swav", "seed"])
)
def test_resume_to_the_bit_with_an_untouched_teacher(
    method: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[Any] = []
    former = Pretraining.__init__

    def look(task: Pretraining, recipe: Any, parts: Any, *rest: Any, **options: Any) -> None:
        if parts.teacher is not None:
            state = parts.teacher.encoder.state_dict()
            teachers.append(({key: value.clone() for key, value in state.items()}, state, parts.teacher.encoder))
        former(task, recipe, parts, *rest, **options)

    monkeypatch.setattr(Pretraining, "__init__", look)
    recipe = method_recipe(method, student__model="dropping_student")
    straight = train(recipe, data, tmp_path / "straight")
    train(recipe, data, tmp_path / "run", steps=STEPS)
    torch.manual_seed(99)
    resumed = train(recipe, data, tmp_path / "run", resume=True)
    assert differences(straight, resumed) == []
    assert not any(key.startswith("teacher.") for key in straight["method"])
    assert bool(teachers) == METHODS[method].needs_teacher
    for before, after, encoder in teachers:
        assert differences(before, after) == []
        assert not any(module.training for module in encoder.modules())
        assert not any(parameter.requires_grad for parameter in encoder.parameters())


WORKER = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from method_runs import method_recipe
from tiny_runs import train
from disco_zoo.core.distributed import rank
from disco_zoo.training.trainer import Trainer

torch.set_num_threads(1)
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
changes = {"student__model": "test_convnext", "optim__base_lr": 0.3}
former = Trainer.train

def train_and_keep(trainer, **options):
    result = former(trainer, **options)
    torch.save(trainer.task.plain_method.state_dict(), trainer.folder.path / f"rank{rank()}.pt")
    return result

Trainer.train = train_and_keep
for method in sys.argv[3:]:
    train(method_recipe(method, **changes), data, folder / method, steps=4)
if dist.is_initialized():
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Every method that is tested, by one process and by one pair of processes; the student has no BatchNorm."""
    tested = [item for item in request.session.items if "runs" in getattr(item, "fixturenames", ())]
    methods = sorted({item.callspec.params["method"] for item in tested})  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("runs")
    one, two = ([sys.executable, "-c", WORKER, str(data), str(folder / name), *methods] for name in ("one", "two"))
    results = finish([*start_ranks(2, two, cwd=folder), Forked(one, cwd=folder)])
    assert [code for code, _, _ in results] == [0, 0, 0], results
    return folder


@by_processes
def test_two_processes_train_what_one_trains_on_the_joint_batch(method: str, runs: Path) -> None:
    one, two = (checkpoint_of(runs / name / method)["method"] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        # The same to 1e-6 after two steps; at this rate each further one makes ten times of a rounding.
        torch.testing.assert_close(two[key], value, atol=1e-4, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


@by_processes
def test_both_processes_hold_the_same_state_though_only_batch_norms_is_broadcast(method: str, runs: Path) -> None:
    first, second = (torch.load(runs / "two" / method / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert differences(first, second) == []


def test_every_method_has_a_title_and_may_be_in_a_catalog() -> None:
    """So that a card can be made of a student of any method."""
    assert set(METHODS) <= set(METHOD_TITLES)
    assert set(METHOD_TITLES) - set(METHODS) == {"compress"}  # the authors' files do not say which of the three
    assert all(paper is None or paper in PAPERS for paper in METHOD_PAPERS.values())
    assert len(set(METHOD_TITLES.values())) == len(METHOD_TITLES)
