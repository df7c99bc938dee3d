"""Progress off a terminal: a line now and then, and the last state once."""

from __future__ import annotations

import pytest
from rich.console import Console

from disco_zoo.core import console as progress
from disco_zoo.core.console import StepProgress, console, stdout_console


@pytest.fixture(autouse=True)
def piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(stderr=True, highlight=False))


@pytest.mark.parametrize("every_seconds", [0.0, 1000.0])
def test_the_last_state_is_printed_once(
    every_seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", every_seconds)
    with StepProgress("toy", 2) as bar:
        bar.advance(1, "loss 2")
        bar.advance(2, "loss 1")
        bar.advance(2, "loss 1, kNN 50 %")
    said = [line.replace("about 0 s left, ", "") for line in capsys.readouterr().err.splitlines()]
    last = "toy: 2/2, loss 1, kNN 50 %"
    assert said == (["toy: 1/2, loss 2", "toy: 2/2, loss 1", last] if every_seconds == 0 else [last])


def test_work_that_fails_leaves_the_word_to_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    bar = StepProgress("toy", 2)
    bar.advance(1, "loss 2")
    bar.__exit__(OSError, OSError("gone"), None)
    assert capsys.readouterr().err == ""
    bar.__exit__(None, None, None)
    assert "toy: 1/2" in capsys.readouterr().err


def test_a_unit_stands_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress("measuring", 1) as bar:
        bar.update(12000, 12000)
    assert capsys.readouterr().err == "measuring: 12,000 of 12,000 images\n"
    with StepProgress("indexing", 0) as bar:
        bar.update(0, 3, "shards")
    assert capsys.readouterr().err == "indexing: 0 of 3 shards\n"


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "runs/effb0[seed0][/x]:cat:"
    console.print(name)
    stdout_console().print(name)
    assert capsys.readouterr() == (f"{name}\n", f"{name}\n")


def test_the_bar_of_a_terminal_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "console", Console(stderr=True, force_terminal=True, width=200))
    with StepProgress("effb0[seed0]", 1) as bar:
        bar.advance(1, "[/x]")
    shown = capsys.readouterr().err
    assert "effb0[seed0]" in shown
    assert "[/x]" in shown
