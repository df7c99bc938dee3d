"""Every mode and bit depth becomes what an independent reading says; what is white is decided for a whole source."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import make_tar
from PIL import Image, ImageCms

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_labeled_pair, open_test_beside
from disco_zoo.data.summary import change_line, look_facts, summary_of
from disco_zoo.errors import BadData, UnreadableImage

HEIGHT, WIDTH = 12, 17
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
RGB_RAMP = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, written by hand: Pillow writes none in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = 1 if values.ndim == 2 else values.shape[2]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def stored(image: Image.Image, kind: str = "TIFF", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scaled(white: float, kind: Any) -> Image.Image:
    return Image.fromarray((RAMP * white).astype(kind))


def tiff16(values: np.ndarray, planar: int) -> bytes:
    """A TIFF of 16-bit colours, interleaved (1) or plane by plane (2), written by hand."""
    height, width, _ = values.shape
    ordered = values if planar == 1 else values.transpose(2, 0, 1)
    data, strips = ordered.astype("<u2").tobytes(), 1 if planar == 1 else 3
    size = len(data) // strips
    lists = [[16] * 3, [8 + size * strip for strip in range(strips)], [size] * strips]
    places = [8 + len(data) + 12 * number for number in range(3)]
    bits, offsets, sizes = places if strips > 1 else (places[0], lists[1][0], size)
    facts = [(256, 1, width), (257, 1, height), (258, 3, bits), (259, 1, 1), (262, 1, 2), (273, strips, offsets)]
    facts += [(277, 1, 3), (278, 1, height), (279, strips, sizes), (284, 1, planar)]
    entries = b"".join(struct.pack("<HHII", tag, 3 if tag == 258 else 4, count, value) for tag, count, value in facts)
    stored_lists = struct.pack("<3H6x", *lists[0]) + b"".join(
        struct.pack(f"<{strips}I", *found).ljust(12, b"\0") for found in lists[1:]
    )
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(stored_lists))
    return start + data + stored_lists + struct.pack("<H", len(facts)) + entries + bytes(4)


def rgb_of(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def deep(white: float) -> np.ndarray:
    """The ramp in 8 bits, stored as whole numbers up to `white` in between."""
    return rgb_of(np.floor(RAMP * white) / white * 255)


OVER_WHITE = 255 * (1 - RAMP[..., None]) + 100 * RAMP[..., None] * np.ones(3)
ALPHA = Image.fromarray((RAMP * 255).astype(np.uint8))
EIGHT = Image.fromarray((RGB_RAMP * 255).astype(np.uint8))
INDICES = (RAMP * 3.99).astype(np.uint8)
COLORS = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 255], [255, 255, 255]], np.uint8)


def palette() -> Image.Image:
    image = Image.frombytes("P", (WIDTH, HEIGHT), INDICES.tobytes())
    image.putpalette(COLORS.tobytes())
    return image


def with_alpha(mode: str) -> Image.Image:
    image = Image.new(mode[:-1], (WIDTH, HEIGHT), 100 if mode == "LA" else (100, 100, 100))
    image.putalpha(ALPHA)
    return image


CASES: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "8 in 16": (lambda: stored(scaled(255, np.uint16), "PNG"), deep(255)),
    "10 in 16": (lambda: stored(scaled(1023, np.uint16), "PNG"), deep(1023)),
    "12 in 16": (lambda: stored(scaled(4095, np.uint16), "PNG"), deep(4095)),
    "12 in 16, TIFF": (lambda: stored(scaled(4095, np.uint16)), deep(4095)),
    "14 in 16": (lambda: stored(scaled(16383, np.uint16), "PNG"), deep(16383)),
    "two values in 16": (lambda: stored(Image.fromarray((RAMP > 0.5).astype(np.uint16))), rgb_of((RAMP > 0.5) * 255)),
    "16": (lambda: stored(scaled(65535, np.uint16), "PNG"), rgb_of((RAMP * 65535).astype(int) >> 8)),
    "32 with 8": (lambda: stored(scaled(255, np.int32)), deep(255)),
    "32 with 16": (lambda: stored(scaled(65535, np.int32)), rgb_of((RAMP * 65535).astype(int) >> 8)),
    "float to 1": (lambda: stored(scaled(1, np.float32)), rgb_of(RAMP * 255)),
    "float to 255": (lambda: stored(scaled(255, np.float32)), rgb_of(RAMP * 255)),
    "float to 65535": (lambda: stored(scaled(65535, np.float32)), rgb_of(RAMP * 255)),
    "12 bits a colour": (lambda: png16((RGB_RAMP * 4095).astype(int)), RGB_RAMP * 255),
    "8 bits a colour in 16": (lambda: png16((RGB_RAMP * 255).astype(int)), (RGB_RAMP * 255).astype(int)),
    "16 bits a colour": (lambda: png16((RGB_RAMP * 65535).astype(int)), (RGB_RAMP * 65535).astype(int) >> 8),
    "1 bit": (lambda: stored(Image.fromarray(RAMP > 0.5), "PNG"), rgb_of((RAMP > 0.5) * 255)),
    "palette": (lambda: stored(palette(), "PNG"), COLORS[INDICES]),
    "grey and alpha": (lambda: stored(with_alpha("LA"), "PNG"), OVER_WHITE),
    "colours and alpha": (lambda: stored(with_alpha("RGBA"), "PNG"), OVER_WHITE),
    "YCbCr": (lambda: stored(EIGHT.convert("YCbCr")), np.asarray(EIGHT)),
    "CMYK": (lambda: stored(Image.frombytes("CMYK", (WIDTH, HEIGHT), cmyk().tobytes())), np.asarray(EIGHT)),
    "8 bits": (lambda: stored(EIGHT, "PNG"), np.asarray(EIGHT)),
}


def cmyk() -> np.ndarray:
    return np.concatenate([255 - np.asarray(EIGHT), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], axis=2)


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
@pytest.mark.parametrize("case", CASES)
def test_every_depth_becomes_what_an_independent_reading_says(case: str, kind: str, tmp_path: Path) -> None:
    make, expected = CASES[case]
    image = np.asarray(open_source(made(kind, tmp_path, [make()])).image(0)).astype(float)
    rounded_twice = {"YCbCr": 3, "grey and alpha": 1.5, "colours and alpha": 1.5}
    assert np.abs(image - expected).max() <= rounded_twice.get(case, 1)


def made(kind: str, folder: Path, images: list[bytes]) -> Path:
    suffixes = ["tif" if data[:2] in (b"II", b"MM") else "png" for data in images]
    names = {f"c{n % 2}/{n}.{suffix}": data for n, (suffix, data) in enumerate(zip(suffixes, images, strict=True))}
    if kind == "tar":
        return make_tar(folder / "x.tar", names)
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"image": [{"bytes": data, "path": ""} for data in images]}), folder / "x.parquet")
        return folder / "x.parquet"
    for name, data in names.items():
        (folder / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "x" / name).write_bytes(data)
    return folder / "x"


def dark_and_bright(kind: str, folder: Path) -> ImageSource:
    dark, bright = scaled(200, np.uint16), scaled(4000, np.uint16)
    return open_source(made(kind, folder, [stored(image, "PNG") for image in (dark, bright)]))


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_dark_image_among_bright_ones_stays_dark(kind: str, tmp_path: Path) -> None:
    source = dark_and_bright(kind, tmp_path)
    assert np.asarray(source.image(0)).max() == round(200 * 255 / 4095)
    assert "mode I;16 holds 0 to 4000, of which 4095 is white" in change_line(source)
    assert "modes I;16 2" in summary_of(look_facts(source))
    facts = look_facts(source)
    assert (facts["white"], facts["values"]) == ({"I;16": 4095.0}, {"I;16": [0.0, 4000.0]})


def test_dark_test_images_are_read_as_the_training_images_are(tmp_path: Path) -> None:
    for split, white in (("Train", 4095), ("test", 700)):
        for number in range(4):
            path = tmp_path / "x" / split / f"c{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scaled(white, np.uint16).save(path)
    train, test = open_labeled_pair(str(tmp_path / "x"))
    assert (np.asarray(train.image(0)).max(), np.asarray(test.image(0)).max()) == (255, round(700 * 255 / 4095))
    beside = open_test_beside(open_source(tmp_path / "x"))
    assert beside is not None
    assert np.asarray(beside.image(0)).max() == round(700 * 255 / 4095)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (scaled(9, np.uint16), "mode I;16 with values 0 to 9: too few levels"),
        (scaled(3, np.float32), "mode F with values 0 to 3: too few levels"),
        (scaled(100_000, np.int32), "mode I with values 0 to 100000: nothing says what is white above 65535"),
        (Image.fromarray((RAMP * 200 - 90).astype(np.int32)), "nothing says what is black below 0"),
    ],
)
def test_what_nobody_can_know_is_refused(values: Image.Image, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=said):
        open_source(made("folder", tmp_path, [stored(values)]))


def test_values_that_are_no_numbers_are_unreadable(tmp_path: Path) -> None:
    holes = RAMP.astype(np.float32)
    holes[3, 3] = np.nan
    source = open_source(made("folder", tmp_path, [stored(scaled(1, np.float32)), stored(Image.fromarray(holes))]))
    assert np.asarray(source.image(0)).max() == 255
    with pytest.raises(UnreadableImage, match="no numbers"):
        source.image(1)


def wide_gamut() -> bytes:
    """The primaries of sRGB with a gamma of 1.8 where sRGB has about 2.2, as old Apple screens."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for number in range(count):
        start = 132 + 12 * number
        name, offset, _ = struct.unpack(">4sII", profile[start : start + 12])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset : offset + 14] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256))
            profile[start + 8 : start + 12] = struct.pack(">I", 14)
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_profile_counts_where_it_changes_colours_visibly(kind: str, tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    flat = Image.new("RGB", (8, 8), (128, 128, 128))
    files = [stored(flat, kind, icc_profile=profile, **options) for profile in (srgb, b"damaged", wide_gamut())]
    source = open_source(made("folder", tmp_path, files))
    expected = round(255 * (1.055 * ((128 / 255) ** 1.8) ** (1 / 2.4) - 0.055))  # sRGB's curve, IEC 61966-2-1
    found = [int(np.asarray(source.image(number))[4, 4, 0]) for number in range(3)]
    assert sorted(found)[:2] == [128, 128]  # the folder's order is by class
    assert abs(max(found) - expected) <= 1
    assert abs(int(source.opened(found.index(max(found))).pixels(2)[2, 2, 0]) - expected) <= 1
    assert "1 converted by a colour profile" in change_line(source)


def test_the_first_page_counts_and_photos_are_turned_and_both_are_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pages = [Image.new("L", (9, 5), value) for value in (10, 200)]
    folder = tmp_path / "x"
    folder.mkdir()
    pages[0].save(folder / "0.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "1.gif", save_all=True, append_images=pages[1:])
    EIGHT.save(folder / "2.png", exif=exif)
    EIGHT.save(folder / "3.webp", exif=exif, lossless=True)
    source = open_source(folder)
    assert [int(np.asarray(source.image(number))[0, 0, 0]) for number in (0, 1)] == [10, 10]
    turned = np.rot90(np.asarray(EIGHT), 3)
    for number in (2, 3):
        assert np.array_equal(np.asarray(source.image(number)), turned)
        assert np.array_equal(source.opened(number).pixels(1), turned)
        assert source.opened(number).size == (HEIGHT, WIDTH)
    assert "2 turned by EXIF" in change_line(source)
    assert "2 first page or frame used" in change_line(source)


def test_deep_colours_stored_plane_by_plane_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 3 * 40).reshape(5, 8, 3).astype(np.uint16)
    for planar in (1, 2):
        (tmp_path / f"{planar}.tif").write_bytes(tiff16(values, planar))
    source = open_source(tmp_path)
    assert np.abs(np.asarray(source.image(0), float) - values / 4095 * 255).max() < 1
    with pytest.raises(
        UnreadableImage, match=r"16 bits a colour, stored plane by plane\. Store them interleaved, or as PNG"
    ):
        source.image(1)
    assert source.survey.unreadable == 1
