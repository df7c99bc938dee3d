"""The zoo's names are in timm whenever both packages are imported, and no sooner is torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LISTED = "print(timm.list_models('disco_r34'))"


def python(code: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=folder
    ).stdout


@pytest.mark.parametrize(
    "code",
    [
        f"import disco_zoo, timm; {LISTED}",
        f"import timm, disco_zoo; {LISTED}",
        f"import disco_zoo; from timm.models import list_models; import timm; {LISTED}",
        # as libraries ask whether timm is installed
        f"import disco_zoo, importlib.util; importlib.util.find_spec('timm'); import timm; {LISTED}",
        f"import sys; sys.argv[0] = 'disco-zoo'; import disco_zoo, timm; {LISTED}",
    ],
    ids=["before timm", "after timm", "by a submodule of timm", "after a search for timm", "in a program of any name"],
)
def test_the_students_are_registered(code: str, tmp_path: Path) -> None:
    assert python(code, tmp_path).strip() == "['disco_r34']"


def test_the_package_alone_imports_neither_torch_nor_timm(tmp_path: Path) -> None:
    code = "import disco_zoo, sys; disco_zoo.list_models(); print({'timm', 'torch'} & set(sys.modules))"
    assert python(code, tmp_path).strip() == "set()"


def test_the_hook_is_gone_once_it_has_worked(tmp_path: Path) -> None:
    code = "import sys; before = [*sys.meta_path]; import disco_zoo, timm; print(sys.meta_path == before)"
    assert python(code, tmp_path).strip() == "True"
