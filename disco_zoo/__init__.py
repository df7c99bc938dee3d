"""disco_zoo: small self-supervised vision backbones as timm models.

    import disco_zoo, timm
    model = timm.create_model("disco_effb0", pretrained=True)

Importing this package imports neither torch nor timm: the students are registered when timm is imported, before or
after it, and the public names below are imported on first use (PEP 562). So `disco-zoo list` answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

from disco_zoo.models.registration import register_with_timm

_PUBLIC = {
    "Catalog": "zoo.catalog",
    "Checkpoint": "zoo.catalog",
    "DiscoZooError": "errors",
    "METHODS": "methods",
    "convert_checkpoint": "weights.official",
    "download_weights": "weights.official",
    "embed": "embedding.embed",
    "embed_batches": "embedding.embed_batches",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "extract_features": "embedding.embed",
    "finetune": "tasks.finetune.run",
    "list_models": "zoo.catalog",
    "load_catalog": "zoo.catalog",
    "load_detector": "tasks.detection.run",
    "load_model": "models.load",
    "load_recipe": "config.recipe",
    "load_segmenter": "tasks.segmentation.run",
    "publish_weights": "weights.publish.job",
    "render_card": "zoo.model_card",
    "reproduce": "reproduction.reproduce",
    "search": "embedding.search",
    "train": "training.train",
    "verify_all": "weights.verify",
    "verify_weights": "weights.verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from disco_zoo.core.environment import package_version

        return package_version()
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"disco_zoo.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'disco_zoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_timm()
