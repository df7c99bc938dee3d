"""Registers the students in timm once timm is imported; until then this package imports neither timm nor torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_STUDENTS = "disco_zoo.models.disco_students"


def register_with_timm() -> None:
    """Register the zoo's models now where timm is imported, otherwise right after it will be."""
    if "timm" in sys.modules:
        importlib.import_module(_STUDENTS)
    else:
        sys.meta_path.insert(0, _AfterTimm())


class _AfterTimm(MetaPathFinder):
    """Finds timm as Python would, and registers the models once timm has been executed.

    It stays until then: whoever only asks whether timm is there (`importlib.util.find_spec`) does not import it.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            importlib.import_module(_STUDENTS)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
