"""Searching an embedding: exact, whatever the blocks; and never with features of another network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import encode
from embed_makers import written
from photo_makers import jpeg, photo
from PIL import Image
from tiny import make_run_folder

import disco_zoo
from disco_zoo.cli import main
from disco_zoo.embedding.contact_sheet import thumbnail
from disco_zoo.embedding.nearest_rows import nearest_rows
from disco_zoo.embedding.query import Pictures, resolve_queries
from disco_zoo.errors import BadData

pytestmark = pytest.mark.usefixtures("one_thread")


def vectors(number: int, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)


def reference(bank: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    bank, query = bank.astype(np.float64), query.astype(np.float64)
    cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
    return np.argsort(-cosines, kind="stable")[:k].tolist()


@pytest.mark.parametrize("block_rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_the_nearest_are_found_whatever_the_blocks(tmp_path, monkeypatch, block_rows, suffix):
    monkeypatch.setattr("disco_zoo.embedding.embedding_file.BLOCK_ROWS", block_rows)
    bank, queries = 5 * vectors(50), 0.1 * vectors(4, seed=1)
    found = nearest_rows(written(tmp_path / f"e.{suffix}", bank, pieces=4), queries, 7)
    for query, hits in zip(queries, found, strict=True):
        assert [hit.row for hit in hits] == reference(bank, query, 7)
        for hit in hits:
            cosine = bank[hit.row] @ query / np.linalg.norm(bank[hit.row]) / np.linalg.norm(query)
            assert hit.cosine == pytest.approx(cosine, abs=1e-6)


def test_a_row_that_asks_does_not_find_itself_among_its_duplicates(tmp_path):
    bank = vectors(9)
    bank[[2, 4, 6]] = bank[1]
    file = written(tmp_path / "e.parquet", bank)
    (hits,) = nearest_rows(file, bank[4:5], 3, [4])
    assert [hit.row for hit in hits] == [1, 2, 6]
    assert [hit.cosine for hit in hits] == pytest.approx([1.0] * 3, abs=1e-6)


def test_more_asked_for_than_there_is(tmp_path):
    file = written(tmp_path / "e.npy", vectors(5))
    found = nearest_rows(file, vectors(2, seed=1), 50, [None, 3])
    assert [len(hits) for hits in found] == [5, 4]
    assert sorted(hit.row for hit in found[1]) == [0, 1, 2, 4]


def test_half_precision_and_zero_rows(tmp_path):
    bank = vectors(20).astype(np.float16)
    bank[3] = 0
    file = written(tmp_path / "e.npy", bank, half=True)
    (hits,) = nearest_rows(file, vectors(1, seed=2), 20)
    assert [hit.row for hit in hits if hit.row == 3] == [3]
    assert next(hit.cosine for hit in hits if hit.row == 3) == 0


def test_queries_of_another_width(tmp_path):
    with pytest.raises(BadData, match="has 5 numbers"):
        nearest_rows(written(tmp_path / "e.npy", vectors(5)), vectors(1, width=5), 2)


def test_an_embedding_of_other_settings_is_refused(tmp_path):
    file = written(tmp_path / "e.npy", vectors(5))
    written(tmp_path / "q.npy", vectors(2), image_size=12)
    written(tmp_path / "good.npy", vectors(2, seed=3))
    with pytest.raises(Exception, match="has image_size 12"):
        resolve_queries([str(tmp_path / "q.npy")], file, pictures=Pictures(file))
    both = resolve_queries([str(tmp_path / "good.npy"), "3.png"], file, pictures=Pictures(file))
    np.testing.assert_array_equal(np.stack([one.vector for one in both[:2]]), vectors(2, seed=3))
    assert [one.own_row for one in both] == [None, None, 3]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Six pictures of noise, in folders of their colour, one with a hostile name; and two models."""
    folder = tmp_path_factory.mktemp("work")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 120, (40, 48, 3))
        pixels[..., number % 2] += 130
        name = "<b>&.png" if number == 5 else f"{number}.png"
        path = folder / "photos" / ("red", "green")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.fromarray(pixels.astype(np.uint8))))
    make_run_folder(folder / "model")
    return folder


@pytest.fixture
def run(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    if not Path("e.parquet").exists():
        assert main(["embed", "photos", "--model", "model", "--out", "e.parquet", "--workers", "0"]) == 0

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments])
        return code, *capsys.readouterr()

    return call


