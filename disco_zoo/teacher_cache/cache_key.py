"""The key of a cache: plain values that determine its rows. Other values make another cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

ROW_TYPE = "<f2"


@dataclass(frozen=True)
class CacheKey:
    """The key of one cache.

    Attributes:
        values: plain values by name; equal values mean equal rows.
    """

    values: dict[str, Any]

    @property
    def id(self) -> str:
        """Sixteen hex digits, the name of the folder."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]
