"""Graphs of frozen networks for the engines beside PyTorch, kept on disk: written once for each weights and input size.

    <cache>/engines/<id>/graph.onnx   the network
                         graph.json   the graph's sha256, and which engine was fastest on which setting

`<cache>` is $DISCO_ZOO_CACHE, else $XDG_CACHE_HOME/disco-zoo, else ~/.cache/disco-zoo. The id is of the weights, the
network's modules with their settings, the input size and the versions that wrote the graph. All may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from disco_zoo.core.console import console
from disco_zoo.core.files import cache_home, write_whole
from disco_zoo.models.encoder import backbone_fingerprint, frozen
from disco_zoo.models.onnx_network import network_bytes

GRAPH, FACTS = "graph.onnx", "graph.json"
KEPT_GRAPHS = 16  # the latest that were used; one is about as large as its weights


@dataclass
class Graph:
    """A network as ONNX.

    Attributes:
        folder: where it is kept.
        model: the bytes of the ONNX file.
        fastest: engine by setting.
    """

    folder: Path
    model: bytes
    fastest: dict[str, str] = field(default_factory=dict)

    def remembered(self, setting: str) -> str | None:
        """The engine measured as fastest under this setting; None before a measurement."""
        return self.fastest.get(setting)

    def remember(self, setting: str, engine: str) -> None:
        self.fastest[setting] = engine
        _keep(self, with_model=False)


def graph_of(backbone: nn.Module, image_size: int) -> Graph:
    """The graph of a backbone for images (B, 3, S, S), from the disk or written now.

    A damaged graph is written again; one that cannot be stored is used without being stored. A message says which.

    Raises:
        CannotExport: the network cannot become ONNX.
    """
    folder = cache_home() / "engines" / _graph_id(backbone, image_size)
    if (graph := _kept(folder)) is not None:
        return graph
    example = torch.zeros(2, 3, image_size, image_size)
    with frozen(backbone, "cpu"):
        graph = Graph(folder, network_bytes(backbone, example))
    _keep(graph, with_model=True)
    return graph


def _graph_id(backbone: nn.Module, image_size: int) -> str:
    # The same tensors can be another network's: padding, eps and the place of an activation are in the modules' text.
    facts = [backbone_fingerprint(backbone), type(backbone).__qualname__, repr(backbone), str(image_size)]
    facts += [torch.__version__, timm.__version__]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


def _kept(folder: Path) -> Graph | None:
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        model = (folder / GRAPH).read_bytes()
        if hashlib.sha256(model).hexdigest() == facts["sha256"]:
            (folder / FACTS).touch()  # used: the oldest go first
            return Graph(folder, model, dict(facts["fastest"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    console.print(f"the graph in {folder} is damaged: it is written again", soft_wrap=True)
    return None


def _keep(graph: Graph, *, with_model: bool) -> None:
    facts = {"sha256": hashlib.sha256(graph.model).hexdigest(), "fastest": graph.fastest}
    text = json.dumps(facts, indent=1) + "\n"
    try:
        graph.folder.mkdir(parents=True, exist_ok=True)
        if with_model:
            write_whole(graph.folder / GRAPH, lambda partial: partial.write_bytes(graph.model))
        write_whole(graph.folder / FACTS, lambda partial: partial.write_text(text, encoding="utf-8"))
        _remove_oldest(graph.folder.parent)
    except OSError as error:
        console.print(f"the graph is not kept in {graph.folder}: {error.strerror}", soft_wrap=True)


def _remove_oldest(home: Path) -> None:
    used = sorted(home.glob(f"*/{FACTS}"), key=lambda path: path.stat().st_mtime)
    for path in used[:-KEPT_GRAPHS]:
        shutil.rmtree(path.parent, ignore_errors=True)  # another command may be at it, too
