"""disco_zoo: small self-supervised vision backbones as timm models.

    import disco_zoo, timm
    model = timm.create_model("disco_effb0", pretrained=True)

Importing this package registers the students in timm, which imports torch and takes seconds. In the command line
(`disco-zoo`, `python -m disco_zoo`) it does not: `--help` and `list` must answer at once, and a command that needs
models registers them itself by importing `disco_zoo.models.disco_students`. For the same reason the public names below
are imported on first use (PEP 562).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

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


def _is_command_line() -> bool:
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m":  # Python still looks for the module that it shall start: this one, or one that imports it
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == __name__
    return os.path.basename(program) in ("disco-zoo", "disco-zoo.exe")


if not _is_command_line():
    from disco_zoo.models import disco_students as disco_students
