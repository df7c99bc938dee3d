"""The page of pictures: whole in one file, sound HTML, and safe from names."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from data_makers import encode
from embed_makers import written
from PIL import Image

from disco_zoo.embedding.contact_sheet import THUMBNAIL_SIDE, Shown, contact_sheet
from disco_zoo.embedding.nearest_rows import nearest_rows
from disco_zoo.embedding.query import Pictures, resolve_queries
from disco_zoo.embedding.results import Found, as_page
from disco_zoo.errors import BadData, UnreadableImage

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects pictures and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if self.open_tags[-1:] != ["style"]:
            self.words.append(data)


def decoded(picture) -> Image.Image:
    head, _, body = picture["src"].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def test_pictures_are_inside_and_small_ones_are_not_enlarged():
    large = Shown(lambda: Image.new("RGB", (640, 320), "red"), ("query", "a"))
    small = Shown(lambda: Image.new("RGB", (32, 32), "blue"), ("0.5", "b"))
    text = contact_sheet("Nearest", "note", [("one", large, [small, small])])
    page = Page(text)
    assert [decoded(picture).size for picture in page.pictures] == [
        (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2),
        *[(32, 32)] * 2,
    ]
    assert decoded(page.pictures[0]).getpixel((5, 5))[0] > 240
    assert "http" not in text.replace("http-equiv", "")
    assert [picture["alt"] for picture in page.pictures] == ["a", "b", "b"]


def test_names_are_words_and_never_markup():
    name = '"><script>alert(1)</script>&.png'
    page = Page(contact_sheet(name, name, [(name, Shown(lambda: Image.new("RGB", (9, 9)), (name, name)), [])]))
    assert "script" not in page.tags
    assert page.words.count(name) == 6  # title, heading, note, query, and two lines below the picture
    assert page.pictures[0]["alt"] == name


def test_a_picture_that_is_gone_leaves_the_page_whole():
    def gone() -> Image.Image:
        raise UnreadableImage(0, "x", "gone")

    page = Page(contact_sheet("t", "n", [("q", Shown(gone, ("query", "x")), [])]))
    assert page.pictures == []
    assert "picture not found" in page.words


def test_the_page_of_a_search_shows_what_was_found(tmp_path):
    colors = ("red", "green", "blue")
    paths = []
    for color in colors:
        paths.append(str(tmp_path / f"{color}.png"))
        (tmp_path / f"{color}.png").write_bytes(encode(Image.new("RGB", (20, 20), color)))
    bank = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1]], np.float32)
    file = written(tmp_path / "e.npy", bank, names=paths, labels=np.array([0, 1, 2]))
    pictures = Pictures(file)
    queries = resolve_queries([paths[0]], file, pictures=pictures)
    hits = nearest_rows(file, queries[0].vector[None], 2, [0])
    page = Page(as_page(file, [Found(queries[0], hits[0])], pictures))
    seen = [decoded(picture).convert("RGB").getpixel((9, 9)) for picture in page.pictures]
    assert [max(range(3), key=pixel.__getitem__) for pixel in seen] == [0, 1, 2]
    assert "0.994" in page.words
    assert "green.png" in page.words


def moved_files(folder: Path, *names: str) -> str:
    for grey, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 10 * grey).save(folder / name)
    return str(folder)


def test_pictures_of_a_list_are_found_by_name_in_the_folder_they_moved_to(tmp_path):
    names = ["/gone/red/2.png", "/gone/green/2.png", "/gone/9.png"]
    file = written(tmp_path / "e.npy", np.eye(3, dtype=np.float32), names=names)
    folder = moved_files(tmp_path / "here", "0.png", "green/2.png", "sub/9.png", "red/2.png")
    pictures = Pictures(file, folder)
    assert [pictures.open(row).getpixel((0, 0))[0] // 10 for row in range(3)] == [3, 1, 2]


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (("a/1.png", "2.png"), "1 of the 3 images of .* such as '/gone/3.png'"),
        (("a/1.png", "b/1.png", "2.png", "3.png"), "1 of the 3 images of .* such as '/gone/1.png'"),
    ],
)
def test_pictures_of_a_list_that_are_missing_or_there_twice_are_refused(tmp_path, there, words):
    file = written(tmp_path / "e.npy", np.eye(3, dtype=np.float32), names=[f"/gone/{n}.png" for n in (1, 2, 3)])
    with pytest.raises(BadData, match=words):
        Pictures(file, moved_files(tmp_path / "here", *there)).check()


def test_a_list_of_another_length_is_no_list_of_the_moved_files(tmp_path):
    file = written(tmp_path / "e.npy", np.eye(3, dtype=np.float32), names=[f"/gone/{n}.png" for n in (1, 2, 3)])
    moved_files(tmp_path, "1.png", "2.png")
    (tmp_path / "list.txt").write_text("1.png\n2.png\n")
    with pytest.raises(BadData, match=r"has 2 images, and .* was made of 3"):
        Pictures(file, str(tmp_path / "list.txt")).check()


def test_the_full_name_shows_where_the_mouse_rests():
    name = "holiday/" + 40 * "long" + ".png"
    page = contact_sheet("t", "n", [("q", Shown(lambda: Image.new("RGB", (9, 9)), ("0.5", "cut"), name), [])])
    assert f'<figure title="{name}">' in page
