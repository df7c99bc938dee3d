"""One row's weights are rewritten in the catalog's text, and not a character elsewhere."""

from __future__ import annotations

import difflib
import re
from typing import Any

import pytest

from disco_zoo.errors import BadCatalog
from disco_zoo.zoo.catalog import CATALOG_PATH, load_catalog
from disco_zoo.zoo.edit import rewrite_weights, weights_block

SHA256 = "ab" * 32
HUB: dict[str, Any] = {
    "source": "hub",
    "repo": "org/x",
    "file": "model.safetensors",
    "size_bytes": 12,
    "revision": "0" * 39 + "1",  # digits alone: unquoted, YAML would read a number
    "sha256": SHA256,
}
HEAD = """\
# A small zoo.
shared:
  none: &none {source: none}
  row: &row
    method: disco
    teacher: null
    data: toy
    recipe: null
    summary: A summary
    origin: nowhere
    licence: {code: MIT, weights: MIT, teacher: MIT, data: MIT}
    input: {size: 8, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], crop_pct: 1.0, interpolation: bilinear}
datasets:
  toy: {title: Toy, licence: MIT, num_train: 1, num_test: 1, num_classes: 1, class_names: null, image_size: null,
        url: "https://example.org", hub_id: org/toy}
teachers:
  t: {title: A teacher, supervision: unknown, network: resnet50, weights: {source: none}}
architectures:
  disco_r18: {short: r18, native: resnet18, paper_name: R-18, feature_dim: 512, params_millions: 11.18, default: a}
checkpoints:
  disco_r18.a:
    <<: *row
    weights: {source: none}
"""
FORMS = {
    "inline": "    weights: {source: none}  # behind\n",
    "inline over lines": "    weights:\n      {source: official,  # inside\n       file: a.pth}\n",
    "block": "    weights:  # above\n      source: official\n      file: a#b.pth  # inside\n",
    "block with a comment after it": "    weights:\n      source: none\n    # about the note\n",
    "folded text": "    weights:\n      source: official\n      file: >-\n        a long\n        name\n",
    "alias": "    weights: *none\n",
    "empty lines": "\n    weights: {source: none}\n\n",
    "quoted key": '    "weights": {source: none}\n',
}


def catalog_with(form: str) -> str:
    """The zoo above with a row b whose weights have this form, and a row c on one line."""
    row = f"  disco_r18.b:\n    <<: *row\n{form}    note: the row's end\n"
    return f"{HEAD}{row}  disco_r18.c: {{<<: *row, weights: *none}}\n"


def comments(text: str) -> list[str]:
    return re.findall(r"(?<!\S)#.*", text)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_rewritten(form: str) -> None:
    text = catalog_with(form)
    changed = rewrite_weights(text, "disco_r18.b", HUB)
    before, after = load_catalog(text), load_catalog(changed)
    assert after.checkpoints["disco_r18.b"].weights.model_dump(exclude_defaults=True) == HUB
    assert after.checkpoints["disco_r18.b"].note == "the row's end"
    for name in ("disco_r18.a", "disco_r18.c"):
        assert after.checkpoints[name] == before.checkpoints[name]
    assert sorted(comments(changed)) == sorted(comments(text))
    start, end = text.index("  disco_r18.b:"), text.index("    note:")
    assert changed.startswith(text[:start])
    assert changed.endswith(text[end:])
    assert rewrite_weights(changed, "disco_r18.b", HUB).count(SHA256) == 1  # and once more


def test_weights_of_a_fragment_become_the_rows_own() -> None:
    text = catalog_with("").replace("    origin: nowhere\n", "    origin: nowhere\n    weights: {source: none}\n")
    changed = rewrite_weights(text, "disco_r18.b", HUB)
    after = load_catalog(changed)
    assert after.checkpoints["disco_r18.b"].weights.repo == "org/x"
    assert after.checkpoints["disco_r18.c"].weights.source == "none"


@pytest.mark.parametrize("weights", [", weights: *none", ", weights: {source: none}", ""])
def test_a_row_on_one_line_stays_on_one(weights: str) -> None:
    text = catalog_with(FORMS["inline"]).replace(", weights: *none}", weights + "}")
    text = text if weights else text.replace("    origin: nowhere\n", "    origin: nowhere\n    weights: *none\n")
    changed = rewrite_weights(text, "disco_r18.c", HUB)
    assert load_catalog(changed).checkpoints["disco_r18.c"].weights.sha256 == SHA256
    assert len(changed.splitlines()) == len(text.splitlines())


def test_a_teachers_weights_are_rewritten_too() -> None:
    changed = rewrite_weights(catalog_with(FORMS["inline"]), "t", HUB)
    assert load_catalog(changed).teachers["t"].weights.repo == "org/x"


def test_windows_line_ends_stay() -> None:
    text = catalog_with(FORMS["inline over lines"]).replace("\n", "\r\n")
    changed = rewrite_weights(text, "disco_r18.b", HUB)
    assert changed.count("\n") == changed.count("\r\n")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (catalog_with(FORMS["inline"]), "disco_r18.x", "no row disco_r18.x"),
        (catalog_with("    weights: &mine {source: none}\n").replace("*none}", "*mine}"), "disco_r18.b", "rewritten"),
        (catalog_with(FORMS["inline"]).replace("{<<: *row, weights: *none}", "*row"), "disco_r18.c", "fault"),
        ("checkpoints: [", "disco_r18.b", "not valid YAML"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, name: str, words: str) -> None:
    with pytest.raises(BadCatalog, match=words):
        rewrite_weights(text, name, HUB)


def test_a_row_that_is_an_alias_is_refused() -> None:
    """Its text is another row's: an edit would change both."""
    text = catalog_with(FORMS["inline"]).replace("disco_r18.b:\n", "disco_r18.b: &b\n") + "  disco_r18.d: *b\n"
    with pytest.raises(BadCatalog, match=r"no row disco_r18\.d of its own"):
        rewrite_weights(text, "disco_r18.d", HUB)
    with pytest.raises(BadCatalog, match="without changing other rows"):
        rewrite_weights(text, "disco_r18.b", HUB)


@pytest.mark.parametrize(
    "change", [{"revision": None}, {"revision": "main"}, {"sha256": "AB" * 32}, {"source": "moon"}]
)
def test_an_entry_that_breaks_the_schema_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadCatalog, match="cannot be rewritten"):
        rewrite_weights(catalog_with(FORMS["inline"]), "disco_r18.b", HUB | change)


def rows_of_every_kind() -> list[str]:
    """One row of each method and kind of weights: their text has the same form."""
    rows = load_catalog().checkpoints.values()
    return list({(row.method, *sorted(row.weights.model_fields_set)): row.name for row in rows}.values())


@pytest.mark.parametrize("name", rows_of_every_kind())
def test_the_zoos_rows_can_be_rewritten(name: str) -> None:
    text = CATALOG_PATH.read_text(encoding="utf-8")
    changed = rewrite_weights(text, name, HUB)
    lines = list(difflib.unified_diff(text.splitlines(), changed.splitlines(), lineterm="", n=0))
    assert sum(line.startswith("@@") for line in lines) == 1  # one place
    assert comments(changed) == comments(text)


def test_the_block_to_paste_is_the_row() -> None:
    block = weights_block("disco_r18.b", HUB)
    assert block.startswith("checkpoints:\n  disco_r18.b:\n    weights:\n      {source: hub, repo: org/x,")
    assert f"sha256: {SHA256}" in block
    assert f"revision: '{HUB['revision']}'" in block
