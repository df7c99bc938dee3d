"""The teacher's forward by ONNX Runtime, for building a cache on a CPU: the same rows in about half the time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.console import console
from disco_zoo.errors import BadCache, require
from disco_zoo.models.encoder import resized
from disco_zoo.models.onnx_network import network_bytes, runner
from disco_zoo.models.teacher import Teacher
from disco_zoo.transforms.eval import normalize

SMALLEST_COSINE = 0.9999  # between a row of PyTorch's and of ONNX Runtime's, of the first views


def engine_of_cache(engine: str, device: torch.device) -> str:
    """What computes the rows, as a cache's key names it: ONNX Runtime with its version, or "torch".

    Raises:
        MissingExtra: ONNX Runtime is asked for and not installed.
    """
    if engine == "torch" or device.type != "cpu":
        return "torch"
    for module in ("onnx", "onnxscript"):
        require(module, "export")
    return f"onnxruntime {require('onnxruntime', 'export').__version__}"


class OnnxRows:
    """Rows (n, D) of views uint8 (n, 3, S, S), as the teacher computes them.

    Args:
        teacher: frozen, on a CPU.
        size: side in pixels at which it looks at the views.
    """

    def __init__(self, teacher: Teacher, size: int) -> None:
        self.teacher, self.size, self._compared = teacher, size, False
        encoder = teacher.folded
        example = torch.zeros(2, 3, size, size)
        self._run = runner(network_bytes(nn.Sequential(encoder.backbone, encoder.head).eval(), example))

    def __call__(self, views: Tensor) -> Tensor:
        """Compute rows; those of the first views are compared with PyTorch's.

        Raises:
            BadCache: they differ.
        """
        encoder = self.teacher.encoder
        rows = self._run(normalize(resized(views, self.size), encoder.mean, encoder.std))
        if not self._compared:
            found = F.cosine_similarity(rows, self.teacher(views, self.size)).min().item()
            if not found >= SMALLEST_COSINE:  # also where it is no number
                raise BadCache(
                    f"ONNX Runtime and PyTorch differ about {self.teacher.title} (cosine {found:.4f}). "
                    "Type: --set teacher.cache_engine=torch"
                )
            self._compared = True
            console.print(f"teacher's views by ONNX Runtime: cosine to PyTorch's rows at least {found:.6f}")
        return rows
