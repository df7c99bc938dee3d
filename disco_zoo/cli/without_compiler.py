"""torchvision and timm without torch's compiler, in the process of a command, which then says its first line sooner.

At their import some modules ask `torch._dynamo` for a predicate or a decorator. That loads it with sympy, which takes
as long as all else of torch. While exactly these modules are executed a stand-in answers; then it goes, and who wants
the compiler imports it as ever. Programs that import this package are left alone: only a command's process calls this.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
ASKING = ("torchvision", "torchvision.tv_tensors", "timm.models.naflexvit")
TRIED = ("0.29.",)  # versions of torchvision; with others all is imported as ever


def spare_compiler() -> None:
    """From now on the modules of `ASKING` are imported without the compiler."""
    if ASKING[0] not in sys.modules:
        sys.meta_path.insert(0, _WithoutCompiler())


class _WithoutCompiler(MetaPathFinder):
    """Finds a module of `ASKING` as Python would, and executes it beside the stand-in; it goes with the last one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ASKING or COMPILER in sys.modules:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None or not importlib.metadata.version(ASKING[0]).startswith(TRIED):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            sys.modules.update(_stand_ins())
            try:
                execute(module)
            finally:
                _withdraw()
                if all(name in sys.modules for name in ASKING):
                    sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _StandIn(ModuleType):
    """What it does not have is the real module's, which then takes its place."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _stand_ins() -> dict[str, ModuleType]:
    compiler, parts = _StandIn(COMPILER), _StandIn(f"{COMPILER}.utils")
    vars(compiler).update(disable=_disabled, utils=parts, __path__=[])
    vars(parts).update(is_compile_supported=_is_compile_supported)
    return {COMPILER: compiler, parts.__name__: parts}


def _withdraw() -> None:
    for name in (COMPILER, f"{COMPILER}.utils"):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _real(name: str) -> ModuleType:
    _withdraw()
    return importlib.import_module(name)


def _is_compile_supported(device_type: Any) -> Any:
    return _real(f"{COMPILER}.utils").is_compile_supported(device_type)


def _disabled(fn: Any = None, recursive: bool = True, **settings: Any) -> Any:
    """`torch._dynamo.disable`; a function only gets the mark by which the compiler leaves it alone."""
    if fn is None and recursive:
        return _disabled
    if not callable(fn) or not recursive or isinstance(fn, type):
        return _real(COMPILER).disable(fn, recursive, **settings)
    fn._torchdynamo_disable = True
    return fn
