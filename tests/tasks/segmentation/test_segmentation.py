"""Linear segmentation: figures, data and their faults, and runs as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shape_images import SHAPES, make_mask_folder

from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.tasks.segmentation import measure
from disco_zoo.tasks.segmentation.batches import CroppedImages, whole_image
from disco_zoo.tasks.segmentation.check import check_masks
from disco_zoo.tasks.segmentation.data import VOC_CLASSES, open_masked_pair
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.measure import pixel_counts, predict, segmentation_figures
from disco_zoo.tasks.segmentation.run import pixel_loss
from disco_zoo.tasks.segmentation.settings import segmentation_settings

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_mask_folder(tmp_path / "data", {"train": 12, "val": 4}, SIZE)


def test_intersection_over_union_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 255, 1, 2]])
    predicted = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 2]])
    counts = pixel_counts(predicted, truth, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    figures = segmentation_figures(counts, ["a", "b", "c", "d"])
    assert figures["iou_per_class"] == {"a": 50.0, "b": 50.0, "c": 100.0, "d": None}
    assert figures["miou"] == pytest.approx(200 / 3, abs=1e-3)
    assert figures["pixel_accuracy"] == pytest.approx(500 / 7, abs=1e-3)


def test_what_is_predicted_and_nowhere_true_counts_as_nought() -> None:
    counts = pixel_counts(torch.tensor([1, 0]), torch.tensor([0, 0]), 2)
    assert segmentation_figures(counts, ["a", "b"])["miou"] == 25


def test_folders_classes_and_pixels(data: Path) -> None:
    train, test, notes = check_masks(*open_masked_pair(str(data)))
    assert (len(train), len(test)) == (12, 4)
    assert train.class_names == test.class_names == ("background", *SHAPES)
    assert set(train.mask(0).unique().tolist()) <= {0, 1, 2, 3, 255}
    assert 255 in train.mask(0)
    assert all(note.startswith(("no pixel of ", "255 is ignored: ")) for note in notes)


def test_the_other_layout_and_voc(data: Path, tmp_path: Path) -> None:
    other, voc = tmp_path / "other", tmp_path / "VOCdevkit" / "VOC2012"
    for split in ("train", "val"):
        for ours, ade, vocs in (("images", "images", "JPEGImages"), ("masks", "annotations", "SegmentationClass")):
            for path in (data / split / ours).iterdir():
                for target in (other / ade / split / path.name, voc / vocs / f"{split}{path.name}"):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
        lists = voc / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        names = [path.stem for path in (data / split / "images").iterdir()]
        (lists / f"{split}.txt").write_text("".join(f"{split}{name}\n" for name in names))
    for path in (voc / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert [len(one) for one in open_masked_pair(str(other))] == [12, 4]
    train, test, _ = check_masks(*open_masked_pair(str(tmp_path)))
    assert (len(train), len(test), train.class_names) == (12, 4, VOC_CLASSES)
    assert check_masks(*open_masked_pair(str(other)))[0].class_names == ("0", "1", "2", "3")


def test_one_folder_without_splits_holds_out_a_fifth(data: Path) -> None:
    (data / "train").rename(data / "all")
    for name in ("images", "masks"):
        (data / "all" / name).rename(data / name)
    (data / "val").rename(data / "vall")
    train, test, notes = check_masks(*open_masked_pair(str(data)))
    assert (len(train), len(test)) == (10, 2)
    assert not set(train.pairs) & set(test.pairs)
    assert notes[0].startswith("no test split: 2 of 12 images")
    (data / "images" / "val").mkdir()
    with pytest.raises(BadData, match="has no images with masks"):  # else val would be among what is trained on
        open_masked_pair(str(data))


def test_folders_inside_and_names_with_two_endings(data: Path) -> None:
    for name in ("images", "masks"):
        (data / "train" / name / "day ü").mkdir()
        for path in (data / "train" / name).glob("*.png"):
            path.rename(path.parent / "day ü" / (path.name if name == "images" else f"{path.name}.png"))
    train, _ = open_masked_pair(str(data))
    assert len(train) == 12
    assert all(mask.name == f"{image.name}.png" for image, mask in train.pairs)


def test_a_photo_is_turned_as_its_mask_sees_it(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = data / "train/images/3.png"
    for size, seen in (((60, 80), (60, 80)), ((80, 60), (80, 60))):
        Image.new("RGB", (80, 60)).save(path, exif=exif)
        gray(data / "train/masks/3.png", 1, size)
        train, _, _ = check_masks(*open_masked_pair(str(data)))
        assert train.image([image for image, _ in train.pairs].index(path)).size == seen


def gray(path: Path, value: int, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    Image.new("L", size, value).save(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: [gray(p, 0) for p in (d / "train/masks").iterdir()], "have 1 class: at least two are needed"),
        (lambda d: [gray(p, 255) for p in (d / "train/masks").iterdir()], "have 0 class"),
        (lambda d: gray(d / "train/masks/3.png", 9), "have class 9, but only 4 classes have a name"),
        (lambda d: ((d / "classes.txt").unlink(), gray(d / "val/masks/1.png", 9)), "have class 9, which those of"),
        (lambda d: gray(d / "train/masks/3.png", 0, (10, 12)), "has 64 × 64 pixels, .*3.png 10 × 12"),
        (lambda d: (d / "train/masks/3.png").unlink(), "has no mask for 1 of 12 images. First: 3.png"),
        (lambda d: Image.new("RGB", (SIZE, SIZE)).save(d / "train/masks/3.png"), "is a picture in colours .RGB."),
        (lambda d: (d / "val/masks/1.png").write_text("x"), "1.png is unreadable"),
        (lambda d: (d / "train/images/1.png").write_text("x"), "1.png is unreadable"),
        (lambda d: [p.unlink() for p in (d / "train/images").iterdir()], "holds no images"),
        (lambda d: (d / "train").rename(d / "trian"), "has no images with masks. Expected: images . masks"),
        (lambda d: Image.new("L", (SIZE, SIZE)).save(d / "train/masks/3.png", format="JPEG"), "is a JPEG, which blurs"),
        (lambda d: [gray(p, 255 * (n % 2)) for n, p in enumerate((d / "train/masks").iterdir())], "write it as 1"),
    ],
)
def test_faults_are_found_before_the_training(change: Callable[[Path], Any], expected: str, data: Path) -> None:
    change(data)
    with pytest.raises(BadData, match=expected) as caught:
        check_masks(*open_masked_pair(str(data)))
    assert "\n" not in str(caught.value)


def segmenter(*changes: str, model: str = "test_resnet") -> LinearSegmenter:
    torch.manual_seed(0)
    backbone = create_for_any_size(model, num_classes=0)
    settings = segmentation_settings("fast", ["image_size=64", *changes])
    return LinearSegmenter(backbone, 4, settings, mean=(0.5,) * 3, std=(0.5,) * 3, title=model)


@pytest.mark.parametrize(
    ("model", "changes", "strides"),
    [
        ("test_resnet", ["maps=last"], (32,)),
        ("test_resnet", ["maps=all"], (8, 16, 32)),
        ("test_resnet", ["maps=all", "stride=4"], (4, 8, 16, 32)),
        ("test_vit", ["maps=all"], (16,)),
    ],
)
def test_the_head_is_linear_in_the_maps_and_alone_learns(
    model: str, changes: list[str], strides: tuple[int, ...]
) -> None:
    net = segmenter(*changes, model=model).train()
    assert net.maps.strides == strides
    net(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {"head.1.weight", "head.1.bias"}
    channels = net.head[1].weight.shape[1]
    a, b = torch.randn(2, 1, channels, 3, 3)
    head = net.head.eval()
    with torch.no_grad():
        torch.testing.assert_close(head(a + b), head(a) + head(b) - head(torch.zeros_like(a)), rtol=1e-3, atol=1e-4)


def test_ignored_pixels_have_no_loss() -> None:
    net = segmenter().train()
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    mask = torch.randint(0, 4, (64, 64))
    half = mask.clone()
    half[:, 32:] = 255
    other = half.clone()
    assert pixel_loss(net, ([image] * 2, [half] * 2, {}), "cpu") == pixel_loss(
        net, ([image] * 2, [other] * 2, {}), "cpu"
    )
    assert pixel_loss(net, ([image] * 2, [half] * 2, {}), "cpu") != pixel_loss(
        net, ([image] * 2, [mask] * 2, {}), "cpu"
    )
    nothing = torch.full_like(mask, 255)
    assert pixel_loss(net, ([image] * 2, [nothing] * 2, {}), "cpu") == 0


def test_crops_keep_image_and_mask_together(data: Path) -> None:
    """Shapes are darker than 40 or lighter than 215 in each channel, the noise in between."""
    train, _ = open_masked_pair(str(data))
    crops = CroppedImages(train, segmentation_settings("fast", ["image_size=64", "scales=[0.5, 2.0]"]), seed=0)
    inside = right = 0
    for epoch in range(6):
        for index in range(len(train)):
            pixels, classes, _, _ = crops[(epoch, index)]
            assert pixels is not None
            assert classes is not None
            assert pixels.shape[1:] == classes.shape == (64, 64)
            shape = (classes > 0) & (classes < 255)
            saturated = ((pixels < 45) | (pixels > 210)).all(dim=0)
            inside, right = inside + int(shape.sum()), right + int((shape & saturated).sum())
    assert right / inside > 0.9
    again = CroppedImages(train, crops.settings, seed=0)[(3, 2)][0]
    assert torch.equal(again, crops[(3, 2)][0])  # type: ignore[arg-type]
    assert not torch.equal(again, crops[(4, 2)][0])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 64), (50, 81), (120, 33)])
def test_predictions_have_the_size_of_their_image(size: tuple[int, int], data: Path) -> None:
    train, _ = open_masked_pair(str(data))
    for path, mode in zip(train.pairs[0], ("RGB", "L"), strict=True):
        Image.new(mode, size).save(path)
    pixels, shown = whole_image(train.image(0), 64)
    assert min(shown) == 64
    assert all(side % 32 == 0 for side in pixels.shape[1:])
    assert predict(segmenter().eval(), train.image(0), 64).shape == size[::-1]


def test_classes_in_parts_are_the_argmax_of_all(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = segmenter("maps=all", "stride=4").eval(), open_masked_pair(str(data))[0].image(0)
    torch.nn.init.normal_(net.head[1].weight)  # type: ignore[arg-type]
    whole = predict(net, image, 64)
    assert len(whole.unique()) > 1
    for number in (1, 2, 3):
        monkeypatch.setattr(measure, "CLASSES_AT_ONCE", number)
        assert torch.equal(predict(net, image, 64), whole)


def segment(data: Path, out: Path, *arguments: str, model: str = "test_resnet") -> int:
    common = ["--data", str(data), "--out", str(out), "--device", "cpu", "--workers", "0", "--set", "image_size=64"]
    return main(["segment", model, *common, *arguments])


def test_a_run_leaves_head_figures_pictures_and_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert segment(data, out, "--untrained", "--set", "steps=2", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((out / "run.json").read_text())
    assert facts["figures"]["iou_per_class"].keys() == {"background", *SHAPES}
    assert f"**mIoU {facts['figures']['miou']:.2f} %**" in (out / "report.md").read_text()
    count = facts["look"]["train"]["images"]
    assert count == facts["data"]["train"]["images"]
    assert f": {count} training images, {count} masks, " in (out / "report.md").read_text()
    assert (out / "head.safetensors").stat().st_size < 100_000
    for name in ("curves.png", "masks.png"):
        with Image.open(out / "figures" / name) as picture:
            assert len(picture.convert("L").getcolors(256) or []) > 10


def test_a_test_image_that_is_cut_short_is_left_out_and_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = data / "val/images/1.png"
    cut.write_bytes(cut.read_bytes()[:-100])  # its header is whole: found when it is measured
    out = tmp_path / "run"
    assert segment(data, out, "--untrained", "--set", "steps=1") == 0
    assert f"Left out as unreadable: 1 test image. First: {cut} is unreadable" in capsys.readouterr().err
    assert "miou" in json.loads((out / "run.json").read_text())["figures"]
    assert (out / "figures/masks.png").is_file()


def test_steps_then_resume_is_the_whole_run(data: Path, tmp_path: Path) -> None:
    changes = ("--untrained", "--set", "steps=4", "--set", "batch_size=3")
    assert segment(data, tmp_path / "whole", *changes) == 0
    assert segment(data, tmp_path / "parts", *changes, "--steps", "3") == 0
    assert segment(data, tmp_path / "parts", *changes, "--resume") == 0
    heads = [(tmp_path / name / "head.safetensors").read_bytes() for name in ("whole", "parts")]
    assert heads[0] == heads[1]
    facts = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "parts")]
    assert facts[0]["figures"] == facts[1]["figures"]
    # Without its checkpoint it stays as it is.
    (tmp_path / "parts" / "checkpoint.pt").unlink()
    before = (tmp_path / "parts" / "run.json").read_bytes()
    for more, code in ((("--resume",), 0), ((), 2), (("--resume", "--steps", "1"), 2)):
        assert segment(data, tmp_path / "parts", *changes, *more) == code
        assert (tmp_path / "parts" / "run.json").read_bytes() == before


def test_mistakes_cost_one_line_and_leave_no_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, expected in (
        (("--preset", "fst"), "Did you mean 'fast'"),
        (("--set", "map=all"), "Did you mean 'maps'"),
        (("--set", "scales=[2, 1]"), "scales: two rising numbers"),
        (("--set", "maps=some"), "maps: "),
        (("--eval-data", "nowhere"), "there is no folder nowhere"),
    ):
        assert segment(data, tmp_path / "run", "--untrained", *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
        assert expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shapes_are_segmented_by_our_weights(tmp_path: Path) -> None:
    """Always naming the background would give a quarter of its share: 24 %."""
    data = make_mask_folder(tmp_path / "data", {"train": 120, "val": 30}, 96)
    arguments = ("--set", "image_size=128", "--set", "maps=all", "--set", "steps=80")
    assert segment(data, tmp_path / "run", *arguments, model="disco_effb0") == 0
    figures = json.loads((tmp_path / "run" / "run.json").read_text())["figures"]
    assert figures["miou"] > 45
    truth = np.concatenate([np.asarray(Image.open(p)).ravel() for p in (data / "val/masks").iterdir()])
    assert 100 * (truth == 0).sum() / (truth != 255).sum() / 4 < 25
