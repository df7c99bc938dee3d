"""`torch.export` files (.pt2): the network as a graph with its weights, loaded without its source code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.core.files import write_out
from disco_zoo.core.quiet import quiet
from disco_zoo.errors import CannotExport, first_line
from disco_zoo.exporting.compare import require_same
from disco_zoo.exporting.subject import Subject

FACTS_FILE = "disco_zoo.json"


def write_torch(subject: Subject, path: Path, tolerance: float) -> float:
    """Write a `.pt2` with a free batch size and the subject's facts inside, compared before it gets its name.

    Returns:
        The largest difference from PyTorch, see `largest_difference`.

    Raises:
        CannotExport: torch.export cannot follow the network, or the file computes something else.
        CannotWrite: no room or no permission.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet():
            program = torch.export.export(subject.network, (subject.example(2),), dynamic_shapes=({0: batch},))
    except Exception as error:  # what it raises for a network that it cannot follow is nearly anything
        raise CannotExport(f"torch.export cannot follow {subject.named.name}: {first_line(error)}") from error
    buffer = io.BytesIO()  # torch warns of paths that do not end in .pt2, as the unfinished file's does
    torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(subject.facts())})
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = loaded(images)
        return output

    found = require_same(subject, run, tolerance, ".pt2")
    write_out(path, lambda partial: partial.write_bytes(buffer.getvalue()))
    return found
