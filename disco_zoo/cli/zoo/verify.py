"""`disco-zoo verify`: are these the bytes, names and numbers that the zoo states?"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from disco_zoo.cli.options import JSON
from disco_zoo.errors import UnknownName

if TYPE_CHECKING:
    from disco_zoo.weights.verify import Verification

EXIT_FAILED = 1


@click.command("verify")
@click.argument("target", required=False, metavar="[NAME|FILE]")
@click.option("--all", "every", is_flag=True, help="Everything of the zoo that is on this machine.")
@JSON
def command(target: str | None, every: bool, as_json: bool) -> int:
    """Check a model's weights, or a file: sha256, names and shapes, finite values, golden features recomputed.

    Exit code 1 if a check fails. Nothing is downloaded.

    \b
    Examples:
      disco-zoo verify effb0
      disco-zoo verify --all
      disco-zoo verify mine.safetensors
    """
    from disco_zoo.weights.verify import verify_all, verify_weights

    if every == (target is not None):
        raise UnknownName("Name one model or file, or say --all. Type: disco-zoo verify --all")
    found = verify_all() if every else [verify_weights(target or "")]
    if as_json:
        click.echo(json.dumps([{**dataclasses.asdict(one), "ok": one.ok} for one in found], indent=2))
    else:
        for one in found:
            _print(one)
        if not found:
            click.echo("No weights of the zoo are on this machine. Type: disco-zoo list", err=True)
    return 0 if all(one.ok for one in found) else EXIT_FAILED


def _print(verification: Verification) -> None:
    verdict = "verified" if verification.ok else "FAILED"
    source = f" ({verification.source})" if verification.source else ""
    click.echo(f"{verification.name}{source}: {verdict}")
    if verification.path:
        click.echo(f"  {verification.path}")
    for check in verification.checks:
        mark = {True: "ok", False: "FAILED", None: "-"}[check.passed]
        click.echo(f"  {mark:<7}{check.title}: {check.detail}")
