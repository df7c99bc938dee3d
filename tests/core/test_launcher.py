"""A process that fails or is killed ends the run with a message, and torchrun's restart ends in the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from process_groups import finish, start_ranks
from safetensors.torch import load_file
from slow_params import slow_but
from tiny_runs import checkpoint_of, command, differences, subprocess_environment, toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.core import launcher as launch
from disco_zoo.core.distributed import peers
from disco_zoo.core.launcher import default_workers
from disco_zoo.errors import LostProcess

pytestmark = pytest.mark.usefixtures("one_thread")
SECONDS_TO_NOTICE = 60


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    toy_parquet(folder)
    toy_recipe_file(folder, "disco", student__model="dropping_student", log__checkpoint_every_steps=2)
    return folder


# `after_step` of a method is what every process comes through; the victim goes there.
VICTIM = """
import os, signal, sys
import tiny_runs  # registers the toy student
from disco_zoo.cli import entry_point
from disco_zoo.errors import BadData
from disco_zoo.methods.disco import DisCo

former = DisCo.after_step
steps = [0]
def after_step(method):
    former(method)
    steps[0] += 1
    first_time = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if os.environ["RANK"] == "1" and steps[0] == (1 if sys.argv[1] == "fail early" else 3) and first_time:
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1].startswith("fail"):
            raise BadData("the disk of this machine is gone")
DisCo.after_step = after_step
entry_point(sys.argv[2:])
"""


def typed(work: Path, out: Path) -> list[str]:
    data = work / "toy_train.parquet"
    return command("train", work / "toy_disco.yaml", "--data", data, "--device", "cpu", "--workers", 0, "--out", out)[
        3:
    ]


@pytest.mark.parametrize("how", slow_but(["fail", "fail early", "kill"], ["kill"]))
def test_the_other_process_says_so_and_does_not_wait(how: str, work: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    results = finish(start_ranks(2, [sys.executable, "-c", VICTIM, how, *typed(work, tmp_path / "run")], cwd=work))
    assert time.monotonic() - begun < SECONDS_TO_NOTICE
    (first, _, first_err), (second, _, second_err) = results
    assert first == 2, first_err
    assert first_err.splitlines()[-1].startswith("Error: another process of this run ended")
    assert "Traceback" not in first_err
    if how != "kill":
        assert (second, second_err.splitlines()[-1]) == (2, "Error: the disk of this machine is gone")
    if how == "fail early":
        assert first_err.splitlines()[-1].endswith("There was no checkpoint yet; repeat the command")
        assert not (tmp_path / "run" / "checkpoint.pt").exists()
        return
    assert first_err.splitlines()[-1].endswith("repeat the command with --resume")
    assert checkpoint_of(tmp_path / "run")["position"]["step"] == 2


def torchrun(work: Path, how: str, out: Path) -> subprocess.CompletedProcess[str]:
    script = work / "victim.py"
    script.write_text(VICTIM, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--max-restarts", "2", str(script), how]
    return subprocess.run(
        [*launcher, *typed(work, out)],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**subprocess_environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        pytest.param(["no_such_recipe"], "no_such_recipe", id="before they meet"),
        pytest.param(["toy_disco.yaml", "--set", "student.model=resnet18"], "3 processes", id="after they met"),
    ],
)
def test_a_mistake_that_all_processes_make_is_reported_once(mistake: list[str], words: str, work: Path) -> None:
    script = work / "patient.py"  # on a busy machine the first process may be seconds behind
    script.write_text(
        "import sys\nfrom disco_zoo import cli\nfrom disco_zoo.core import launcher\n"
        "launcher.GIVE_WAY_SECONDS = 100\ncli.entry_point(sys.argv[1:])",
        encoding="utf-8",
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [*launcher, str(script), "train", *mistake, "--data", "toy_train.parquet"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=120,
        env=subprocess_environment(),
        check=False,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.stderr
    assert words in lines[0]


@pytest.mark.parametrize(("local_rank", "waits"), [("0", False), ("1", True), (None, False)])
def test_a_process_that_is_alone_with_its_mistake_reports_it(
    local_rank: str | None, waits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(launch, "time", SimpleNamespace(sleep=slept.append))
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert main(["train", "no_such_recipe"]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert slept == [launch.GIVE_WAY_SECONDS] * waits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "fail"])
def test_torchrun_restarts_a_run_that_ends_in_the_same_bits(how: str, work: Path, tmp_path: Path) -> None:
    straight, disturbed = torchrun(work, "nothing", tmp_path / "a"), torchrun(work, how, tmp_path / "b")
    assert straight.returncode == 0, straight.stderr
    assert disturbed.returncode == 0, disturbed.stderr
    assert differences(checkpoint_of(tmp_path / "a"), checkpoint_of(tmp_path / "b")) == []
    students = [load_file(tmp_path / out / "student.safetensors") for out in ("a", "b")]
    assert differences(*students) == []
    if how == "fail":
        assert "the disk of this machine is gone" in disturbed.stderr


def test_a_restart_is_told_from_a_first_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"):
        assert not launch.was_restarted()
        for value, expected in (("0", False), ("2", True), ("", False)):
            monkeypatch.setenv(name, value)
            assert launch.was_restarted() is expected
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("count", "most", "store", "expected"),
    [("0", "1", "False", True), ("1", "1", "False", False), ("0", "1", "True", False), ("0", "0", "False", False)],
)
def test_a_launcher_with_restarts_left_starts_the_run_again(
    count: str, most: str, store: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RESTART_COUNT", count), ("MAX_RESTARTS", most), ("USE_AGENT_STORE", store)):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    assert launch.will_be_restarted() is expected


def test_a_restart_in_a_store_of_old_addresses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with launch.rendezvous_errors():
        pass
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(LostProcess, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"), launch.rendezvous_errors():
        raise AssertionError("nobody meets")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    with launch.rendezvous_errors():
        pass


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    assert default_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert default_workers() == 1


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), peers(lambda: "Go on"):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="closed by peer"), peers(lambda: "Go on"):  # alone there is no peer
        raise RuntimeError("Connection closed by peer")
    assert torch.distributed.is_available()
