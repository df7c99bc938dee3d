"""ONNX files: written by PyTorch's exporter, quantized to int8 by ONNX Runtime, run by it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from disco_zoo.core.console import quiet
from disco_zoo.core.files import write_out
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.errors import CannotExport, counted, first_line, require
from disco_zoo.exporting.subject import BATCH_SIZES, Runner, Subject, require_same
from disco_zoo.models.onnx_network import INPUT, exported_program, openvino_runner, runner, session
from disco_zoo.transforms.eval import eval_transform, normalize

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


Kind = Literal["dynamic", "static"]
Ranges = Literal["percentile", "minmax"]
CALIBRATION_BATCH = 16
# Histograms need all activations of the calibration in memory: some 2 GB of an EfficientNet-B1, at any input size.
MOST_IMAGES, FEWEST_IMAGES, FULL_SIDE = 256, 32, 96
# Share of the activations, in percent, that a range holds. EfficientNet-B0's features on CIFAR-10 have a mean cosine
# to float32 of 0.92 with it, of 0.90 with the 99.999 that ONNX Runtime takes, and of 0.83 with minima and maxima.
PERCENTILE = 99.99


def calibration_size(image_size: int) -> int:
    """How many images of this side, in pixels, to calibrate with."""
    return max(FEWEST_IMAGES, min(MOST_IMAGES, round(MOST_IMAGES * (FULL_SIDE / image_size) ** 2)))


def whole_batches(indices: list[int]) -> list[int]:
    """Those that fill batches of one size, as ONNX Runtime's histograms want them; all, if they do not fill one."""
    return indices[: len(indices) // CALIBRATION_BATCH * CALIBRATION_BATCH] or indices


def calibration_batches(subject: Subject, source: ImageSource, indices: Sequence[int]) -> Iterator[Tensor]:
    """Images as the network takes them, unreadable ones replaced by their neighbours; the last batch may be smaller."""
    transform = eval_transform(subject.image_size, subject.resize_size)
    for first in range(0, len(indices), CALIBRATION_BATCH):
        numbers = indices[first : first + CALIBRATION_BATCH]
        pixels = torch.stack([transform(load_or_replace(source, index)[0]) for index in numbers])
        yield pixels if subject.takes_pixels else normalize(pixels, subject.named.mean, subject.named.std)


def write_int8(
    subject: Subject,
    full: Path,
    path: Path,
    kind: Kind,
    calibration: Iterator[Tensor] | None = None,
    ranges: Ranges = "percentile",
) -> None:
    """Quantise the ONNX file `full` to `path`. It keeps the metadata, and runs batches of any size.

    Weights are int8 per output channel and activations uint8 when static, which CPUs are fastest with; when dynamic
    both are uint8, the one kind that ONNX Runtime convolves with.

    Args:
        kind: static needs `calibration`, batches of real images.
        ranges: of activations, when static: what most of them lie in, or all ("minmax").

    Raises:
        CannotExport: something in the network cannot be quantised, or the result cannot run.
        CannotWrite: no room or no permission.
    """
    quantization = require("onnxruntime.quantization", "export")
    prepare = require("onnxruntime.quantization.shape_inference", "export").quant_pre_process

    def write(partial: Path) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder, quiet():
                prepared = Path(folder) / "prepared.onnx"
                # Its symbolic shapes stumble over transformers; PyTorch's exporter has written the shapes already.
                prepare(str(full), str(prepared), skip_symbolic_shape=True)
                if kind == "dynamic":
                    unsigned = quantization.QuantType.QUInt8
                    quantization.quantize_dynamic(str(prepared), str(partial), weight_type=unsigned)
                else:
                    _quantize_static(quantization, prepared, partial, calibration, ranges)
        except OSError:
            raise
        except Exception as error:  # what it raises for a graph that it does not know is nearly anything
            hint = ". Try: --ranges minmax" if kind == "static" and ranges == "percentile" else ""
            raise CannotExport(f"{subject.named.name} cannot become int8: {first_line(error)}{hint}") from error
        try:
            run = runner(partial)
        except Exception as error:  # the runtime has its own
            raise _does_not_run(subject, error) from error
        check_runs(subject, run)

    write_out(path, write)


def _quantize_static(
    quantization: Any, prepared: Path, path: Path, calibration: Iterator[Tensor] | None, ranges: Ranges
) -> None:
    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            batch = next(calibration, None) if calibration is not None else None
            return None if batch is None else {INPUT: batch.contiguous().numpy()}

    methods = quantization.CalibrationMethod
    quantization.quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=methods.Percentile if ranges == "percentile" else methods.MinMax,
        extra_options={"CalibPercentile": PERCENTILE},
    )


def check_runs(subject: Subject, run: Runner) -> None:
    """Whether an int8 file runs batches of several sizes.

    Raises:
        CannotExport: it does not, or gives numbers that are not finite.
    """
    try:
        outputs = {batch: run(subject.example(batch)) for batch in BATCH_SIZES}
    except Exception as error:  # the runtime has its own
        raise _does_not_run(subject, error) from error
    for batch, output in outputs.items():
        if len(output) != batch or not torch.isfinite(output).all():
            raise CannotExport(
                f"the int8 file of {subject.named.name} gives no finite {subject.output} for {counted(batch, 'image')}"
            )


def _does_not_run(subject: Subject, error: Exception) -> CannotExport:
    return CannotExport(f"the int8 file of {subject.named.name} does not run: {first_line(error)}")
