"""Settings for all tests: no network, few threads."""

from __future__ import annotations

import os

# Read when huggingface_hub is imported, hence before anything that imports timm.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HF_TOKEN", None)

import torch

torch.set_num_threads(2)
