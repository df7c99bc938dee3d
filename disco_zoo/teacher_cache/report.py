"""Caches as text for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from disco_zoo.teacher_cache.inventory import CacheState

EMPTY = "There are no teacher caches. Type: disco-zoo cache build RECIPE --views M"


def print_caches(states: Sequence[CacheState], as_json: bool) -> None:
    """A table of caches, or JSON on stdout."""
    if as_json:
        own = ("id", "views", "slots", "size_bytes")
        click.echo(json.dumps([{**{name: getattr(s, name) for name in own}, **s.facts} for s in states], indent=2))
        return
    if not states:
        click.echo(EMPTY, err=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "teacher", "images", "views"):
        table.add_column(heading, overflow="fold")
    table.add_column("MB", justify="right")
    for heading in ("view recipe", "seed", "built"):
        table.add_column(heading)
    for state in states:
        key = state.facts["key"]
        table.add_row(
            state.id,
            state.facts["title"],
            f"{state.facts['images']} of {state.facts['data']}",
            views_text(state),
            f"{state.size_bytes / 1e6:.1f}",
            f"{key['view']['recipe']} {key['view_size']} px",
            str(key["seed"]),
            state.facts["created"][:10],
        )
    Console(highlight=False, width=None if Console().is_terminal else 140).print(table)


def views_text(state: CacheState) -> str:
    """ "8", or "2.5 of 8" while it is not whole."""
    return f"{state.slots}" if state.views >= state.slots else f"{state.views:g} of {state.slots}"
