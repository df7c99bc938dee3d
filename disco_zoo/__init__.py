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
    "Catalog": "disco_zoo.zoo.catalog",
    "Checkpoint": "disco_zoo.zoo.catalog",
    "DiscoZooError": "disco_zoo.errors",
    "convert_checkpoint": "disco_zoo.weights.official",
    "download_weights": "disco_zoo.weights.official",
    "list_models": "disco_zoo.zoo.catalog",
    "load_catalog": "disco_zoo.zoo.catalog",
    "publish_weights": "disco_zoo.weights.publish.job",
    "render_card": "disco_zoo.zoo.model_card",
    "verify_all": "disco_zoo.weights.verify",
    "verify_weights": "disco_zoo.weights.verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from disco_zoo.core.environment import package_version

        return package_version()
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'disco_zoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_timm()
