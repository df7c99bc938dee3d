"""Shell completion as docs/quickstart.md turns it on: commands and options, without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_runs import ROOT, subprocess_environment

START = "import sys; from disco_zoo.cli import cli; cli.main(prog_name='disco-zoo')"
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


def completed(words: str) -> list[str]:
    """What a shell would offer for the last of these words."""
    typed = words.split(" ")
    environment = {"_DISCO_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", f"{START}"],
        env={**subprocess_environment(), **environment},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    assert f"_DISCO_ZOO_COMPLETE={shell}_source" in QUICKSTART or f"{shell}: {shell}_source" in QUICKSTART
    environment = {**subprocess_environment(), "_DISCO_ZOO_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True)
    assert "disco-zoo" in done.stdout, done.stderr  # bash says which version of it is too old


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("disco-zoo re", {"reproduce"}),
        ("disco-zoo train --tr", {"--tracker"}),
        ("disco-zoo export disco_effb0 --format open", {"openvino"}),
        ("disco-zoo evaluate k", {"knn"}),
    ],
)
def test_commands_options_and_choices_are_completed(words: str, expected: set[str]) -> None:
    assert set(completed(words)) == expected
