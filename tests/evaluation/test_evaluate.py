"""`disco_zoo.evaluate` refuses what a task would ignore, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.evaluate import TASKS, TASKS_OF_OPTION, evaluate

VALUES: dict[str, Any] = {
    "mode": "finetune",
    "fraction": 0.1,
    "ks": (5,),
    "epochs": 2,
    "lrs": (0.1,),
    "batch_size": 64,
    "crops": 2,
}


@pytest.mark.parametrize(
    ("task", "option"), [(task, name) for name, tasks in TASKS_OF_OPTION.items() for task in TASKS if task not in tasks]
)
def test_an_option_of_another_task_is_refused(task: Any, option: str) -> None:
    with pytest.raises(
        DiscoZooError, match=rf'^{option} belongs to task=".*, not "{task}"\. Leave {option} out'
    ) as found:
        evaluate("disco_effb0", "sample", task, **{option: VALUES[option]})
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 0}, {"lrs": (float("nan"),)}])
@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_probe_that_could_take_no_step_is_refused(options: dict[str, Any], mode: Any) -> None:
    protocol = "disco" if mode == "frozen" else "swav"
    with pytest.raises(DiscoZooError, match=r"Leave|positive --lr"):
        evaluate("disco_effb0", "sample", "semi", mode=mode, protocol=protocol, fraction=0.5, **options)


def test_no_neighbour_is_refused() -> None:
    with pytest.raises(DiscoZooError, match=r"one neighbour and more, not k=0\. Type: --k 1"):
        evaluate("disco_effb0", "sample", "knn", ks=(0,))
