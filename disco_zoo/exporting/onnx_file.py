"""ONNX files: written by PyTorch's exporter, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.files import write_out
from disco_zoo.errors import CannotExport, first_line, require
from disco_zoo.exporting.compare import require_same
from disco_zoo.exporting.subject import Subject
from disco_zoo.models.onnx_network import exported_program, openvino_runner, runner, session

LARGEST_BYTES = 2**31 - 2**20  # of one protobuf file


def require_onnx() -> None:
    """Find a missing package before the model is loaded.

    Raises:
        MissingExtra: one is not there.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "export")


def write_onnx(subject: Subject, path: Path, tolerance: float) -> float:
    """Write an ONNX file with a free batch size and the subject's facts as metadata, compared before it gets its name.

    Returns:
        The largest difference from PyTorch, see `largest_difference`.

    Raises:
        CannotExport: an operation that ONNX does not have, too large a network, or another result.
        CannotWrite: no room or no permission.
        MissingExtra: onnx, onnxscript or onnxruntime is missing.
    """
    require_onnx()
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in subject.network.state_dict().values())
    if size_bytes > LARGEST_BYTES:
        raise CannotExport(f"{subject.named.name} is larger than the 2 GB of an ONNX file. Type: --format torch")
    program = _exported(subject)
    for key, value in subject.facts_as_text().items():
        program.model.metadata_props[key] = value
    found = []

    def write(partial: Path) -> None:
        program.save(partial, external_data=False)
        found.append(require_same(subject, runner(partial), tolerance, "ONNX"))

    write_out(path, write)
    return found[0]


def _exported(subject: Subject) -> Any:
    try:
        return exported_program(subject.network, subject.example(2), subject.output)
    except Exception as error:  # what it raises for a network that it cannot follow is nearly anything
        raise CannotExport(
            f"{subject.named.name} cannot become ONNX: {first_line(error)}. Try: --format torch"
        ) from error


def metadata(path: Path) -> Mapping[str, str]:
    """The facts in a file, as strings."""
    found: dict[str, str] = dict(session(path, 1).get_modelmeta().custom_metadata_map)
    return found


class FileNetwork(nn.Module):
    """A file where a frozen network is wanted: normalised float images (B, 3, S, S) to features or scores (B, D).

    Args:
        path: of the ONNX or OpenVINO file.
        takes_pixels: whether the file wants uint8; then images are to come in 0..1, not normalised.
    """

    def __init__(self, path: Path, takes_pixels: bool) -> None:
        super().__init__()
        self._run = openvino_runner(path) if path.suffix == ".xml" else runner(path)
        self._takes_pixels = takes_pixels

    def forward(self, images: Tensor) -> Tensor:
        return self._run((images * 255).round().to(torch.uint8) if self._takes_pixels else images)
