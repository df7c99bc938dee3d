"""Images decoded once for all their views, and reduced where no crop needs more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_makers import encode, make_parquet
from photo_makers import PHOTOS, jpeg, photo, sharpness
from PIL import Image

from disco_zoo.core.random_streams import drawing_from
from disco_zoo.data.open_source import open_source
from disco_zoo.data.source_image import PIXELS_VARIABLE, SourceImage, too_many_pixels
from disco_zoo.errors import CannotRead
from disco_zoo.transforms.ops import RandomCrop
from disco_zoo.transforms.view_dataset import ViewDataset, ViewPlan, view_plan
from disco_zoo.transforms.view_recipes import draw_view, moco_v2_view, plain_view

LARGE = photo(9, 1200, 900)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_odd_jpegs_are_reduced_and_become_rgb(mode: str) -> None:
    encoded = jpeg(PHOTOS[3].convert(mode))
    assert np.array_equal(SourceImage(encoded).pixels(1), np.asarray(SourceImage(encoded).rgb()))
    assert SourceImage(jpeg(LARGE.convert(mode))).pixels(2).shape == (450, 600, 3)


def test_only_a_jpeg_is_reduced_and_by_its_own_factors(tmp_path: Path) -> None:
    source = SourceImage(jpeg(LARGE))
    assert [tuple(source.pixels(n).shape[:2]) for n in (1, 2, 3, 5, 100)] == [
        (900, 1200),
        (450, 600),
        (450, 600),
        (225, 300),
        (113, 150),
    ]
    LARGE.save(tmp_path / "a.png")
    assert SourceImage((tmp_path / "a.png").read_bytes()).pixels(4).shape == (900, 1200, 3)
    assert SourceImage(LARGE).pixels(4).shape == (900, 1200, 3)


def test_no_crop_of_a_reduced_image_is_enlarged() -> None:
    for size in ((4000, 3000), (1200, 900), (5000, 600), (500, 375), (300, 4000)):
        for crop in (RandomCrop(224, (0.2, 1.0), (3 / 4, 4 / 3)), RandomCrop(96, (0.05, 0.14), (3 / 4, 4 / 3))):
            factor = crop.reduction(*size)
            view = moco_v2_view(crop.size, crop_scale=crop.scale)
            boxes = []
            for number in range(300):
                with drawing_from("view", number):
                    boxes.append(view.draw(*size)[0])
            shortest = min(min(box.width, box.height) for box in boxes)
            assert factor == 1 or shortest / factor >= crop.size - 1  # a crop's sides are rounded
    assert RandomCrop(224, (0.2, 1.0), (3 / 4, 4 / 3)).reduction(500, 375) == 1
    assert RandomCrop(224, (0.2, 1.0), (3 / 4, 4 / 3)).reduction(4000, 3000) == 5


def test_views_of_a_reduced_image_are_those_of_the_whole() -> None:
    """As sharp within 5 %. The crop is cut on the grid of reduced pixels, up to half of one beside the whole one's."""
    encoded = jpeg(LARGE)
    view, whole = plain_view(64, crop_scale=(0.2, 1.0)), SourceImage(SourceImage(encoded).rgb())
    assert view.crop.reduction(1200, 900) == 6
    ours = torch.stack([draw_view(view, SourceImage(encoded), 0, 0, 0, n) for n in range(20)]).float()
    expected = torch.stack([draw_view(view, whole, 0, 0, 0, n) for n in range(20)]).float()
    assert (ours - expected).abs().mean() < 3
    assert (ours - expected).mean().abs() < 0.1
    assert sharpness(ours).mean() == pytest.approx(sharpness(expected).mean().item(), rel=0.05)


def test_a_view_is_the_same_alone_and_among_others_and_with_any_number_of_threads() -> None:
    views = {"recipe": "moco_v2", "small_views": 3, "small_size": 24}
    plan = view_plan(views, 128, 2)
    assert plan.small is not None
    encoded = jpeg(LARGE)
    assert plan.view.crop.reduction(1200, 900) != plan.small.crop.reduction(1200, 900)
    together = plan.draw(SourceImage(encoded), 3, 1, 7)
    for number in (4, 1, 0, 3, 2):
        view = plan.view if number < 2 else plan.small
        assert torch.equal(draw_view(view, SourceImage(encoded), 3, 1, 7, number), together[number])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        again = plan.draw(SourceImage(encoded), 3, 1, 7)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))


def test_damaged_jpegs_are_replaced_and_reported_by_their_views(tmp_path: Path) -> None:
    whole = [jpeg(image) for image in PHOTOS]
    cells = [whole[0][:-500], whole[1], whole[2][: len(whole[2]) // 2], b"\xff\xd8no photo", whole[3]]
    source = open_source(make_parquet(tmp_path / "bad.parquet", images=cells, labels=[0, 1, 0, 1, 0]))
    dataset = ViewDataset(source, ViewPlan(plain_view(16), 2), seed=0, epoch=0)
    items = [dataset[index] for index in range(5)]
    assert [item["index"] for item in items] == [1, 1, 4, 4, 4]
    assert [len(item["unreadable"]) for item in items] == [1, 0, 1, 1, 0]
    assert "truncated" in items[0]["unreadable"][0][1]
    assert "not an image" in items[3]["unreadable"][0][1]
    assert torch.equal(items[2]["views"][1], items[4]["views"][1])


@pytest.mark.parametrize(("limit", "is_read"), [(98, False), (100, True), (None, True)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the package itself does
def test_the_limit_of_pixels_is_a_setting(limit: int | None, is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if limit is not None:
        monkeypatch.setenv(PIXELS_VARIABLE, str(limit))
    content = encode(Image.new("RGB", (10, 10)))
    if is_read:
        assert SourceImage(content).rgb().size == (10, 10)
        return
    with pytest.raises(Image.DecompressionBombError) as found:
        SourceImage(content)
    assert too_many_pixels(found.value).endswith(
        f"100 pixels, above the limit. To read it: export {PIXELS_VARIABLE}=100"
    )


def test_a_limit_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIXELS_VARIABLE, "1e9")
    with pytest.raises(CannotRead, match="is no number of pixels"):
        SourceImage(b"")
