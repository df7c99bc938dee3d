"""The number of images of a plan, their size on disk and the cost of their views, measured where images are given."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from disco_zoo.config.recipe import Recipe
from disco_zoo.config.validation import OWN_DATA
from disco_zoo.core.files import user_path
from disco_zoo.core.process import one_thread
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pack.images import PackSettings, encoded_for_shard
from disco_zoo.data.subsets import with_extra
from disco_zoo.data.unreadable import load_or_replace, use_or_replace
from disco_zoo.errors import BadData
from disco_zoo.methods import METHODS
from disco_zoo.plan.stand_ins import NoiseSource
from disco_zoo.transforms.view_dataset import view_plan
from disco_zoo.zoo.catalog import load_catalog

PACKED = PackSettings()  # what `data pack` does unless told otherwise
# Mean of 125 photos of ImageNet at 256 pixels and this quality, as `plan --data` measures it.
PACKED_BYTES_A_PIXEL = 0.37
PHOTO_PIXELS = 4 / 3  # of a photo's shorter side, squared
SAMPLE_IMAGES = 32
TIMED_SECONDS = 2.0


@dataclass(frozen=True)
class DataFacts:
    """Facts of a plan's images.

    Attributes:
        images: that an epoch shows.
        distinct_images: of these, each extra image counted once.
        said_by: where the number comes from.
        sample: images to time views and steps on; generated where none are given.
        is_real: whether they are the user's.
    """

    images: int
    distinct_images: int
    said_by: str
    sample: ImageSource
    is_real: bool


@dataclass(frozen=True)
class ViewCost:
    """One core's seconds for all views that a step takes of one image, its decoding included."""

    seconds_per_image: float
    images_timed: int


def data_facts(recipe: Recipe, data: str | None, images: int | None) -> DataFacts:
    """Open the data where there are any; nothing is downloaded for the recipe's own.

    Raises:
        BadData: nobody says how many images there are.
    """
    own = recipe.data.source
    if data is None and own is not None and (own == "sample" or user_path(own).exists()):
        data = own
    limit = recipe.data.max_images or float("inf")
    if data is not None:
        source = open_source(data, "train")
        require_index(source, "a plan")
        number, said_by = (images, "--images") if images else (len(source), f"counted in {source.name}")
        joined = with_extra(source, recipe.data.extra_source, recipe.data.extra_repeats)
        extra = len(joined) - len(source)
        return DataFacts(*_and_extra(recipe, int(min(number, limit)), extra, said_by), joined, is_real=True)
    known = load_catalog().datasets.get(recipe.data.id)
    number = images or (known.num_train if known else 0)
    if not number:
        raise BadData(f"nobody knows how many images {recipe.data.id} has. Type: --images 100000, or --data FOLDER")
    said_by = "--images" if images or known is None else f"the catalog's {known.title}"
    number, distinct, said_by = _and_extra(recipe, int(min(number, limit)), _known_extra(recipe), said_by)
    sample = NoiseSource(number, known.image_size if known else None)
    return DataFacts(number, distinct, said_by, sample, is_real=False)


def _and_extra(recipe: Recipe, own: int, extra: int, said_by: str) -> tuple[int, int, str]:
    """Images of an epoch, different ones of these, and who says so; `extra` counts each repeat."""
    distinct = own + extra // recipe.data.extra_repeats
    return own + extra, distinct, f"{said_by}, and {extra} extra" if extra else said_by


def _known_extra(recipe: Recipe) -> int:
    """How many extra images an epoch shows, by the catalog.

    Raises:
        BadData: the catalog does not know them.
    """
    if recipe.data.extra_source is None:
        return 0
    known = load_catalog().datasets.get(recipe.data.extra_id or OWN_DATA)
    if known is None:
        raise BadData("nobody knows how many extra images there are. Type: --data FOLDER, with data.extra_source")
    return known.num_train * recipe.data.extra_repeats


def time_views(recipe: Recipe, source: ImageSource) -> ViewCost:
    """Draw the recipe's views of some images on one core: the median of at most `TIMED_SECONDS`, the first excluded."""
    method = METHODS[recipe.method["name"]]
    plan = view_plan(recipe.views, recipe.view_size, method.num_views)
    seconds: list[float] = []
    indices = _spread(len(source), SAMPLE_IMAGES)
    with one_thread():
        started = time.perf_counter()
        while len(seconds) < 3 or time.perf_counter() - started < TIMED_SECONDS:
            index = indices[len(seconds) % len(indices)]
            load_or_replace(source, index)  # generated images are made here, files come into the page cache
            clock = time.thread_time()  # of this core alone, however busy the machine is
            use_or_replace(source, index, lambda image, used: plan.draw(image, recipe.seed, 0, used))
            seconds.append(time.thread_time() - clock)
    companions = 2 if method.takes_companions else 1
    return ViewCost(companions * statistics.median(seconds[1:]), len(seconds) - 1)


def packed_bytes_per_image(facts: DataFacts) -> tuple[float, str]:
    """Mean size of an image after `data pack`, and how it is known."""
    if facts.is_real:
        repeats = facts.images - facts.distinct_images  # which stand at the end
        different = _spread(len(facts.sample) - repeats, SAMPLE_IMAGES)
        sizes = [_packed_bytes(facts.sample, index) for index in different]
        return statistics.mean(sizes), f"mean of {len(sizes)} images, larger ones as JPEG of quality {PACKED.quality}"
    width, height = facts.sample.size if isinstance(facts.sample, NoiseSource) else (PACKED.size, PACKED.size)
    side = min(PACKED.size, width, height)
    shape = PHOTO_PIXELS if width != height else 1.0
    return (
        PACKED_BYTES_A_PIXEL * shape * side * side,
        f"assumed: {PACKED_BYTES_A_PIXEL} bytes a pixel, measured on photos at quality {PACKED.quality}",
    )


def _packed_bytes(source: ImageSource, index: int) -> int:
    made = use_or_replace(source, index, lambda image, _: encoded_for_shard(image.encoded, image.rgb(), PACKED))
    return len(made[0])


def _spread(total: int, wanted: int) -> list[int]:
    """At most `wanted` numbers, evenly over all: files may be sorted by class."""
    return [position * total // min(total, wanted) for position in range(min(total, wanted))]
