"""CPU latencies for the page: what `disco-zoo export --table --json` printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.errors import BadData


@dataclass(frozen=True)
class Latencies:
    """Milliseconds a picture by ONNX Runtime, by architecture, and what they were taken on."""

    milliseconds: dict[str, float]
    note: str


def read_latencies(path: Path) -> Latencies:
    """Read the file.

    Raises:
        BadData: it is not there, or no such file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        milliseconds = {row["model"]: float(row["onnx"]["median_ms"]) for row in values["rows"]}
        return Latencies(milliseconds, str(values.get("note", "")))
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{path} holds no latencies. Make it by: disco-zoo export --table --json > {path}") from error
