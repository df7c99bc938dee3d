"""Formats of phones and accelerators, written by timmx (Apache-2.0): LiteRT, Core ML, ExecuTorch, ncnn, TensorRT.

timmx builds the network anew from timm's name and our tensors; its file is then compared with ours where its runtime
runs here. These files take one image at a time, and hold no facts: those lie beside them as .json.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from disco_zoo.core.console import quiet, quiet_process
from disco_zoo.core.files import scratch_folder, writing
from disco_zoo.errors import BadData, CannotExport, DiscoZooError, MissingExtra, first_line, require
from disco_zoo.exporting.subject import Runner, Subject, require_same


@dataclass(frozen=True)
class TimmxFormat:
    """What timmx is told, and how its file is run here.

    Attributes:
        options: of timmx's command; float32, and our comparison in place of its own.
        runner: of the file; None where no runtime for it runs on this system.
        elsewhere: why there is none.
    """

    suffix: str
    options: Mapping[str, Any]
    runner: Callable[[Path], Callable[[Tensor], Any]] | None
    elsewhere: str = ""


def _ncnn(path: Path) -> Callable[[Tensor], Any]:
    ncnn = require("ncnn", "timmx")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.load_param(str(path / "model.ncnn.param"))
    net.load_model(str(path / "model.ncnn.bin"))

    def run(image: Tensor) -> Any:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image[0].contiguous().numpy()).clone())
        return extractor.extract("out0")[1].numpy().copy()

    return run


def _litert(path: Path) -> Callable[[Tensor], Any]:
    interpreter = require("ai_edge_litert.interpreter", "timmx").Interpreter(model_path=str(path))
    signature = interpreter.get_signature_runner("serving_default")
    (name,) = signature.get_input_details()
    return lambda image: next(iter(signature(**{name: image.contiguous().numpy()}).values()))


def _executorch(path: Path) -> Callable[[Tensor], Any]:
    program = require("executorch.runtime", "timmx").Runtime.get().load_program(str(path))
    method = program.load_method("forward")
    return lambda image: method.execute([image.contiguous()])[0].clone()


FORMATS: dict[str, TimmxFormat] = {
    "coreml": TimmxFormat(".mlpackage", {"compute_precision": "float32"}, None, "Core ML runs on macOS alone"),
    "executorch": TimmxFormat(".pte", {"verify": False}, _executorch),
    "litert": TimmxFormat(".tflite", {"verify": False}, _litert),
    "ncnn": TimmxFormat(".ncnn", {"fp16": False, "verify": False}, _ncnn),
    "tensorrt": TimmxFormat(".engine", {}, None, "timmx compared it on the GPU, by the cosine of one random image"),
}


def require_timmx(kind: str) -> Any:
    """Find what is missing before the model is loaded; return timmx.

    Raises:
        MissingExtra: timmx, or what it needs for this format.
    """
    timmx = require("timmx", "timmx")
    with quiet():
        status = require("timmx.export", "timmx").create_builtin_registry().get(kind).check_dependencies()
    if not status.available:
        missing = " and ".join(status.missing_packages)
        raise MissingExtra(f"--format {kind} needs {missing}, which timmx does not find. Type: {status.install_hint}")
    return timmx


def facts_path(path: Path) -> Path:
    """The .json beside such a file."""
    return path.with_name(f"{path.name}.json")


def write_timmx(subject: Subject, kind: str, path: Path, tolerance: float) -> float | None:
    """Write `path`, float32, one image at a time, with the facts beside it, compared before where that is possible.

    Returns:
        The largest difference from PyTorch, see `largest_difference`; None where no runtime runs here.

    Raises:
        BadData: a subject that takes pixels.
        CannotExport: timmx cannot, or the file computes something else.
        CannotWrite: no room or no permission.
        MissingExtra: see `require_timmx`.
    """
    timmx, chosen = require_timmx(kind), FORMATS[kind]
    if subject.takes_pixels:
        raise BadData(f"--normalise-inside is for onnx, torch and openvino, not for {kind}")
    with writing(path), scratch_folder(path.parent, path.stem) as scratch:
        made = scratch / path.name
        source = _timm_folder(subject, scratch / "timm")
        _convert(timmx, subject, kind, source, made)
        found = None if chosen.runner is None else require_same(subject, _runner(chosen, made), tolerance, kind)
        with suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        facts = subject.facts() | {"batch": 1}
        facts_path(path).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        made.replace(path)
    return found


def why_not_compared(suffix: str) -> str:
    """In words, for a file that `write_timmx` gives no difference of."""
    return next(chosen.elsewhere for chosen in FORMATS.values() if chosen.suffix == suffix)


def _convert(timmx: Any, subject: Subject, kind: str, source: Path, made: Path) -> None:
    side = subject.image_size
    options = {"verify": platform.system() == "Darwin"} if kind == "coreml" else {}
    try:
        with quiet_process():
            timmx.export_model(
                kind,
                f"local-dir:{source}",
                pretrained=True,
                num_classes=len(subject.label_names or ()),
                input_size=(3, side, side),
                output=made,
                **{**FORMATS[kind].options, **options},
            )
    except Exception as error:  # what the converters raise for a network that they cannot follow is nearly anything
        raise CannotExport(
            f"{subject.named.name} cannot become {kind}: {first_line(error)}. Try: --format onnx"
        ) from error
    if not made.exists():
        raise CannotExport(f"timmx wrote no {kind} file of {subject.named.name}. Try: --format onnx")


def _timm_folder(subject: Subject, folder: Path) -> Path:
    """The network as timm's Hub format has it, for timm to build."""
    named = subject.named
    folder.mkdir()
    size = [3, subject.image_size, subject.image_size]
    cfg = {"input_size": size, "mean": named.mean, "std": named.std, "num_classes": len(subject.label_names or ())}
    config = {"architecture": named.network, "num_classes": cfg["num_classes"], "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {key: value.contiguous() for key, value in named.backbone.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def _runner(chosen: TimmxFormat, made: Path) -> Runner:
    assert chosen.runner is not None
    try:
        one = chosen.runner(made)
    except DiscoZooError:
        raise
    except Exception as error:  # each runtime has its own
        raise CannotExport(f"the runtime cannot load what timmx wrote: {first_line(error)}") from error

    def run(images: Tensor) -> Tensor:
        rows = [torch.as_tensor(one(images[number : number + 1])).float().reshape(-1) for number in range(len(images))]
        return torch.stack(rows)

    return run
