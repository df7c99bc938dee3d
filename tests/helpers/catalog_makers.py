"""A small valid catalog to break in tests."""

from __future__ import annotations

import datetime
from typing import Any


def measured(values: list[float], **changes: Any) -> dict[str, Any]:
    return {
        "subject": "student",
        "metric": "knn20_top1",
        "values": values,
        "seeds": list(range(len(values))),
        "protocol": "weighted kNN",
        "command": "disco-zoo reproduce effb0",
        "hardware": "2 cores",
        "date": datetime.date(2026, 1, 2),
    } | changes


def small_catalog() -> dict[str, Any]:
    """One valid row of everything."""
    licence = {"code": "Apache-2.0", "weights": "Apache-2.0", "teacher": "unknown", "data": "MIT"}
    row = {
        "method": "disco",
        "teacher": "t",
        "data": "d",
        "recipe": None,
        "summary": "A row",
        "licence": licence,
        "origin": "here",
        "input": {
            "size": 64,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
        },
        "weights": {"source": "none"},
        "measured": [measured([80.0, 81.0, 82.0])],
    }
    dataset = {
        "title": "D",
        "licence": "MIT",
        "num_train": 1,
        "num_test": 1,
        "num_classes": 1,
        "class_names": None,
    }
    architecture = {
        "short": "a",
        "native": "resnet18",
        "paper_name": "A",
        "feature_dim": 512,
        "default": "one",
    }
    return {
        "datasets": {"d": dataset | {"image_size": None, "url": "u", "hub_id": "h"}},
        "teachers": {"t": {"title": "T", "supervision": "unknown"}},
        "architectures": {"disco_a": architecture | {"params_millions": 1.0}},
        "checkpoints": {"disco_a.one": row},
    }
