"""Long parametrizations of which the default run takes some, and `make test-slow` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """`values`, tuples where there are several parameters, of which those that are not in `fast` are slow.

    Raises:
        ValueError: something in `fast` is no value.
    """
    values = list(values)
    if unknown := [value for value in fast if value not in values]:
        raise ValueError(f"no such parameter: {unknown}")
    return [value if value in fast else pytest.param(*_several(value), marks=pytest.mark.slow) for value in values]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
