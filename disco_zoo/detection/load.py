"""A trained detector from its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from disco_zoo.detection.network import build_detector
from disco_zoo.detection.run import DETECTOR
from disco_zoo.detection.settings import DetectionSettings
from disco_zoo.errors import BadCheckpoint, BadRunFolder
from disco_zoo.input_size import create_for_any_size
from disco_zoo.task_folder import SETTINGS, read_settings


def load_detector(folder: str | Path) -> tuple[Any, tuple[str, ...]]:
    """Load what `disco-zoo detect` trained.

    Returns:
        The detector in eval mode, which maps a list of float images (3, H, W) in 0..1 to boxes, labels and scores, and
        its class names: label n is name n - 1.

    Raises:
        BadRunFolder: the folder holds no trained detector.
        BadCheckpoint: the weights are damaged.
    """
    import disco_zoo.disco_students  # noqa: F401  registers the zoo's names

    folder = Path(folder).expanduser()
    facts, settings = read_settings(folder, "run.json"), read_settings(folder, SETTINGS)
    if not (folder / DETECTOR).is_file() or "figures" not in facts:
        raise BadRunFolder(f"{folder} holds no trained detector. Type: disco-zoo detect MODEL --data D --out {folder}")
    own = {key: value for key, value in settings.items() if key in DetectionSettings.model_fields}
    detector = build_detector(
        create_for_any_size(facts["network"], pretrained=False, num_classes=0), len(facts["class_names"]),
        DetectionSettings.model_validate_json(json.dumps(own)), mean=facts["mean"], std=facts["std"],
        masks=settings["masks"], title=facts["network"],
    )  # fmt: skip
    try:
        detector.load_state_dict(load_file(folder / DETECTOR), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{folder / DETECTOR} is damaged: {reason}") from error
    return detector.eval(), tuple(facts["class_names"])
