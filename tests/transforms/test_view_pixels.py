"""Views drawn our way against plain torchvision pipelines: the same parameters, nearly the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from photo_makers import PHOTOS, sharpness
from PIL import Image, ImageFilter
from plain_views import PILGaussianBlur, plain_pipeline
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from disco_zoo.core.random_streams import drawing_from
from disco_zoo.data.source_image import SourceImage
from disco_zoo.transforms import functional
from disco_zoo.transforms.functional import blurred, gaussian_kernel
from disco_zoo.transforms.ops import Draws, RandomCrop, RandomJitter
from disco_zoo.transforms.view_recipes import VIEW_RECIPES, draw_view

COLORS = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing="ij"), axis=2).reshape(-1, 3).astype(np.uint8)
NUM_VIEWS = 400


def plain_views(recipe: str, size: int, image: Image.Image, numbers: range, **changed: Any) -> Tensor:
    transform, views = plain_pipeline(recipe, size, **changed), []
    for number in numbers:
        with drawing_from("view", 0, 0, 0, number):
            views.append(transform(image))
    return torch.stack(views)


def our_views(recipe: str, size: int, image: Image.Image, numbers: range) -> Tensor:
    view, source = VIEW_RECIPES[recipe](size), SourceImage(image)
    return torch.stack([draw_view(view, source, 0, 0, 0, number) for number in numbers])


# --- parameters


def test_draws_are_those_of_torch() -> None:
    for seed in range(300):
        with drawing_from("draws", seed):
            draws = Draws()
            ours = [
                draws.uniform(0.2, 1.0),
                *draws.order(4),
                draws.below(77),
                draws.bernoulli(0.5),
                draws.uniform(-1.0, 1.0),
                *draws.order(30),
                draws.uniform(0.1, 2.0),
            ]
        with drawing_from("draws", seed):
            expected = [
                torch.empty(1).uniform_(0.2, 1.0).item(),
                *torch.randperm(4).tolist(),
                torch.randint(77, (1,)).item(),
                torch.rand(1).item() < 0.5,
                torch.empty(1).uniform_(-1.0, 1.0).item(),
                *torch.randperm(30).tolist(),
                torch.empty(1).uniform_(0.1, 2.0).item(),
            ]
        assert ours == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("recipe", list(VIEW_RECIPES))
@pytest.mark.parametrize("size", [(500, 375), (60, 600), (600, 60), (17, 19)])
def test_a_stream_gives_the_crops_and_colours_that_torchvision_draws(
    monkeypatch: pytest.MonkeyPatch, recipe: str, size: tuple[int, int]
) -> None:
    noted: list[dict[str, Any]] = []
    for kind in (v2.RandomResizedCrop, v2.ColorJitter, PILGaussianBlur):

        def make_params(self: Any, inputs: Any, original: Any = kind.make_params) -> dict[str, Any]:
            noted.append(original(self, inputs))
            return noted[-1]

        monkeypatch.setattr(kind, "make_params", make_params)
    view, transform, image = VIEW_RECIPES[recipe](8), plain_pipeline(recipe, 8), Image.new("RGB", size)
    for seed in range(60):
        noted.clear()
        with drawing_from("view", seed):
            transform(image)
        with drawing_from("view", seed):
            box, drawn = view.draw(*size)
        expected: dict[str, Any] = {key: value for params in noted for key, value in params.items()}
        assert box._asdict() == {key: expected[key] for key in box._asdict()}
        jitter = next((what for what in drawn if isinstance(what, list)), None)
        sigma = next((what for what in drawn if isinstance(what, float)), None)
        assert sigma == pytest.approx(expected.get("radius"), abs=1e-6)
        assert (jitter is None) == ("fn_idx" not in expected)
        if jitter is not None:
            names = ["brightness", "contrast", "saturation", "hue"]
            assert [name for name, _ in jitter] == [names[place] for place in expected["fn_idx"]]
            assert [f for _, f in jitter] == pytest.approx([expected[f"{n}_factor"] for n, _ in jitter], abs=1e-6)


def test_no_strength_is_no_draw() -> None:
    step = RandomJitter((0.4, 0.0, 0.0, 0.0))
    with drawing_from("view", 0):
        (name, factor) = step.draw(Draws())[0]
    with drawing_from("view", 0):
        torch.randperm(4)
        assert (name, factor) == ("brightness", pytest.approx(torch.empty(1).uniform_(0.6, 1.4).item(), abs=1e-6))
    with pytest.raises(ValueError, match="at most"):
        RandomJitter((0.4, 0.4, 0.4, 0.6))


# --- pixels at equal parameters


@pytest.mark.parametrize("recipe", list(VIEW_RECIPES))
@pytest.mark.parametrize("size", [224, 32])
def test_pixels_are_those_of_the_plain_pipeline(recipe: str, size: int) -> None:
    """Of 255 levels, views differ by 2.5 on average at most, as Pillow cuts fractions off after each of four steps."""
    for image in PHOTOS:
        numbers = range(6 if size == 224 else 20)
        difference = (our_views(recipe, size, image, numbers).float() - plain_views(recipe, size, image, numbers)).abs()
        assert difference.mean(dim=(1, 2, 3)).max() < 2.5
        assert difference.mean() < (0.1 if recipe == "plain" else 1.5)
        assert difference.flatten().quantile(0.99) < 6 if size == 32 else True


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_colour_is_as_in_pillow_for_all_colours(name: str, factor: float) -> None:
    ours = {"brightness": functional.brightened, "contrast": functional.contrasted, "saturation": functional.saturated}[
        name
    ]
    expected = getattr(vision, f"adjust_{name}")(Image.fromarray(COLORS[None]), factor)
    found = np.rint(ours(planes(), factor))
    assert np.abs(found - planes(expected)).max() <= 1


@pytest.mark.parametrize("turns", [-0.5, -0.4, -0.1, 0.0, 0.07, 0.1, 0.33, 0.5])
def test_hues_turn_as_in_hsv_for_all_colours(turns: float) -> None:
    """Exactly but for a rounding in closed form; Pillow rounds hue and saturation, which is up to six levels."""
    found = functional.hue_turned(planes(), turns)
    expected = vision.adjust_hue(vision.to_dtype(torch.from_numpy(planes()), torch.float32) / 255, turns) * 255
    assert np.abs(found - expected.numpy()).max() <= 1.2
    in_pillow = planes(vision.adjust_hue(Image.fromarray(COLORS[None]), turns))
    assert np.abs(functional.hue_turned(planes(), int(255 * turns) / 255) - in_pillow).max() <= 6


def planes(image: Image.Image | None = None) -> np.ndarray:
    pixels = COLORS[None] if image is None else np.asarray(image)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)


# --- blur


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.41, 1.42, 2.0, 7.0])
def test_the_kernel_has_sum_1_and_the_variance_of_its_sigma(sigma: float) -> None:
    kernel = gaussian_kernel(sigma)
    place = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * place**2).sum() == pytest.approx(sigma**2)


@pytest.mark.parametrize("sigma", [0.1, 0.6, 1.0, 1.5, 2.0])
def test_blur_is_pillows_and_exact_whatever_the_order_of_sums(sigma: float) -> None:
    image = PHOTOS[3]
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
    found = blurred(pixels, sigma)
    expected = np.asarray(image.filter(ImageFilter.GaussianBlur(sigma))).transpose(2, 0, 1)
    inside = (slice(None), slice(8, -8), slice(8, -8))  # at the edge Pillow repeats pixels before each of three passes
    assert np.abs(np.rint(found) - expected)[inside].max() <= 3
    assert np.abs(found - expected).mean() < 0.6
    assert np.array_equal(found, blurred_in_whole_numbers(pixels, sigma))


def test_blur_does_not_depend_on_the_precision_that_a_process_allows() -> None:
    pixels = np.ascontiguousarray(np.asarray(PHOTOS[0]).transpose(2, 0, 1))
    expected = blurred(pixels, 1.7)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(blurred(pixels, 1.7), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def blurred_in_whole_numbers(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The rule by itself: weights in 4096ths, 16ths of a level between the passes."""
    weights = np.rint(gaussian_kernel(sigma) * 4096).astype(np.int64)
    reach = len(weights) // 2
    weights[reach] += 4096 - weights.sum()
    found = pixels.astype(np.int64)
    for axis, unit in ((2, 256), (1, 1)):
        width = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded, length = np.pad(found, width, mode="edge"), found.shape[axis]
        found = sum(w * np.take(padded, range(k, k + length), axis) for k, w in enumerate(weights))
        found = np.rint(found / unit).astype(np.int64)
    return (found / 65536).astype(np.float32)


