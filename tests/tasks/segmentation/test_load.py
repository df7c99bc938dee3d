"""A trained head in use: loaded again, on photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shape_images import SHAPES, deepen, make_mask_folder

from disco_zoo.cli import main
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import PIXELS_VARIABLE
from disco_zoo.errors import BadData, BadRunFolder
from disco_zoo.tasks.segmentation import run
from disco_zoo.tasks.segmentation.check import check_masks
from disco_zoo.tasks.segmentation.data import open_masked_pair, whole_rgb
from disco_zoo.tasks.segmentation.measure import pixel_counts, segmentation_figures
from disco_zoo.tasks.segmentation.run import load_segmenter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "start", [pytest.param(("--untrained", "--seed", "3")), pytest.param((), marks=pytest.mark.slow)]
)
def test_a_head_loads_with_its_backbone_and_predicts_again(start: tuple[str, ...], tmp_path: Path) -> None:
    data, out = make_mask_folder(tmp_path / "data", {"train": 12, "val": 4}, 64), tmp_path / "run"
    model = "test_resnet" if start else "disco_effb0"
    options = ("--device", "cpu", "--workers", "0", "--set", "image_size=64", "--set", "steps=1", *start)
    assert main(["segment", model, "--data", str(data), "--out", str(out), *options]) == 0
    before = torch.get_rng_state()
    loaded = load_segmenter(out)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.class_names == ("background", *SHAPES)
    test = check_masks(*open_masked_pair(str(data)))[1]
    counts = sum(
        pixel_counts(loaded.predict(path), test.mask(n), 4) for n, (path, _) in enumerate(test.pairs)
    )  # the figures of the run, again
    figures = json.loads((out / "run.json").read_text())["figures"]
    assert segmentation_figures(counts, loaded.class_names) == figures  # type: ignore[arg-type]
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "backbone_sha256": "0" * 64}))
    with pytest.raises(BadRunFolder, match="a head for other weights"):
        load_segmenter(out)
    with pytest.raises(BadRunFolder, match="holds no trained head"):
        load_segmenter(data)


def test_white_of_a_deep_photo_is_that_of_the_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = make_mask_folder(tmp_path / "data", {"train": 4, "val": 2}, 64), tmp_path / "run"
    test = open_masked_pair(str(data))[1]
    assert test is not None
    for split in ("train", "val"):
        deepen(open_masked_pair(str(data))[split == "val"].pairs[0][0].parent)  # type: ignore[union-attr]
    options = ("--device", "cpu", "--workers", "0", "--set", "image_size=64", "--set", "steps=1", "--untrained")
    assert main(["segment", "test_resnet", "--data", str(data), "--out", str(out), *options]) == 0
    assert json.loads((out / "run.json").read_text())["white"] == {"I;16": 4095}
    segmenter, photo = load_segmenter(out), test.pairs[0][0]
    Image.fromarray(np.asarray(Image.open(photo)) // 4).save(photo)
    seen: list[Image.Image] = []
    monkeypatch.setattr(run, "predict", lambda network, image, size: seen.append(image))
    segmenter.predict(photo)
    expected = whole_rgb(photo, ranges=ValueRanges({"I;16": 4095}))
    assert seen[0].tobytes() == expected.tobytes() != whole_rgb(photo).tobytes()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the package itself does
def test_the_limit_of_pixels_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(make_mask_folder(tmp_path / "data", {"train": 2, "val": 1}, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 4)
    with pytest.raises(BadData, match=rf"above the limit\. To read it: export {PIXELS_VARIABLE}={64 * 64}"):
        check_masks(*open_masked_pair(data))
    monkeypatch.setenv(PIXELS_VARIABLE, str(64 * 64))
    assert len(check_masks(*open_masked_pair(data))[0].pairs) == 2
