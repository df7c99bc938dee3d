"""What a user sees of a mistake: one line."""

from __future__ import annotations


def only_error(stdout: str, stderr: str) -> str:
    assert stdout == ""
    assert "Traceback" not in stderr
    errors = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, stderr
    assert stderr.rstrip("\n").endswith(errors[0])
    return errors[0].removeprefix("Error: ")
