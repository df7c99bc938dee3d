"""`disco-zoo publish`: a model's weights as a repository on the Hugging Face Hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.cli.options import JSON
from disco_zoo.errors import PublishError

if TYPE_CHECKING:
    from disco_zoo.weights.publish.job import Publication


@click.command("publish")
@click.argument("name")
@click.option("--to", "org", metavar="ORG", help="Your user or organisation on the Hub.  [default: $DISCO_ZOO_ORG]")
@click.option("--private", is_flag=True, help="For the organisation's members alone.")
@click.option("--dry-run", is_flag=True, help="Build the folder, show it, upload nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to build.  [default: runs/NAME-hub]")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A safetensors file, a run folder or a published one.  [default: the installed or bundled weights]",
)
@click.option("--tag", help="A name for the commit, e.g. v1.")
@click.option("--accept-unknown-licence", is_flag=True, help="Publish although nobody stated a licence.")
@click.option("--yes", is_flag=True, help="Do not ask before the upload.")
@JSON
def command(name: str, org: str | None, dry_run: bool, yes: bool, as_json: bool, **options: Any) -> None:
    """Publish the weights of NAME: safetensors, config, card and golden features as one commit.

    `timm.create_model("hf-hub:ORG/NAME", pretrained=True)` then loads them without disco-zoo, and the catalog's row
    names the commit and the sha256. What is already there is not uploaded again.

    \b
    Examples:
      disco-zoo publish effb0 --to my-lab --dry-run
      disco-zoo publish effb0 --to my-lab
      disco-zoo publish disco_r18.disco_lite0_cifar10 --to my-lab --weights runs/r18 --private
    """
    from disco_zoo.weights.publish.job import prepare, send

    publication = prepare(name, org, **options)
    click.echo(tree(publication), err=as_json)
    if not dry_run:
        _ask(publication, yes)
        publication = send(publication)
    for note in publication.notes:
        click.echo(f"Note: {note}.", err=True)
    if as_json:
        click.echo(json.dumps(as_values(publication), indent=2))
    elif dry_run:
        click.echo("Nothing was uploaded. To upload it, type the command without --dry-run.", err=True)
    else:
        _report(publication)


def tree(publication: Publication) -> str:
    """The folder with sizes and hashes, and where it goes."""
    state = "private" if publication.private else "public"
    lines = [f"{publication.folder}/ -> {publication.url} ({state})"]
    for index, file in enumerate(publication.files):
        branch = "└──" if index == len(publication.files) - 1 else "├──"
        lines.append(f"{branch} {file.name:<18} {_size(file.size_bytes):>9}  sha256 {file.sha256[:16]}…")
    return "\n".join(lines)


def as_values(publication: Publication) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "name": publication.name,
        "repo": publication.repo,
        "url": publication.url,
        "private": publication.private,
        "revision": publication.revision,
        "tag": publication.tag,
        "folder": str(publication.folder),
        "files": {file.name: {"size_bytes": file.size_bytes, "sha256": file.sha256} for file in publication.files},
        "weights": publication.weights,
        "catalog_file": str(publication.catalog_file) if publication.catalog_file else None,
        "notes": list(publication.notes),
    }


def _ask(publication: Publication, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise PublishError(
            "Publishing cannot be taken back, and there is nobody to ask. Look at --dry-run, then add --yes"
        )
    whom = "its members" if publication.private else "everyone"
    click.confirm(f"Upload this to {publication.repo}, for {whom} to see?", abort=True, err=True)


def _report(publication: Publication) -> None:
    click.echo(f"{publication.url} is at commit {publication.revision}; its files have the sha256 above.")
    if publication.catalog_file:
        click.echo(f"Rewrote the row in {publication.catalog_file}. Now type: disco-zoo card --all", err=True)
    else:
        click.echo("To pin it, put this into your catalog:", err=True)
        click.echo(publication.weights_yaml, nl=False)


def _size(size_bytes: int) -> str:
    """Decimal units, as the Hub's pages show them."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} B"
