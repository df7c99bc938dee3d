"""Maps of an embedding: the right points, PNG and SVG, the same every time."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from embed_makers import written
from PIL import Image

from disco_zoo.cli import main
from disco_zoo.embedding.map import draw_map
from disco_zoo.embedding.map_page import map_page
from disco_zoo.errors import BadData, MissingExtra
from disco_zoo.plotting.embedding_map import choose_points, project_by

pytestmark = pytest.mark.usefixtures("one_thread")


def clusters(each: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), each)
    return (6 * rng.normal(size=(3, 16))[labels] + rng.normal(size=(3 * each, 16))).astype(np.float32), labels


def test_pca_is_the_projection_on_the_two_widest_directions():
    features = torch.from_numpy(clusters()[0])
    points, kind = project_by(features, "pca")
    unit = (features / features.norm(dim=1, keepdim=True)).double()
    centered = unit - unit.mean(dim=0)
    _, directions = torch.linalg.eigh(centered.T @ centered)
    expected = centered @ directions[:, [-1, -2]]
    assert kind == "PCA"
    torch.testing.assert_close(points.abs().double(), expected.abs(), atol=1e-5, rtol=1e-4)


def test_png_and_svg_are_the_same_every_time_and_name_the_classes(tmp_path):
    vectors, labels = clusters()
    file = written(tmp_path / "e.npy", vectors, labels=labels)
    first = draw_map(file, tmp_path / "a.png", method="tsne", max_points=20)
    again = draw_map(file, tmp_path / "b.png", method="tsne", max_points=20)
    assert (first.method, str(first.choice)) == ("t-SNE", "20 of 30 images")
    assert first.png.read_bytes() == again.png.read_bytes()
    assert first.svg.read_bytes() == again.svg.read_bytes()
    assert first.png.read_bytes()[:4] == b"\x89PNG"
    assert first.svg.read_text().count("<use ") > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg", "e.json", "e.npy"]


def test_titles(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **options: titles.append(text))
    vectors, labels = clusters()
    file = written(tmp_path / "e.npy", vectors, labels=labels, data="/somewhere/photos")
    draw_map(file, tmp_path / "m.png", method="pca", max_points=100)
    draw_map(file, tmp_path / "m.png", method="pca", max_points=9, title="mine")
    assert titles == 2 * ["tiny on photos\nPCA of 30 images"] + 2 * ["mine\nPCA of 9 of 30 images"]  # PNG and SVG


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vectors, _ = clusters()
    written(tmp_path / "e.npy", vectors)
    (tmp_path / "folder.svg").mkdir()
    assert main(["map", "e.npy", "--method", "pca"]) == 0
    assert capsys.readouterr().out == "e.png and e.svg: PCA of 30 images\n"
    kept = (tmp_path / "e.svg").read_bytes()
    (tmp_path / "e.png").unlink()
    for arguments, words in (
        (("e.npy",), "e.svg is there already. Choose another --out, or add --yes"),
        (("e.npy", "--out", "m.jpg"), "must end in .png"),
        (("e.npy", "--out", "folder.png"), "folder.svg is a folder"),
        (("f.npy",), "Did you mean 'e.npy'"),
    ):
        assert main(["map", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "e.svg").read_bytes() == kept
    assert main(["map", "e.npy", "--method", "pca", "--yes"]) == 0


def test_too_few_images_and_a_missing_package(tmp_path, monkeypatch):
    with pytest.raises(BadData, match="at least 3"):
        project_by(torch.zeros(2, 4), "pca")
    monkeypatch.setattr("disco_zoo.plotting.embedding_map.importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(MissingExtra, match=r"disco-zoo\[map\]"):
        project_by(torch.randn(40, 4), "umap")


@pytest.mark.slow
def test_umap_keeps_clusters_apart():
    pytest.importorskip("umap")
    vectors, labels = clusters(40)
    points, kind = project_by(torch.from_numpy(vectors), "umap")
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(float("inf"))
    nearest = distances.argmin(dim=1).numpy()
    assert kind == "UMAP"
    assert (labels[nearest] == labels).mean() > 0.95


def photos(folder, number):
    """Pictures of one colour each, one with a name that is markup."""
    folder.mkdir()
    names = [f"{row}.png" for row in range(number - 1)] + ["<script>&.png"]
    for row, name in enumerate(names):
        Image.new("RGB", (64, 48), (row * 20, 0, 0)).save(folder / name)
    return names


def test_a_page_has_a_point_a_name_and_a_thumbnail_of_each_image(tmp_path, capsys):
    names = photos(tmp_path / "photos", 9)
    vectors, labels = clusters(3)
    written(tmp_path / "e.parquet", vectors, names=names, labels=labels, data=str(tmp_path / "photos"))
    out = tmp_path / "sub" / "m.html"
    assert main(["map", str(tmp_path / "e.parquet"), "--method", "pca", "--out", str(out)]) == 0
    assert "PCA of 9 images. Open it" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert text.count("<circle") == 9
    assert text.count("</script>") == 2
    assert text.count("<script>&") == 0
    assert "<title>&lt;script&gt;&amp;.png (c)</title>" in text
    values = json.loads(re.search(r'id="points">(.*?)</script>', text).group(1))
    assert {value["name"] for value in values} == set(names)
    for value in values:
        picture = Image.open(io.BytesIO(base64.b64decode(value["picture"])))
        assert max(picture.size) == 64  # not enlarged
        assert abs(picture.getpixel((30, 20))[0] - 20 * names.index(value["name"])) < 6


def test_the_legend_of_a_page_knows_images_without_a_label(tmp_path):
    vectors, labels = clusters(3)
    file = written(tmp_path / "e.parquet", vectors, labels=np.where(labels == 1, -1, labels))
    choice = choose_points(torch.from_numpy(file.labels.copy()), len(file), 100)
    points = torch.from_numpy(vectors[choice.indices, :2])
    text, _ = map_page(file, points, "PCA", choice, "map", lambda row: Image.new("RGB", (8, 8)))
    assert re.findall(r"</i>([^<]*)</button>", text) == ["no label", "a", "c"]


def test_a_page_says_how_many_pictures_are_gone(tmp_path, capsys):
    names = photos(tmp_path / "photos", 9)
    written(tmp_path / "e.parquet", clusters(3)[0], names=names, data=str(tmp_path / "photos"))
    (tmp_path / "photos" / names[0]).unlink()
    out = tmp_path / "m.html"
    assert main(["map", str(tmp_path / "e.parquet"), "--method", "pca", "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["points"], facts["missing"]) == (9, 1)


def test_images_are_asked_for_a_page_alone(tmp_path, capsys):
    written(tmp_path / "e.npy", clusters()[0])
    assert main(["map", str(tmp_path / "e.npy"), "--images", "photos"]) == 2
    assert "--out FILE.html" in capsys.readouterr().err