# --- distribution, from other draws than the plain pipeline's


@pytest.fixture(scope="module")
def both() -> tuple[Tensor, Tensor]:
    """A-moco2 views of two photos: ours, and plain ones of other numbers, as floats (N, 3, 64, 64)."""
    ours = [our_views("moco_v2", 64, image, range(NUM_VIEWS)) for image in PHOTOS[:2]]
    plain = [plain_views("moco_v2", 64, image, range(NUM_VIEWS, 2 * NUM_VIEWS)) for image in PHOTOS[:2]]
    return torch.cat(ours).float(), torch.cat(plain).float()


STATISTICS = {
    "red": lambda views: views[:, 0].mean(dim=(1, 2)),
    "green": lambda views: views[:, 1].mean(dim=(1, 2)),
    "blue": lambda views: views[:, 2].mean(dim=(1, 2)),
    "contrast": lambda views: views.std(dim=(1, 2, 3)),
    "saturation": lambda views: (views.amax(dim=1) - views.amin(dim=1)).mean(dim=(1, 2)),
    "sharpness": sharpness,
    "slope": lambda views: views[..., :32].mean(dim=(1, 2, 3)) - views[..., 32:].mean(dim=(1, 2, 3)),
}


@pytest.mark.parametrize("name", list(STATISTICS))
def test_views_are_distributed_as_plain_ones(both: tuple[Tensor, Tensor], name: str) -> None:
    ours, plain = (STATISTICS[name](views).numpy() for views in both)
    assert kolmogorov_smirnov(ours, plain) < critical(len(ours))


