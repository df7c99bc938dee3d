"""Notebooks as pages: run in a folder of their own, then Markdown with the pictures beside it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi

SECONDS = 900  # of a cell; on a busy machine


def run_notebook(source: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in the empty `folder` with this interpreter's commands first on the path.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    book = nbformat.read(source, as_version=4)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    client = NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    return client.execute(env={**os.environ, "PATH": path})


def notebook_page(source: Path, scratch: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown and the pictures by name; what `scratch` holds of the same text is not run again."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    kept = scratch / f"{source.stem}-{digest}.ipynb"
    if not kept.is_file():
        folder = scratch / source.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        nbformat.write(run_notebook(source, folder), kept)
    book = nbformat.read(kept, as_version=4)
    for cell in book.cells:  # progress and notes are for whoever runs it
        cell["outputs"] = [output for output in cell.get("outputs", []) if not _is_progress(output)]
        for output in cell["outputs"]:
            if "text" in output:
                output["text"] = strip_ansi(output["text"])
    text, resources = MarkdownExporter().from_notebook_node(book)
    pictures = {f"{source.stem}_{name}": content for name, content in resources["outputs"].items()}
    text = re.sub(r"!\[\w+\]\((\w+\.png)\)", rf"![Output of the cell above]({source.stem}_\1)", text)
    title, rest = text.lstrip().split("\n", 1)
    return f"{title}\n\n[This page as a notebook]({source.name})\n{rest}", pictures


def _is_progress(output: Any) -> bool:
    """What goes to stderr, which rich shows as HTML in a notebook."""
    if output["output_type"] == "display_data":
        return "image/png" not in output["data"]
    return bool(output.get("name") == "stderr")
