"""`disco-zoo card`: one model card, or everything that is generated from the catalog."""

from __future__ import annotations

from pathlib import Path

import click

from disco_zoo.core.files import require_folder, write_out
from disco_zoo.errors import BadCatalog, UnknownName
from disco_zoo.zoo import model_card
from disco_zoo.zoo import table as zoo_table
from disco_zoo.zoo.catalog import Catalog, load_catalog


@click.command("card")
@click.argument("name", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file; with --all, to this folder.")
@click.option("--all", "every", is_flag=True, help="All cards, and the zoo's table in docs/zoo.md of a checkout.")
@click.option("--check", is_flag=True, help="Write nothing; fail if a file differs from the catalog.")
def command(name: str | None, out: Path | None, every: bool, check: bool) -> None:
    """Print the model card of NAME, or refresh (--all) what is generated from the catalog.

    \b
    Examples:
      disco-zoo card effb0
      disco-zoo card --all
      disco-zoo card --all --check
    """
    catalog = load_catalog()
    if every == (name is not None):
        raise UnknownName("Name one model or say --all. Type: disco-zoo card NAME, or: disco-zoo card --all")
    if every:
        _all_cards(catalog, out, check)
        return
    checkpoint = catalog.resolve(name or "")
    text = model_card.render_card(checkpoint, catalog)
    path = out or model_card.cards_folder() / f"{checkpoint.name}.md"
    if check:
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            raise BadCatalog(f"{path} is stale. Type: disco-zoo card {checkpoint.name} --out {path}")
        click.echo(f"{path} is up to date.", err=True)
    elif out:
        _write(out, text)
        click.echo(f"Wrote {out}.", err=True)
    else:
        click.echo(text, nl=False)


def _all_cards(catalog: Catalog, out: Path | None, check: bool) -> None:
    folder = out or model_card.cards_folder()
    page = folder.parent / "docs" / "zoo.md"
    stale = [str(folder / name) for name in model_card.stale_cards(folder, catalog)]
    if out is None and page.is_file() and zoo_table.page_is_stale(page, catalog):
        stale.append(str(page))
    if not stale:
        click.echo("All cards and tables are up to date.", err=True)
        return
    if check:
        raise BadCatalog(f"Out of date: {', '.join(stale)}. Type: disco-zoo card --all")
    require_folder(folder)
    cards = model_card.generated_cards(catalog)
    for path in map(Path, stale):
        if path != page and path.name not in cards:
            path.unlink()
            click.echo(f"Removed {path}: the catalog has no such row any more.", err=True)
            continue
        is_page = path == page
        _write(path, zoo_table.refresh_markdown(path.read_text("utf-8"), catalog) if is_page else cards[path.name])
        click.echo(f"Refreshed {path}.", err=True)


def _write(path: Path, text: str) -> None:
    write_out(path, lambda partial: partial.write_text(text, encoding="utf-8"))
