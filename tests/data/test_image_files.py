"""What of a folder, a tar or a shard is an image: the same answer everywhere, and what is left out is said."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image, features
from timm.data import create_dataset

from disco_zoo.data.image_files import IMAGE_SUFFIXES, is_hidden, readable_suffixes
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.scan import samples
from disco_zoo.errors import BadData

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".jp2": "JPEG2000",
    ".tga": "TGA",
}
JUNK = (".ipynb_checkpoints/a-checkpoint.png", "cat/._x.png", "__MACOSX/cat/x.png", "cat/.hidden/y.png")


def encoded(kind: str, shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 90, 90)).save(file, kind)
    return file.getvalue()


def contents() -> dict[str, bytes]:
    files = {
        f"{'cat' if n % 2 else 'dog'}/{n}{suffix}": encoded(kind, 10 * n)
        for n, (suffix, kind) in enumerate(FORMATS.items())
    }
    files["cat/UPPER.JPG"] = encoded("JPEG", 200)
    files |= {name: encoded("PNG", 0) for name in JUNK}
    return files | {"cat/notes.txt": b"none", "labels.csv": b"none", "cat/clip.mp4": b"none", "README": b"none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "photos"
    for name, data in contents().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def tar(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as file:
        file.add(folder, arcname="")
    return path


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_all_that_pillow_decodes_is_read_and_nothing_hidden(
    form: str, folder: Path, tar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_source({"folder": folder, "tar": tar}[form])
    names = {Path(source.path(index).partition(" in ")[0]).name for index in range(len(source))}
    assert names == {f"{n}{suffix}" for n, suffix in enumerate(FORMATS)} | {"UPPER.JPG"}
    assert source.class_names == ["cat", "dog"]
    assert all(source.image(index).size == (16, 16) for index in range(len(source)))
    said = capsys.readouterr().err.replace("\n", " ")
    assert "1 .mp4" in said
    assert "1 without suffix" in said
    assert "hidden: 4" in said
    assert ".txt" not in said  # belongs beside images


def test_a_shard_gives_the_same_images(tar: Path) -> None:
    found = {Path(sample.image.name).name for sample in samples(tar)}
    assert found == {f"{n}{suffix}" for n, suffix in enumerate(FORMATS)} | {"UPPER.JPG"}


def test_the_order_is_timms(folder: Path, tar: Path) -> None:
    suffixes = ";".join(sorted(readable_suffixes()))
    theirs = create_dataset("", root=str(folder), search_split=False, input_key=suffixes).reader.filenames(
        absolute=True
    )
    ours = open_source(folder)
    assert [ours.path(index) for index in range(len(ours))] == [
        path for path in theirs if not is_hidden(Path(path).relative_to(folder).as_posix())
    ]


def test_a_folder_of_hidden_images_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(encoded("PNG", 1))
    with pytest.raises(BadData, match=r"hidden images alone \(1\)"):
        open_source(tmp_path)


def test_what_this_pillow_cannot_decode_is_no_image() -> None:
    assert (".avif" in readable_suffixes()) == features.check("avif")
    assert readable_suffixes() <= set(IMAGE_SUFFIXES)
    assert {".png", ".jpg", ".webp", ".gif"} <= readable_suffixes()


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a/b.png", False),
        ("a.b/c.png", False),
        ("./a.png", False),
        ("../a.png", False),
        (".a/b.png", True),
        ("a/._b.png", True),
        ("cat/@eaDir/b.png", True),
        ("#recycle/b.png", True),
    ],
)
def test_hidden_names(path: str, hidden: bool) -> None:
    assert is_hidden(path) is hidden