def test_a_picture_finds_itself_first_and_a_name_finds_the_rest(run):
    code, out, _ = run("search", "photos/red/2.png", "green/1.png", "--in", "e.parquet", "-k", "3", "--json")
    assert code == 0
    first, second = json.loads(out)["queries"]
    assert first["hits"][0]["name"] == "red/2.png"
    assert first["hits"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert first["hits"][0]["label"] == "red"
    assert "green/1.png" not in [hit["name"] for hit in second["hits"]]
    assert [hit["rank"] for hit in second["hits"]] == [1, 2, 3]
    code, out, _ = run("search", "photos/red/2.png", "--in", "e.parquet", "-k", "1")
    assert out.split() == ["2.png", "1", "1.0000", "red", "red/2.png"]


def test_the_last_line_counts_images_decoded_at_reduced_size(run, tmp_path):
    (tmp_path / "large").mkdir()
    for number, size in enumerate([(400, 300), (60, 50)]):
        (tmp_path / "large" / f"{number}.jpg").write_bytes(jpeg(photo(number, *size)))
    typed = ("embed", str(tmp_path / "large"), "--model", "model", "--workers", "0", "--out")
    _, out, _ = run(*typed, str(tmp_path / "r.npy"))
    assert "2 images × 512 numbers by model, 1 decoded at reduced size (--full-decode decodes them whole); " in out
    _, out, _ = run(*typed, str(tmp_path / "f.npy"), "--full-decode", "--json")
    assert json.loads(out)["decoded_reduced"] == 0


def test_all_images_of_an_embedding_as_queries(run):
    _, out, _ = run("search", "e.parquet", "--in", "e.parquet", "-k", "1", "--json")
    queries: list[dict[str, Any]] = json.loads(out)["queries"]
    assert len(queries) == 6
    assert all(one["query"] != one["hits"][0]["name"] for one in queries)


def test_what_cannot_be_searched_is_one_line(run, photos):
    other = photos / "other"
    if not other.exists():
        make_run_folder(other, mean=[0.5, 0.5, 0.5])
        run("embed", "photos", "--model", "other", "--out", "o.parquet", "--workers", "0")
    (photos / "broken.png").write_bytes(b"no image")
    for arguments, words in (
        (("red/2.pn", "--in", "e.parquet"), "Did you mean 'red/2.png'"),
        (("zzz", "--in", "e.parquet"), "Names there are like 'green/1.png'"),
        (("red/2.png", "--in", "e.parquet", "--html", "photos"), "photos is a folder"),
        (("photos/red/2.png", "--in", "nothing.parquet"), "there is no embedding at nothing.parquet"),
        (("photos/red/2.png", "--in", "e.parquet", "--model", "resnet19"), "Did you mean 'resnet18'"),
        (("o.parquet", "--in", "e.parquet"), "has mean"),
        (("broken.png", "--in", "e.parquet"), "is unreadable: not an image"),
        (("red/2.png", "--in", "e.parquet", "--html", "p.html", "--images", "nowhere"), "no data at nowhere"),
        (("red/2.png", "--in", "e.parquet", "--html", "p.html", "--images", "photos/red"), "none of the images of"),
    ):
        code, out, err = run("search", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert words in err
        assert err.count("\n") == 1
    assert not (photos / "p.html").exists()


def test_weights_that_changed_are_refused(run, photos, monkeypatch):
    import torch

    from disco_zoo.embedding import query
    from disco_zoo.models.load import load_model

    def retrained(name: str):
        named = load_model(name)
        with torch.no_grad():
            next(named.backbone.parameters()).view(-1)[0] += 1e-3
        return named

    monkeypatch.setattr(query, "load_model", retrained)
    code, _, err = run("search", "photos/red/2.png", "--in", "e.parquet")
    assert code == 2
    assert "cannot be compared" in err


def test_too_many_queries_are_told_before_they_are_embedded(run, monkeypatch):
    from disco_zoo.embedding import query

    monkeypatch.setattr(query, "MAX_QUERIES", 5)
    monkeypatch.setattr(query, "load_model", None)
    code, _, err = run("search", "photos", "--in", "e.parquet")
    assert code == 2
    assert "6 queries are too many" in err


def test_the_page_survives_images_that_came_and_went(run, photos, tmp_path):
    shutil.copytree(photos / "photos", tmp_path / "photos")
    kept = tmp_path / "photos" / "green"
    (kept / "1.png").unlink()
    (tmp_path / "photos" / "green" / "0_new.png").write_bytes((kept / "3.png").read_bytes())
    page = tmp_path / "p.html"
    query = ("search", "red/2.png", "--in", "e.parquet", "--html", str(page), "--images", str(tmp_path / "photos"))
    code, out, _ = run(*query, "--json")
    assert code == 0
    assert page.read_text().count("picture not found") == 1
    names = [hit["name"] for hit in json.loads(out)["queries"][0]["hits"]]
    figures = page.read_text().split("<figure ")[2:]  # after the query's own
    assert ["picture not found" in figure for figure in figures] == [name == "green/1.png" for name in names]
    assert [
        thumbnail(Image.open(photos / "photos" / name).convert("RGB")) in figure
        for name, figure in zip(names, figures, strict=True)
    ] == [name != "green/1.png" for name in names]


def test_a_dark_query_is_as_dark_as_in_its_set(photos, tmp_path, monkeypatch):
    """Alone, a query of values up to 1000 would be four times as bright."""
    monkeypatch.chdir(photos)
    (tmp_path / "deep").mkdir()
    for name, top in (("bright", 4000), ("dark", 1000)):
        values = np.random.default_rng(top).integers(0, top, (40, 48)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "deep" / f"{name}.png")
    file = disco_zoo.embed(str(tmp_path / "deep"), "model", tmp_path / "d.parquet", workers=0, engine="torch")
    assert file.facts.white == {"I;16": 4095}
    (query,) = resolve_queries([str(tmp_path / "deep" / "dark.png")], file, pictures=Pictures(file))
    np.testing.assert_allclose(query.vector, file.rows([file.row_of_name["dark.png"]])[0], rtol=1e-4, atol=1e-5)
