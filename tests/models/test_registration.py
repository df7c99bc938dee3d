"""The zoo's names are in timm whenever both packages are imported, and no sooner is torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from slow_params import slow_but

import disco_zoo

LISTED = "print(timm.list_models('disco_r34'))"
# Each in a process that has not seen timm, forked once torch is there, which is what takes long.
CASES = {
    "before timm": f"import disco_zoo, timm; {LISTED}",
    "after timm": f"import timm, disco_zoo; {LISTED}",
    "by a submodule of timm": f"import disco_zoo; from timm.models import list_models; import timm; {LISTED}",
    "after a search for timm":  # as libraries ask whether timm is installed
    f"import disco_zoo, importlib.util; importlib.util.find_spec('timm'); import timm; {LISTED}",
    "in a program of any name": f"import sys; sys.argv[0] = 'disco-zoo'; import disco_zoo, timm; {LISTED}",
    # Each imports timm for the first time when it is half imported itself; `disco-zoo verify` begins so.
    "by the networks": f"import disco_zoo.networks.variants, timm; {LISTED}",
    "by the weights": f"import disco_zoo.weights.resolve, timm; {LISTED}",
    **{f"by {name}": f"import disco_zoo; disco_zoo.{name}; import timm; {LISTED}" for name in disco_zoo.__all__},
    "hook": "import sys; before = [*sys.meta_path]; import disco_zoo, timm; print(sys.meta_path == before)",
}
FORK_EACH = """
import os, sys, torch, torchvision
for code in sys.argv[1:]:
    assert "timm" not in sys.modules and "disco_zoo" not in sys.modules
    if not os.fork():
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0, code
"""


def python(*arguments: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=280, check=True, cwd=folder
    ).stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    """What each case that is tested prints."""
    tested = [item for item in request.session.items if "printed" in getattr(item, "fixturenames", ())]
    cases = sorted({item.callspec.params["case"] for item in tested})  # type: ignore[attr-defined]
    codes = [CASES[case] for case in cases]
    lines = python("-c", FORK_EACH, *codes, folder=tmp_path_factory.mktemp("cases")).splitlines()
    return dict(zip(cases, lines, strict=True))


FAST = ["before timm", "after timm", "by a submodule of timm", "by the networks", "by the weights", "by verify_weights"]


@pytest.mark.parametrize("case", slow_but([case for case in CASES if case != "hook"], FAST))
def test_the_students_are_registered(case: str, printed: dict[str, str]) -> None:
    assert printed[case] == "['disco_r34']"


@pytest.mark.parametrize("case", ["hook"])
def test_the_hook_is_gone_once_it_has_worked(case: str, printed: dict[str, str]) -> None:
    assert printed[case] == "True"


def test_the_package_alone_imports_neither_torch_nor_timm(tmp_path: Path) -> None:
    code = "import disco_zoo, sys; disco_zoo.list_models(); print({'timm', 'torch'} & set(sys.modules))"
    assert python("-c", code, folder=tmp_path).strip() == "set()"
