"""Views: the same wherever and whenever they are drawn, and distributed as A-moco2 says."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MEAN, STD, Probe, TinySource
from torch import Tensor
from torch.utils.data import DataLoader

from disco_zoo.core.random_streams import drawing_from, stream_generator, stream_seed
from disco_zoo.data.source_image import SourceImage
from disco_zoo.models.encoder import Encoder, resized
from disco_zoo.training.epoch_loader import BatchShare
from disco_zoo.transforms.ops import JITTERS
from disco_zoo.transforms.view_dataset import ViewDataset, ViewPlan, collate_views
from disco_zoo.transforms.view_recipes import VIEW_RECIPES, draw_view, moco_v2_view

VIEW = moco_v2_view(16)
SOURCE = TinySource(12)
NUM_DRAWS = 1500
GOLDEN_SEED = 5135953185067738034
GOLDEN_RAND = [0.8529974818229675, 0.4658808708190918]
GOLDEN_CROP = (2, 8, 13, 16)
GOLDEN_JITTER = (1.210577, 1.373511, 0.872072, -0.007955)


def epoch_views(
    *, workers: int = 0, epoch: int = 1, start_batch: int = 0, rank: int = 0, num_processes: int = 1
) -> dict[int, Tensor]:
    """Both views (2, 3, 16, 16) of each image that one process's loader delivers, by the image's index."""
    dataset = ViewDataset(SOURCE, ViewPlan(VIEW, 2), seed=5, epoch=epoch)
    share = BatchShare(
        12, 4, num_batches=3, seed=5, epoch=epoch, start_batch=start_batch, rank=rank, num_processes=num_processes
    )
    loader = DataLoader(dataset, batch_sampler=share, collate_fn=collate_views, num_workers=workers)
    found = {}
    for batch in loader:
        for row, index in enumerate(batch["index"].tolist()):
            found[index] = torch.stack([view[row] for view in batch["views"]])
    return found


def assert_same(views: dict[int, Tensor], others: dict[int, Tensor]) -> None:
    assert views
    for index, pair in views.items():
        assert torch.equal(pair, others[index]), index


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12 and later
@pytest.mark.parametrize("workers", [1, 2])
def test_same_views_bitwise_whatever_the_number_of_workers(workers: int) -> None:
    views = epoch_views(workers=workers)
    assert sorted(views) == list(range(12))
    assert_same(views, epoch_views(workers=0))


def test_same_views_bitwise_whatever_the_number_of_processes() -> None:
    parts = [epoch_views(rank=rank, num_processes=2) for rank in (0, 1)]
    assert not set(parts[0]) & set(parts[1])
    assert_same(parts[0] | parts[1], epoch_views())


def test_same_views_bitwise_after_a_resume_in_mid_epoch() -> None:
    rest = epoch_views(start_batch=2)
    assert len(rest) == 4
    assert_same(rest, epoch_views())


def test_same_views_bitwise_in_any_order_of_access_and_whatever_was_drawn_before() -> None:
    dataset = ViewDataset(SOURCE, ViewPlan(VIEW, 2), seed=5, epoch=1)
    straight = {index: torch.stack(dataset[index]["views"]) for index in range(12)}
    torch.manual_seed(99)
    torch.rand(17)
    backwards = {index: torch.stack(dataset[index]["views"]) for index in reversed(range(12))}
    assert_same(straight, backwards)
    assert_same(straight, epoch_views())


def test_each_part_of_the_key_changes_the_view() -> None:
    image = SOURCE.opened(0)
    base = (5, 1, 3, 0)
    keys = [base, *(tuple(part + (i == j) for i, part in enumerate(base)) for j in range(4))]
    views = [draw_view(VIEW, image, *key) for key in keys]
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])
    assert torch.equal(views[0], draw_view(VIEW, image, *base))


def test_streams_are_named_and_keyed() -> None:
    # Written down from this code; blake2b and torch's Mersenne Twister (2.14.1) fix both on every machine.
    assert stream_seed("view", 5, 1, 3, 0) == GOLDEN_SEED
    assert torch.rand(2, generator=stream_generator("view", 5, 1, 3, 0)).tolist() == pytest.approx(
        GOLDEN_RAND, abs=1e-7
    )
    assert stream_seed("order", 5, 1, 3, 0) != stream_seed("view", 5, 1, 3, 0)
    assert stream_seed("view", 5, 13, 0) != stream_seed("view", 51, 3, 0)


def test_golden_parameters_of_one_view() -> None:
    # Written down from torchvision 0.29.1's transforms, whose order of draws ours is. If these change, every run does,
    # and the catalog's figures have to be measured again.
    with drawing_from("view", 5, 1, 3, 0):
        box, (jitter, _, sigma, _) = VIEW.draw(*SOURCE.image(3).size)
    assert (box.top, box.left, box.height, box.width) == GOLDEN_CROP
    assert dict(jitter) == pytest.approx(dict(zip(JITTERS, GOLDEN_JITTER, strict=True)), abs=1e-5)
    assert sigma == pytest.approx(0.770958, abs=1e-5)


def test_global_random_states_are_untouched() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    draw_view(VIEW, SOURCE.opened(0), 5, 1, 3, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before[0])


def draw_and_fail() -> None:
    with drawing_from("view", 0):
        torch.rand(3)
        raise KeyError


def test_an_unreadable_image_is_replaced_by_the_next_and_reported() -> None:
    dataset = ViewDataset(TinySource(12, unreadable=(3,)), ViewPlan(VIEW, 2), seed=5, epoch=1)
    item = dataset[3]
    assert item["index"] == 4
    assert item["unreadable"] == [(3, "image 3 (3.png) is unreadable: cut short")]
    assert collate_views([item, dataset[0]])["unreadable"] == item["unreadable"]
    assert_same({4: torch.stack(item["views"])}, epoch_views())


@pytest.fixture(scope="module")
def moco_draws() -> dict:
    """Parameters and pixels of many A-moco2 views of one image: brighter to the right, and never grey by itself."""
    ramp = np.tile(np.linspace(40, 200, 64), (64, 1))
    image = SourceImage(Image.fromarray(np.stack([ramp, ramp * 0.6, ramp * 0.3], axis=2).astype(np.uint8)))
    drawn: dict = {"crop": [], "jitter": [], "blur": []}
    for number in range(NUM_DRAWS):
        with drawing_from("view", 0, 0, 0, number):
            box, (jitter, _, sigma, _) = VIEW.draw(64, 64)
        drawn["crop"].append(box)
        drawn["jitter"] += [] if jitter is None else [dict(jitter)]
        drawn["blur"] += [] if sigma is None else [sigma]
    views = torch.stack([draw_view(VIEW, image, 0, 0, 0, n) for n in range(NUM_DRAWS)]).float()
    halves = views.mean(dim=(1, 2))
    drawn["flipped"] = (halves[:, :8].mean(1) > halves[:, 8:].mean(1)).tolist()
    drawn["grey"] = (views.std(dim=1).amax(dim=(1, 2)) == 0).tolist()
    return drawn


def assert_frequency(count: int, probability: float) -> None:
    """Within four standard deviations of the binomial; the draws are fixed, so this never flickers."""
    spread = 4 * (NUM_DRAWS * probability * (1 - probability)) ** 0.5
    assert abs(count - NUM_DRAWS * probability) < spread


def test_moco_v2_view_frequencies(moco_draws: dict) -> None:
    assert_frequency(sum(moco_draws["flipped"]), 0.5)
    assert_frequency(sum(moco_draws["grey"]), 0.2)
    assert_frequency(len(moco_draws["blur"]), 0.5)
    assert_frequency(len(moco_draws["jitter"]), 0.8)


def test_moco_v2_crop_has_the_area_and_ratio_of_the_rule(moco_draws: dict) -> None:
    crops = moco_draws["crop"]
    areas = np.array([crop.height * crop.width / 64**2 for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert len(crops) == NUM_DRAWS
    assert 0.2 - 0.02 < areas.min() < 0.22  # whole pixels: a side may be rounded down
    assert areas.max() > 0.95
    assert 3 / 4 - 0.03 < ratios.min() < 0.8 < 1.25 < ratios.max() < 4 / 3 + 0.05
    expected = crop_areas_by_rejection(200_000)
    assert abs(areas.mean() - expected.mean()) < 4 * expected.std() / NUM_DRAWS**0.5


def crop_areas_by_rejection(number: int) -> np.ndarray:
    """The rule by itself: area ~ U(0.2, 1), log ratio uniform, drawn again while the crop does not fit."""
    generator = np.random.default_rng(0)
    area = generator.uniform(0.2, 1.0, number)
    ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3), number))
    return area[np.maximum(area * ratio, area / ratio) <= 1]


def test_moco_v2_jitter_and_blur_have_the_strengths_of_the_recipe(moco_draws: dict) -> None:
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.6, 1.4),
        ("hue", -0.1, 0.1),
    ):
        assert_uniform([draw[name] for draw in moco_draws["jitter"]], low, high)
    assert_uniform(moco_draws["blur"], 0.1, 2.0)


def assert_uniform(values: list[float], low: float, high: float) -> None:
    width = high - low
    assert low <= min(values) < low + 0.02 * width
    assert high - 0.02 * width < max(values) <= high
    assert abs(np.mean(values) - (low + high) / 2) < 4 * width / (12 * len(values)) ** 0.5


def test_plain_view_is_crop_and_flip_only() -> None:
    view = VIEW_RECIPES["plain"](8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_probability=1.0)
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    flipped = torch.from_numpy(np.array(image)).permute(2, 0, 1).flip(2)
    assert torch.equal(draw_view(view, SourceImage(image), 0, 0, 0, 0), flipped)


def test_teacher_and_student_may_see_one_view_at_different_sizes() -> None:
    view = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    large, small = (Encoder(Probe(), torch.nn.Identity(), image_size=size, mean=MEAN, std=STD) for size in (24, 12))
    large(view)
    small(view)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
    assert torch.allclose(large.backbone.seen, (view / 255 - mean) / std, atol=1e-6)
    assert small.backbone.seen.shape == (2, 3, 12, 12)
    assert torch.allclose(small.backbone.seen, (resized(view, 12) / 255 - mean) / std, atol=1e-6)


def test_resized_leaves_its_own_size_alone_and_antialiases() -> None:
    view = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert resized(view, 16) is view
    stripes = torch.tensor([200, 0, 0, 200], dtype=torch.uint8).repeat(4).expand(1, 3, 16, 16)
    # Antialiased, stripes finer than the new pixels become their mean; picked without it, they would be black.
    assert torch.allclose(resized(stripes, 4)[..., 1:3], torch.tensor(100.0), atol=1.0)
