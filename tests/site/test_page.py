"""The zoo as a page: all of the catalog is in it, nothing of the catalog is markup, and it needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from catalog_makers import small_catalog

from disco_zoo.cli import main
from disco_zoo.site.page import render_page
from disco_zoo.zoo.catalog import Catalog, load_catalog

VOID = {"meta", "input", "link", "br", "wbr", "img"}
EVIL = "<script>alert('x')</script>\" onload=\"alert(1)` & </title></style>"


class Outline(HTMLParser):
    """Elements with their attributes; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(catalog: Catalog, **options: object) -> str:
    return render_page(list(catalog.checkpoints.values()), catalog, **options)  # type: ignore[arg-type]


def values_in(text: str) -> list[dict[str, object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    values: list[dict[str, object]] = json.loads(found.group(1))
    return values


def test_every_checkpoint_has_a_line_a_card_and_its_values() -> None:
    catalog = load_catalog()
    text = page(catalog)
    outline = Outline(text)
    names = [*catalog.checkpoints]
    assert [line["data-name"] for line in outline.all("tr") if "data-name" in line] == names
    assert [article["id"] for article in outline.all("article")] == names
    assert [value["name"] for value in values_in(text)] == names
    links = {link["href"] for link in outline.all("a") if (link["href"] or "").startswith("#")}
    assert links == {f"#{name}" for name in names}


def test_nothing_is_loaded_from_elsewhere() -> None:
    outline = Outline(page(load_catalog()))
    assert not [1 for tag, attributes in outline.found if tag in ("img", "iframe", "object") or "src" in attributes]
    assert [link["href"] for link in outline.all("link")] == ["data:,"]
    assert "@import" not in page(load_catalog())


def test_figures_are_what_the_catalog_says() -> None:
    values = {value["name"]: value for value in values_in(page(load_catalog()))}
    cifar = values["disco_effb0.disco_lite0_cifar10"]
    assert cifar["figures"]["linear_top1"]["kind"] == "measured"  # type: ignore[index]
    assert cifar["figures"]["linear_top1"]["text"] == "79.6"  # type: ignore[index]
    read, remembered = values["disco_r18.disco_mocov2_r50_in1k"], values["disco_effb0.disco_mocov2_r50_in1k"]
    assert read["figures"]["linear_top1"]["kind"] == "reported"  # type: ignore[index]
    assert remembered["figures"]["linear_top1"]["kind"] == "unverified"  # type: ignore[index]
    assert cifar["supervision"] == "supervised"
    assert values["disco_effb0.mocov2_cifar10"]["supervision"] == "none"


def test_a_card_tells_how_to_load_what_it_may_be_used_for_and_what_taught_it() -> None:
    text = page(load_catalog())
    start = text.index('<article id="disco_effb0.disco_lite0_cifar10">')
    card = text[start : text.index("</article>", start)]
    for words in (
        "timm.create_model(&quot;disco_effb0.disco_lite0_cifar10&quot;, pretrained=True)",
        "disco-zoo reproduce disco_effb0.disco_lite0_cifar10 --data DATA",
        "<em>supervised</em>",
        "code Apache-2.0, weights Apache-2.0, teacher Apache-2.0, data NOASSERTION",
        "<h4>Limits</h4>",
    ):
        assert words in card


def test_markup_in_a_catalog_is_text_on_the_page() -> None:
    raw = small_catalog()
    raw["checkpoints"]["disco_a.one"] |= {"summary": EVIL, "limits": [EVIL], "origin": EVIL, "note": EVIL}
    raw["checkpoints"]["disco_a.one"]["licence"]["weights"] = EVIL
    raw["datasets"]["d"]["title"] = raw["teachers"]["t"]["title"] = EVIL
    raw["architectures"]["disco_a"]["paper_name"] = EVIL
    text = page(load_catalog(yaml.safe_dump(raw)), title=EVIL)
    outline = Outline(text)
    assert "<script>alert" not in text
    assert len(outline.all("script")) == 2
    assert not [1 for _, attributes in outline.found if any(name.startswith("on") for name in attributes)]
    assert any("<script>alert('x')" in piece for piece in outline.text)
    assert values_in(text)[0]["dataTitle"] == EVIL


def test_latencies_give_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "latency.json", tmp_path / "sub" / "zoo.html"
    file.write_text(json.dumps({"note": "", "rows": [{"model": "disco_effb0", "onnx": {"median_ms": 12.25}}]}))
    assert main(["site", "--latency", str(file), "--out", str(out)]) == 0
    values = {value["name"]: value for value in values_in(out.read_text(encoding="utf-8"))}
    assert values["disco_effb0.disco_lite0_cifar10"]["latency"] == 12.25
    assert values["disco_r18.disco_lite0_cifar10"]["latency"] is None
    assert ">CPU (ms)<" in out.read_text(encoding="utf-8")
    assert "47 checkpoints" in capsys.readouterr().out or len(values) != 47


@pytest.mark.parametrize("text", [None, "{}", "[1]", "not json", '{"rows": [{"model": "a"}]}'])
def test_a_file_without_latencies_is_one_line(text: str | None, tmp_path: Path, capsys) -> None:
    file = tmp_path / "latency.json"
    if text is not None:
        file.write_text(text)
    assert main(["site", "--latency", str(file), "--out", str(tmp_path / "zoo.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(file) in error
    assert not (tmp_path / "zoo.html").exists()


def test_a_labs_own_catalog_gives_its_own_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump(small_catalog()))
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(tmp_path / "lab.yaml"))
    assert main(["site", "--title", "Our zoo", "--out", str(tmp_path / "lab.html")]) == 0
    text = (tmp_path / "lab.html").read_text(encoding="utf-8")
    assert "<h1>Our zoo</h1>" in text
    assert "1 checkpoint of small" in text
    assert "1 checkpoint," in capsys.readouterr().out
    assert [value["name"] for value in values_in(text)] == ["disco_a.one"]


def test_a_pattern_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "seed", "--out", str(tmp_path / "zoo.html")]) == 0
    assert all("seed" in str(value["name"]) for value in values_in((tmp_path / "zoo.html").read_text(encoding="utf-8")))
    assert main(["site", "nothing-like-it", "--out", str(tmp_path / "zoo.html")]) == 2
    assert "Type: disco-zoo list" in capsys.readouterr().err
