"""ONNX files of a network: written by PyTorch's exporter, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.quiet import quiet
from disco_zoo.errors import CannotExport, first_line, require

INPUT = "images"


OUTPUT = "rows"


def write_network(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write a frozen network as it is, with a free batch size.

    Args:
        example: an input of two images.

    Raises:
        CannotExport: an operation that ONNX does not have.
    """
    try:
        _program(network, example, OUTPUT).save(path, external_data=False)
    except Exception as error:  # as above
        raise CannotExport(f"the network cannot become ONNX: {first_line(error)}") from error


def _program(network: nn.Module, example: Tensor, output: str) -> Any:
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        return torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes=({0: batch},),
        )


def session(path: Path, threads: int | None = None) -> Any:
    """Open a file in ONNX Runtime on the CPU, with `threads` threads (default: torch's number)."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns of what it optimises away
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runner(path: Path, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """The file as a function of a batch."""
    opened = session(path, threads)
    return lambda images: torch.from_numpy(opened.run(None, {INPUT: images.contiguous().numpy()})[0])
