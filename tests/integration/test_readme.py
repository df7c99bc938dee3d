"""The README and the site: short enough to be read, with commands that exist and links that lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from disco_zoo.cli import VERBS, cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("quickstart", "choose", "doors", "zoo", "downstream", "photos"))]
FENCE = re.compile(r"```\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def commands(page: str) -> list[str]:
    """The disco-zoo commands of a page's blocks, without comments, each once."""
    blocks = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    found = [part.strip() for line in lines for part in line.split("&&")]
    return sorted({line for line in found if line.startswith("disco-zoo ")})


CASES = sorted({(page, line) for page in PAGES for line in commands(page)})


def test_the_readme_is_short_and_keeps_the_two_commands() -> None:
    assert len(README.splitlines()) <= 110
    assert 'pip install -e ".[pocket]" && disco-zoo reproduce effb0' in README
    assert 'pip install -e ".[test]" && pytest' in README


@pytest.mark.parametrize(("page", "line"), CASES, ids=[f"{page}: {line}" for page, line in CASES])
def test_every_command_of_the_pages_is_one_that_is_understood(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    assert words[0] in VERBS, page
    command: click.Command | None = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    assert command is not None
    command.make_context("disco-zoo", words)  # raises where an option does not exist


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, _ in LINK.findall(text):
        if not re.match(r"[a-z]+:", target) and target != "zoo/index.html":  # which the site adds
            assert ((ROOT / page).parent / target).exists(), target


def test_the_site_has_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = {place for entry in nav for value in entry.values() for place in _places(value)}
    assert {f"{path.stem}.md" for path in (ROOT / "docs").glob("*.md")} <= listed


def _places(value: str | list[dict[str, str]]) -> list[str]:
    return [value] if isinstance(value, str) else [place for entry in value for place in entry.values()]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "<article" in (tmp_path / "zoo" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|woff2?)"', (tmp_path / "index.html").read_text())
