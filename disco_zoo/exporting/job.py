"""One export from what a user asked for: checked before the work, compared after it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from disco_zoo.core.console import console
from disco_zoo.data.dataset import ImageSource, require_index, require_same_classes
from disco_zoo.data.image_list import open_images
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_test_beside
from disco_zoo.data.subsets import labeled_part
from disco_zoo.errors import BadData, BadRunFolder, CannotWrite, counted
from disco_zoo.exporting.loss import Int8Loss, classes_of, int8_loss, some_of
from disco_zoo.exporting.onnx_file import (
    MOST_IMAGES,
    Kind,
    Ranges,
    calibration_batches,
    calibration_size,
    require_onnx,
    whole_batches,
    write_int8,
    write_onnx,
)
from disco_zoo.exporting.openvino_file import (
    require_nncf,
    require_openvino,
    weights_path,
    write_openvino,
    write_openvino_int8,
)
from disco_zoo.exporting.subject import TOLERANCE, Subject
from disco_zoo.exporting.timmx_file import FORMATS, facts_path, require_timmx, write_timmx
from disco_zoo.exporting.torch_file import write_torch, write_torchvision
from disco_zoo.training.run_facts import native_architecture

Format = Literal["onnx", "torch", "openvino", "torchvision", "coreml", "executorch", "litert", "ncnn", "tensorrt"]
SUFFIXES: dict[str, str] = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "openvino": ".xml",
    "torchvision": ".pth",
    **{kind: chosen.suffix for kind, chosen in FORMATS.items()},
}


@dataclass(frozen=True)
class Int8Plan:
    """How to quantise, and the images to calibrate and to measure with.

    Attributes:
        calibration: of the ranges; at most `calibration_indices` of them, see `calibration_size`.
        train, test: what the loss is measured on; `train` only where both have labels.
    """

    kind: Kind
    ranges: Ranges
    calibration: ImageSource
    calibration_indices: list[int]
    test: ImageSource
    test_indices: list[int]
    train: ImageSource | None
    train_indices: list[int]


@dataclass(frozen=True)
class Exported:
    """The written file and its comparison with PyTorch.

    Attributes:
        difference: the largest from PyTorch, as a share of the largest feature; None where no runtime runs here.
        facts: of the subject: what the file takes and gives, as it says inside.
        int8_path, int8_bytes, loss: of the int8 file, None without one.
    """

    path: Path
    size_bytes: int
    difference: float | None
    facts: dict[str, Any]
    int8_path: Path | None = None
    int8_bytes: int | None = None
    loss: Int8Loss | None = None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "out": str(self.path),
            "bytes": self.size_bytes,
            "largest_difference": self.difference,
        }
        if self.loss is not None:
            found["int8"] = {"out": str(self.int8_path), "bytes": self.int8_bytes, **self.loss.as_json()}
        return found | self.facts


def plan_int8(
    kind: Kind,
    *,
    data: str | None,
    eval_data: str | None,
    calibration: str | None,
    max_images: int,
    ranges: Ranges = "percentile",
) -> Int8Plan:
    """Open the images that quantisation needs.

    Args:
        data: measures the loss: by accuracy where it and its test images have labels, else by cosines.
        calibration: None for the training images of `data`.
        max_images: measured on, of each split.

    Raises:
        BadData: there are none, or they cannot be used.
    """
    if data is None and calibration is None:
        raise BadData(f"--int8 {kind} measures what it costs, on images. Add --data DATA, or --calibration IMAGES")
    train = open_source(data, "train") if data is not None else None
    source = open_images([calibration]) if calibration is not None else train
    assert source is not None
    test = open_test_beside(train, eval_data) if train is not None else None
    for opened in (train, test, source):
        if opened is not None:
            require_index(opened, "int8")
    chosen = some_of(source, MOST_IMAGES)
    labelled = train is not None and test is not None and train.labels is not None and test.labels is not None
    measured = test or train or source
    skip = chosen if measured is source else []
    return Int8Plan(
        kind,
        ranges,
        source,
        chosen,
        measured,
        some_of(measured, max_images, skip),
        labeled_part(train) if train is not None and labelled else None,
        some_of(labeled_part(train), max_images) if train is not None and labelled else [],
    )


def require_free(path: Path, write_over: bool) -> None:
    """Find a path that cannot be written before the work.

    Raises:
        BadRunFolder: a file is there already.
        CannotWrite: no permission, a folder of this name, or a file where a folder should be.
    """
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder. Choose another --out")
    if path.exists() and not write_over:
        raise BadRunFolder(f"{path} is there already. Choose another --out, or add --yes to write over it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CannotWrite(f"Cannot write {path}: {error.strerror}. Choose another --out") from error


def int8_path(path: Path) -> Path:
    """Where the int8 file goes: `model.int8.onnx` beside `model.onnx`."""
    return path.with_name(f"{path.stem}.int8{path.suffix}")


def require_all(kind: Format, out: Path, int8: Kind | None, write_over: bool) -> None:
    """Everything that can be known to fail before a model is loaded.

    Raises:
        BadData: a combination that makes no sense.
        BadRunFolder, CannotWrite: see `require_free`.
        MissingExtra: the format's packages are missing.
    """
    if out.suffix not in (SUFFIXES[kind], *([".safetensors"] if kind == "torchvision" else [])):
        asked = "--keys torchvision" if kind == "torchvision" else f"--format {kind}"
        raise BadData(f"{out} must end in {SUFFIXES[kind]} for {asked}")
    if int8 is not None and kind not in ("onnx", "openvino"):
        raise BadData("--int8 is made by ONNX Runtime and OpenVINO. Type: --format onnx, or --format openvino")
    if kind == "openvino" and int8 == "dynamic":
        raise BadData("OpenVINO's int8 needs ranges of activations. Type: --int8 static --calibrate IMAGES")
    if kind in FORMATS:
        require_timmx(kind)
        require_free(facts_path(out), write_over)
        if out.is_dir() and write_over and facts_path(out).is_file():  # a folder of ours, as ncnn's
            return
    if kind in ("onnx", "openvino"):
        require_onnx()
    made = [out] if int8 is None else [out, int8_path(out)]
    if kind == "openvino":
        require_openvino()
        if int8 is not None:
            require_nncf()
        made += [*map(weights_path, made)]
    for path in made:
        require_free(path, write_over)


def export_subject(
    subject: Subject,
    kind: Format,
    out: Path,
    *,
    tolerance: float = TOLERANCE,
    int8: Int8Plan | None = None,
    workers: int = 0,
) -> Exported:
    """Write the file, and the int8 one beside it.

    Raises:
        BadData: labelled images of classes that a classifier does not know, or training and test images of different
            classes where kNN is to compare them.
        CannotExport: unsupported operations, or a file that computes something else; it is not kept.
        CannotWrite: no room or no permission.
    """
    if int8 is not None and subject.label_names is not None:
        classes_of(subject, int8.test)
        int8 = replace(int8, train=None, train_indices=[])
    elif int8 is not None and int8.train is not None:
        require_same_classes(int8.train, int8.test)
    console.print(f"writing {out.name} and comparing it with PyTorch ...", soft_wrap=True)
    difference = _write(subject, kind, out, tolerance)
    if int8 is None:
        return Exported(out, _bytes_of(out), difference, subject.facts())
    small = int8_path(out)
    # Evenly spread: the numbers are sorted, and files often by class.
    chosen = int8.calibration_indices[:: -(-len(int8.calibration_indices) // calibration_size(subject.image_size))]
    chosen = whole_batches(chosen) if kind == "onnx" else chosen
    batches = calibration_batches(subject, int8.calibration, chosen)
    if int8.kind == "static":
        console.print(f"int8: calibrating with {counted(len(chosen), 'image')} ...", soft_wrap=True)
    if kind == "openvino":
        write_openvino_int8(subject, out, small, batches)
    else:
        write_int8(subject, out, small, int8.kind, batches if int8.kind == "static" else None, int8.ranges)
    loss = int8_loss(subject, small, int8.test, int8.test_indices, int8.train, int8.train_indices, workers=workers)
    return Exported(out, _bytes_of(out), difference, subject.facts(), small, _bytes_of(small), loss)


def _write(subject: Subject, kind: Format, out: Path, tolerance: float) -> float | None:
    """The largest difference from PyTorch, None where nobody can compare."""
    if kind in FORMATS:
        return write_timmx(subject, kind, out, tolerance)
    if kind == "torchvision":
        return write_torchvision(subject, native_architecture(subject.named.network.partition(".")[0]), out, tolerance)
    writers = {"torch": write_torch, "openvino": write_openvino, "onnx": write_onnx}
    return writers[kind](subject, out, tolerance)


def _bytes_of(path: Path) -> int:
    """Of a file with its weights beside it, or of a folder."""
    parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    parts += [weights_path(path)] if path.suffix == ".xml" else []
    return sum(part.stat().st_size for part in parts)
