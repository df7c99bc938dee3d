"""ONNX files of a network: written by PyTorch's exporters, run by ONNX Runtime."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.console import quiet
from disco_zoo.errors import CannotExport, first_line, require

INPUT = "images"


OUTPUT = "rows"


def network_bytes(network: nn.Module, example: Tensor) -> bytes:
    """A frozen network as ONNX, with a free batch size and its BatchNorm folded, for use here and now.

    Written by PyTorch's older exporter, which takes a second where the newer one takes fifteen (EfficientNet-B0);
    whoever relies on it compares what it computes. Where it is gone or fails, the newer one is asked.

    Args:
        example: an input of two images.

    Raises:
        CannotExport: an operation that ONNX does not have.
    """
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
            return path.read_bytes()
    except Exception:  # it raises nearly anything, and the other one has the last word
        return _newer_bytes(network, example)


def _newer_bytes(network: nn.Module, example: Tensor) -> bytes:
    try:
        model: bytes = exported_program(network, example, OUTPUT).model_proto.SerializeToString()
    except Exception as error:  # what it raises for a network that it cannot follow is nearly anything
        raise CannotExport(f"the network cannot become ONNX: {first_line(error)}") from error
    return model


def exported_program(network: nn.Module, example: Tensor, output: str) -> Any:
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


def session(model: Path | bytes, threads: int | None = None) -> Any:
    """Open a file, or its bytes, in ONNX Runtime on the CPU, with `threads` threads (default: torch's number)."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns of what it optimises away
    source = model if isinstance(model, bytes) else str(model)
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def runner(model: Path | bytes, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """The file, or its bytes, as a function of a batch."""
    opened = session(model, threads)
    return lambda images: torch.from_numpy(opened.run(None, {INPUT: images.contiguous().numpy()})[0])


def openvino_runner(model: Path | bytes, threads_each: int | None = None) -> Callable[[Tensor], Tensor]:
    """An ONNX or OpenVINO file, or an ONNX file's bytes, as a function of a batch, by OpenVINO on the CPU in float32.

    All calls together use torch's number of threads.

    Args:
        threads_each: of one call, where several threads call the function at once; None for all.

    Raises:
        MissingExtra: it is not installed.
    """
    openvino = require("openvino", "openvino")
    core = openvino.Core()
    threads = torch.get_num_threads()
    # Its own choice on processors with AMX would be bfloat16: other numbers.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    if threads_each is not None:
        settings["NUM_STREAMS"] = max(1, threads // threads_each)
    compiled = core.compile_model(
        core.read_model(io.BytesIO(model) if isinstance(model, bytes) else model), "CPU", settings
    )
    requests = threading.local()  # one cannot be used by two threads

    def run(images: Tensor) -> Tensor:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        return torch.from_numpy(requests.own.infer({0: images.contiguous().numpy()})[0].copy())

    return run
