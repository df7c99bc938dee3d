"""A hook of mkdocs: the pages that lie beside docs/, the zoo's page, and links from docs/ to files of the repository.

Pages keep links that work on a code host (`../benchmarks/README.md`); here they become links within the site, and
links to files that the site does not have become plain words.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from mkdocs.structure.files import File, Files
from notebook_pages import notebook_page

from disco_zoo.site.entries import read_latencies
from disco_zoo.site.page import render_page
from disco_zoo.zoo.catalog import load_catalog

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add what is not in docs/: pages, pictures of the benchmarks, the zoo's own page; notebooks as pages."""
    beside = [*PAGES, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "benchmarks").rglob("*.png")))]
    beside += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "benchmarks").rglob("*.md"))]
    for place in dict.fromkeys(beside):
        source = ROOT / place
        content: str | bytes = source.read_text(encoding="utf-8") if place.endswith(".md") else source.read_bytes()
        files.append(File.generated(config, place, content=content))
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        text, pictures = notebook_page(source, ROOT / "build" / "notebooks")
        files.append(File.generated(config, f"tutorials/{source.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=picture))
    catalog = load_catalog()
    order = list(catalog.architectures)
    rows = sorted(catalog.checkpoints.values(), key=lambda row: order.index(row.architecture))
    latencies = read_latencies(ROOT / "benchmarks" / "latency.json")
    files.append(File.generated(config, "zoo/index.html", content=render_page(rows, catalog, latencies=latencies)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links of this page within the site; code stays as it is."""
    place = page.file.src_uri
    outside = place in PAGES or place.startswith("benchmarks/")  # such a page lies at the repository's root
    known = {file.src_uri for file in files}

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if re.match(r"[a-z]+:", target):
            return found.group(0)
        at = normpath(join(dirname(place) if outside else join("docs", dirname(place)), target))
        within = at.removeprefix("docs/")
        if within.endswith(".ipynb") and within.removesuffix(".ipynb") != place.removesuffix(".md"):
            within = f"{within.removesuffix('.ipynb')}.md"  # the page made of it, but for its own link to download
        if not (ROOT / at).exists() and within not in known:
            return found.group(0)  # broken: mkdocs says so
        if within not in known:
            return text  # a file of the repository that is no page
        up = "../" * place.count("/")
        return f"{picture}[{text}]({up}{within}{anchor or ''})"

    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))
