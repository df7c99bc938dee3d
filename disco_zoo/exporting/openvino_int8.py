"""Eight-bit OpenVINO files by NNCF: weights per channel, activations by the ranges of real images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from disco_zoo.core.files import scratch_folder, why_not_written
from disco_zoo.core.quiet import quiet
from disco_zoo.errors import CannotExport, CannotWrite, first_line, require
from disco_zoo.exporting.int8 import check_runs
from disco_zoo.exporting.openvino_file import require_openvino, weights_path
from disco_zoo.exporting.subject import Subject
from disco_zoo.models.onnx_network import openvino_runner


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
    try:
        with scratch_folder(path.parent, path.stem) as scratch:
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
    except OSError as error:
        reason = why_not_written(error)
        if reason is None:
            raise
        raise CannotWrite(f"Cannot write {path}: {reason}. Choose another folder, or make room") from error
