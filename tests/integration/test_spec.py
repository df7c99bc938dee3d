"""References to docs/spec.md in code, recipes and docs lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from tiny_runs import ROOT

SPEC = ROOT / "docs" / "spec.md"
SECTION = r"(?<![Q\d.])\d(?:\.\d{1,2})?\b"
CITED = re.compile(rf"\bspec((?:,? (?:and |to |or )?(?:{SECTION}|Q\d+))+)")
QUIRK = re.compile(r"\bQ(\d{1,2})\b")


def texts() -> dict[str, str]:
    paths = [
        path
        for folder, pattern in (("disco_zoo", "*.py"), ("recipes", "*.yaml"), ("tests", "*.py"), ("docs", "*.md"))
        for path in (ROOT / folder).rglob(pattern)
        if path not in (SPEC, Path(__file__))
    ]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def anchors() -> set[str]:
    found = re.findall(r'<a id="([^"]+)"></a>', SPEC.read_text(encoding="utf-8"))
    assert len(found) == len(set(found))
    return set(found)


def test_every_section_that_is_cited_exists() -> None:
    known, cited = anchors(), {}
    for name, text in texts().items():
        for run in CITED.findall(text):
            cited.update(dict.fromkeys(re.findall(SECTION, run), name))
    assert len(cited) > 20
    assert {section: name for section, name in cited.items() if section not in known} == {}


def test_every_quirk_that_is_cited_exists() -> None:
    known = anchors()
    cited = {f"q{number}": name for name, text in texts().items() for number in QUIRK.findall(text)}
    assert len(cited) > 10
    assert {quirk: name for quirk, name in cited.items() if quirk not in known} == {}


def test_every_heading_and_quirk_has_its_anchor() -> None:
    text, known = SPEC.read_text(encoding="utf-8"), anchors()
    assert set(re.findall(r"^#{2,3} ([\d.]+)", text, re.MULTILINE)) <= known
    assert {f"q{number}" for number in range(1, 28)} <= known
    inside = re.findall(r"\(?(?:see|section) (\d\.\d+)", text)
    assert set(inside) <= known
