"""OpenVINO files (.xml with a .bin beside it): made of the ONNX graph, run on the CPU, quantized to int8 by NNCF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from disco_zoo.core.console import quiet
from disco_zoo.core.files import scratch_folder, writing
from disco_zoo.errors import CannotExport, first_line, require
from disco_zoo.exporting.onnx_file import check_runs, write_onnx
from disco_zoo.exporting.subject import Subject, require_same
from disco_zoo.models.onnx_network import openvino_runner

FACTS = "disco_zoo"  # where the facts lie in the file's rt_info


def require_openvino() -> Any:
    """Find a missing package before the model is loaded.

    Raises:
        MissingExtra: it is not there.
    """
    return require("openvino", "openvino")


def weights_path(path: Path) -> Path:
    """The .bin that belongs to a .xml."""
    return path.with_suffix(".bin")


def write_openvino(subject: Subject, path: Path, tolerance: float) -> float:
    """Write `path` and its .bin with a free batch size, float32 weights and the subject's facts, compared before.

    Returns:
        The largest difference from PyTorch, see `largest_difference`.

    Raises:
        CannotExport: an operation that ONNX or OpenVINO does not have, or another result.
        CannotWrite: no room or no permission.
        MissingExtra: openvino or a package of the extra `export` is missing.
    """
    openvino = require_openvino()
    with writing(path), scratch_folder(path.parent, path.stem) as scratch:
        graph, made = scratch / "graph.onnx", scratch / path.name
        write_onnx(subject, graph, tolerance)
        try:
            model = openvino.Core().read_model(graph)  # not convert_model, which reports its use
        except Exception as error:  # whatever its frontend raises
            raise CannotExport(f"OpenVINO cannot read {subject.named.name}: {first_line(error)}") from error
        for key, value in subject.facts_as_text().items():
            model.set_rt_info(value, [FACTS, key])
        openvino.save_model(model, made, compress_to_fp16=False)
        found = require_same(subject, openvino_runner(made), tolerance, "OpenVINO")
        weights_path(made).replace(weights_path(path))
        made.replace(path)  # last: who finds the .xml finds its .bin
    return found


def require_nncf() -> Any:
    """Find a missing package before the model is loaded.

    Raises:
        MissingExtra: it is not there.
    """
    with quiet():
        return require("nncf", "openvino")


def write_openvino_int8(subject: Subject, full: Path, path: Path, calibration: Iterator[Tensor]) -> None:
    """Quantise the OpenVINO file `full` to `path` and its .bin; it keeps the facts, and runs batches of any size.

    Activations are unsigned where they are not negative and signed elsewhere (NNCF's mixed preset), as SiLU, h-swish
    and their like want it.

    Args:
        calibration: batches of real images, as the network takes them.

    Raises:
        CannotExport: something in the network cannot be quantised, or the result cannot run.
        CannotWrite: no room or no permission.
        MissingExtra: see `require_nncf`.
    """
    nncf, openvino = require_nncf(), require_openvino()
    images = [image[None].contiguous().numpy() for batch in calibration for image in batch]
    with writing(path), scratch_folder(path.parent, path.stem) as scratch:
        made = scratch / path.name
        try:
            with quiet():
                model = nncf.quantize(
                    openvino.Core().read_model(full),
                    nncf.Dataset(images),
                    preset=nncf.QuantizationPreset.MIXED,
                    subset_size=len(images),
                )
                openvino.save_model(model, made, compress_to_fp16=False)
        except OSError:
            raise
        except Exception as error:  # what it raises for a graph that it does not know is nearly anything
            raise CannotExport(f"{subject.named.name} cannot become int8: {first_line(error)}") from error
        check_runs(subject, openvino_runner(made))
        weights_path(made).replace(weights_path(path))
        made.replace(path)