@pytest.mark.slow
def test_grey_and_areas_are_distributed_as_plain_ones(both: tuple[Tensor, Tensor]) -> None:
    gray = [(views.std(dim=1).amax(dim=(1, 2)) == 0).float().mean().item() for views in both]
    assert abs(gray[0] - gray[1]) < 4 * (0.2 * 0.8 * 2 / len(both[0])) ** 0.5
    plain, crop = v2.RandomResizedCrop(8, scale=(0.2, 1.0)), RandomCrop(8, (0.2, 1.0), (3 / 4, 4 / 3))
    with drawing_from("ours", 0):
        boxes = [crop.draw(Draws(), 500, 375) for _ in range(3000)]
    with drawing_from("plain", 0):
        others = [plain.make_params([PHOTOS[0]]) for _ in range(3000)]
    for one in ("area", "ratio", "left", "top"):
        ours = np.array([measures(box._asdict())[one] for box in boxes])
        assert kolmogorov_smirnov(ours, np.array([measures(box)[one] for box in others])) < critical(3000)


def measures(box: dict[str, int]) -> dict[str, float]:
    return {**box, "area": box["width"] * box["height"], "ratio": box["width"] / box["height"]}


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance of two empirical distribution functions."""
    points = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def critical(number: int) -> float:
    """Above it in one of a thousand pairs of samples of this size from one distribution."""
    return 1.95 * (2 / number) ** 0.5


def test_the_statistics_see_a_wrong_pipeline(both: tuple[Tensor, Tensor]) -> None:
    changes = {"saturation": {"jitter": (0.4, 0.4, 0.8, 0.1)}, "sharpness": {"blur_probability": 0.0}}
    for name, changed in changes.items():
        wrong = torch.cat([plain_views("moco_v2", 64, image, range(NUM_VIEWS), **changed) for image in PHOTOS[:2]])
        distance = kolmogorov_smirnov(STATISTICS[name](wrong.float()).numpy(), STATISTICS[name](both[1]).numpy())
        assert distance > critical(len(wrong))
