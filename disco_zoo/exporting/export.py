"""A model by name as a file that other runtimes read: `disco_zoo.export`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from disco_zoo.core.launcher import default_workers
from disco_zoo.exporting.job import SUFFIXES, Exported, Format, export_subject, plan_int8, require_all
from disco_zoo.exporting.onnx_file import Kind, Ranges
from disco_zoo.exporting.subject import TOLERANCE, load_subject


def export(
    model: str,
    out: Path | str | None = None,
    *,
    kind: Format | None = None,
    int8: Kind | None = None,
    data: str | None = None,
    eval_data: str | None = None,
    calibration: str | None = None,
    ranges: Ranges = "percentile",
    max_images: int = 2000,
    features: bool = False,
    normalise_inside: bool = False,
    image_size: int | None = None,
    tolerance: float | None = None,
    workers: int | None = None,
    write_over: bool = False,
) -> Exported:
    """Write the backbone of a model, or a fine-tuned classifier, compared with PyTorch before it gets its name.

    Args:
        model: a zoo or timm name, a run folder, a teacher, an authors' file, or a fine-tuned classifier.
        out: a file with the format's suffix; None for MODEL with it.
        kind: "onnx", "torch", "openvino", "torchvision" (a state_dict under its names), or one of timmx's: "coreml",
            "executorch", "litert", "ncnn", "tensorrt"; None for what `out` says, else "onnx".
        int8: "dynamic" or "static": also an int8 file, whose loss is measured on `data`.
        data, eval_data, calibration, ranges, max_images: see `plan_int8`.
        features: of a classifier only the features.
        normalise_inside: the file takes uint8 pixels.
        image_size: pixels; None for the model's.
        tolerance: largest difference, as a share of the largest feature; None for 1e-4.

    Raises:
        UnknownName, WeightsError, BadCheckpoint: the model cannot be had.
        BadData, CannotExport, CannotWrite, MissingExtra: see `export_subject`.
    """
    path = None if out is None else Path(out)
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items() if name != "torchvision"}
    kind = kind or cast("dict[str, Format]", by_suffix).get("" if path is None else path.suffix, "onnx")
    path = path or Path(f"{Path(model).stem if '/' in model else model}{SUFFIXES[kind]}".replace(":", "_"))
    require_all(kind, path, int8, write_over)
    plan = None
    if int8 is not None:
        plan = plan_int8(
            int8, data=data, eval_data=eval_data, calibration=calibration, max_images=max_images, ranges=ranges
        )
    subject = load_subject(model, features=features, image_size=image_size, normalise_inside=normalise_inside)
    return export_subject(
        subject,
        kind,
        path,
        tolerance=TOLERANCE if tolerance is None else tolerance,
        int8=plan,
        workers=default_workers() if workers is None else workers,
    )
