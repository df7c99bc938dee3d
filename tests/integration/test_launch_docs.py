"""Every command in docs/launch.md is one that its launcher and this package understand."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from disco_zoo.cli import cli
from disco_zoo.config.recipe import find_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "launch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|slurm)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [
    line for kind, block in BLOCKS for line in block.splitlines() if "disco_zoo" in line and "export" not in line
]
(SCRIPT,) = [block for kind, block in BLOCKS if kind == "slurm"]


def test_the_page_shows_one_machine_several_and_slurm() -> None:
    assert len(COMMANDS) == 5
    assert {line.split()[0] for line in COMMANDS} == {"torchrun", "accelerate", "srun"}


@pytest.mark.parametrize("line", COMMANDS)
def test_launcher_and_package_understand_the_command(line: str) -> None:
    words = shlex.split(re.sub(r"\$\w+", "2", line).removeprefix("srun "))
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
        assert given.module
        script, rest = given.training_script, given.training_script_args
    else:
        assert words[:2] == ["accelerate", "launch"]
        given = launch_command_parser().parse_args(words[2:])
        assert given.module
        script, rest = given.training_script, given.training_script_args
    assert script == "disco_zoo"
    understood = _parse(cli, rest)
    assert find_recipe(understood["recipe"]).is_file()


def _parse(command: click.Command, words: list[str]) -> dict[str, Any]:
    """The values of a command's parameters; raises where click would refuse them."""
    if isinstance(command, click.Group):
        child = command.get_command(click.Context(command), words[0])
        assert child is not None, words
        return _parse(child, words[1:])
    return command.make_context("disco-zoo", list(words)).params


def test_the_slurm_script_is_a_shell_script_with_options_that_agree() -> None:
    subprocess.run(["bash", "-n"], input=SCRIPT, text=True, check=True)
    lines = SCRIPT.splitlines()
    assert lines[0] == "#!/bin/bash"
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    assert options["ntasks-per-node"] == "1"  # torchrun starts the processes
    (launch,) = [line for line in lines if line.startswith("srun")]
    assert f"--nproc-per-node {options['gpus-per-node']} " in launch
    assert "requeue" in options
    assert "--max-restarts" in launch
