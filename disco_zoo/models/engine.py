"""Which program computes a frozen backbone's features on a CPU: PyTorch, or a faster one that agrees with it.

ONNX Runtime and OpenVINO run one graph of the network (`graph_cache.py`). Whatever they are asked for, the first images
are computed by PyTorch, too; an engine whose features differ is dropped, and PyTorch computes all.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from disco_zoo.core.console import console
from disco_zoo.errors import CannotExport, DiscoZooError, first_line, require
from disco_zoo.models.encoder import frozen, pooled
from disco_zoo.models.forward import Forward, Run, chunk_of, difference
from disco_zoo.models.graph_cache import graph_of
from disco_zoo.models.onnx_network import openvino_runner, runner

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]

WORTH_PIXELS = 200 * 224 * 224  # of input: for fewer, writing the graph and looking at it takes longer than it saves
CALIBRATION_ROUNDS = 3
_PACKAGES = {"onnxruntime": "export", "openvino": "openvino"}
_RUNNERS: dict[str, Callable[[bytes], Run]] = {
    "onnxruntime": functools.partial(runner, threads=1),
    "openvino": functools.partial(openvino_runner, threads_each=1),
}


def forward_by(
    backbone: nn.Module,
    image_size: int,
    *,
    engine: EngineName = "torch",
    num_images: int | None = None,
    device: torch.device | str = "cpu",
) -> Forward:
    """The forward of a backbone by the engine that a user names.

    "auto" is PyTorch on an accelerator, for few images and where nothing else is installed; else the fastest on this
    machine, timed once and remembered with the graph.

    Args:
        num_images: how many there will be; None for enough to choose by speed.

    Raises:
        MissingExtra: the engine is not installed.
        CannotExport: it cannot run the network, or computes something else; "auto" falls back to PyTorch.
        DiscoZooError: an engine for CPUs on an accelerator.
    """
    on_cpu = torch.device(device).type == "cpu"
    if engine == "torch" or (engine == "auto" and not (on_cpu and _is_worth_it(num_images, image_size))):
        return Forward(backbone, image_size)
    if engine != "auto":
        if not on_cpu:
            raise DiscoZooError(f"--engine {engine} runs on CPUs. Type: --device cpu, or --engine torch")
        title = _version_of(engine)
        try:
            return Forward(backbone, image_size, title, _checked(engine, backbone, image_size))
        except CannotExport as error:
            raise CannotExport(f"{engine}: {error}. Type: --engine torch") from error
    return _fastest(backbone, image_size)


def installed_engines() -> list[str]:
    """Engines besides PyTorch that could be imported."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is not None]


def _is_worth_it(num_images: int | None, image_size: int) -> bool:
    return num_images is None or num_images * image_size**2 >= WORTH_PIXELS


def _version_of(engine: str) -> str:
    return f"{engine} {require(engine, _PACKAGES[engine]).__version__}"


def _noise(number: int, image_size: int) -> Tensor:
    """The images that engines are timed and first compared with; no one's random state moves."""
    return torch.randn(number, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def _checked(engine: str, backbone: nn.Module, image_size: int) -> Run:
    """An engine's forward that has agreed with PyTorch about noise.

    Raises:
        CannotExport: it has not, or cannot run the network.
    """
    graph = graph_of(backbone, image_size)
    try:
        run = _RUNNERS[engine](graph.model)
    except Exception as error:  # each engine has its own
        raise CannotExport(f"cannot run the network ({first_line(error)})") from error
    noise = _noise(chunk_of(image_size), image_size)
    with frozen(backbone, "cpu"):
        expected = pooled(backbone, noise)
    if (fault := difference(run, noise, expected)) is not None:
        raise CannotExport(fault)
    return run


def _fastest(backbone: nn.Module, image_size: int) -> Forward:
    """PyTorch, or an installed engine that is faster, by the seconds that are remembered or measured now."""
    installed = installed_engines()
    if not installed:
        return Forward(backbone, image_size)
    try:
        graph = graph_of(backbone, image_size)
    except CannotExport as error:
        console.print(f"features by PyTorch: {error}", soft_wrap=True)
        return Forward(backbone, image_size)
    titles = {name: _version_of(name) for name in installed}
    setting = f"{', '.join(titles.values())}, torch {torch.__version__}, {torch.get_num_threads()} at once"
    runs: dict[str, Run] = {}
    best = graph.remembered(setting)
    for name in installed if best is None else [name for name in installed if name == best]:
        try:
            runs[name] = _checked(name, backbone, image_size)
        except CannotExport as error:
            console.print(f"features without {titles[name]}: it {error}", soft_wrap=True)
    if best is None:
        best = _calibrated(backbone, image_size, runs)
        graph.remember(setting, best)
        console.print(f"features by {titles.get(best, 'PyTorch')}: the fastest here", soft_wrap=True)
    if best not in runs:
        return Forward(backbone, image_size)
    return Forward(backbone, image_size, titles[best], runs[best])


def _calibrated(backbone: nn.Module, image_size: int, runs: dict[str, Run]) -> str:
    """The name of the fastest: each computes the same noise in turn, a chunk a thread; its shortest time counts."""
    noise = _noise(chunk_of(image_size) * torch.get_num_threads(), image_size)
    seconds: dict[str, float] = {}
    with frozen(backbone, "cpu"):
        plain = noise.contiguous(memory_format=torch.channels_last)
        turns: dict[str, Callable[[], Tensor]] = {"torch": functools.partial(Forward(backbone, image_size), plain)}
        turns |= {
            name: functools.partial(Forward(backbone, image_size, name, run), noise) for name, run in runs.items()
        }
        for _ in range(CALIBRATION_ROUNDS):
            for name, compute in turns.items():
                begun = time.perf_counter()
                compute()
                spent = time.perf_counter() - begun
                seconds[name] = min(spent, seconds.get(name, spent))
    return min(seconds, key=lambda name: seconds[name])
