"""`disco-zoo convert`: an authors' file becomes safetensors of a timm network."""

from __future__ import annotations

import json
from pathlib import Path

import click

from disco_zoo.cli.options import JSON


@click.command("convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, help="The model or teacher of the zoo that the file holds.")
@click.option("--install", is_flag=True, help="Keep it where timm.create_model(NAME, pretrained=True) finds it.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it. [default: NAME.safetensors]")
@click.option("--yes", is_flag=True, help="Replace --out if it is there.")
@JSON
def command(file: Path, name: str, install: bool, out: Path | None, yes: bool, as_json: bool) -> None:
    """Convert FILE, in any layout of the field, to the weights of NAME; no code in it is run.

    FILE is a checkpoint by MoCo, DisCo, SEED, BINGO, CompRess, SwAV, SimCLR or ssl-small, a plain timm or
    torchvision file, or the folder of a finished run of NAME. Its layout is recognised from its keys; a file of another
    network is refused, and so is a run of another recipe, of other data or stopped early.

    \b
    Examples:
      disco-zoo convert DisCo-R50-R34.pth.tar --as disco_r34.disco_mocov2_r50_in1k --install
      disco-zoo convert runs/b0 --as disco_effb0.disco_lite0_cifar10 --out mine.safetensors
    """
    from disco_zoo.weights.official import convert_checkpoint
    from disco_zoo.zoo.catalog import load_catalog

    done = convert_checkpoint(file, name, install=install, out=out, overwrite=yes)
    source = done.source
    if as_json:
        facts = {
            "name": done.name,
            "path": str(done.path),
            "sha256": done.sha256,
            "layout": source.layout,
            "network": source.network,
            "dropped": list(source.dropped),
            "source_sha256": source.sha256,
        }
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{source.file}: layout {source.layout}, network {source.network}", err=True)
    if source.dropped:
        click.echo(f"Left out: {', '.join(source.dropped)}", err=True)
    click.echo(f"sha256 {done.sha256}", err=True)
    click.echo(str(done.path))
    if install:
        teacher = done.name in load_catalog().teachers
        load = f'timm.create_model("{done.name}", pretrained=True)'
        click.echo(f"Use it: {f'--set teacher.source={done.name}' if teacher else load}", err=True)
