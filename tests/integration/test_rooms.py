"""The house: every module in a room, rooms small enough to look over, tests in rooms of the same names.

What rooms may import from which is `make layers`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tiny_runs import ROOT

PACKAGE, TESTS = ROOT / "disco_zoo", ROOT / "tests"
FILES_A_ROOM = 20
LINES_A_FUNCTION = 50  # from its first statement to its last
ENTRIES = {"__init__.py", "__main__.py", "errors.py"}  # that stand in no room
ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
TEST_FILES = sorted(TESTS.rglob("test_*.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return names | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_every_module_is_in_a_room() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == ENTRIES


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(PACKAGE).as_posix())
def test_a_room_says_what_it_is_for_and_can_be_looked_over(room: Path) -> None:
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert len([*room.glob("*.py")]) <= FILES_A_ROOM


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    rooms = {path.parent.relative_to(TESTS).as_posix() for path in TEST_FILES}
    assert rooms - {"integration", "slow"} <= {room.relative_to(PACKAGE).as_posix() for room in ROOMS}


def test_no_test_imports_another() -> None:
    names = {path.stem for path in TEST_FILES}
    guilty = {path.name: found for path in TESTS.rglob("*.py") if (found := imported(path) & names)}
    assert not guilty


def code_lines(function: ast.FunctionDef) -> int:
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def test_functions_can_be_looked_over() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}: {node.name}": code_lines(node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and code_lines(node) > LINES_A_FUNCTION
    }
    assert long == {}
