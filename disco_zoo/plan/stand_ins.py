"""Stand-ins for what a plan does not have: networks without weights, images that are noise, tensors without numbers."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.files import user_path
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadTeacher
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.teacher_source import LoadedTeacher, load_teacher_source, named_by
from disco_zoo.modules.momentum_contrast import projection_head
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.zoo.catalog import Teacher as TeacherRow
from disco_zoo.zoo.catalog import load_catalog


def without_weights(recipe: Recipe) -> Recipe:
    """The recipe with random starts in place of files; shapes and costs stay the same."""
    student = recipe.student.model_copy(update={"init": "random", "init_from": None})
    teacher = recipe.teacher and recipe.teacher.model_copy(update={"pretrained": False})
    files: Mapping[str, Any] = {"queue_init": "random", "bags": None}
    method = {key: files.get(key, value) for key, value in recipe.method.items()}
    return recipe.model_copy(update={"student": student, "teacher": teacher, "method": method})


def build_weightless(recipe: Recipe, source: ImageSource, device: torch.device | str) -> Parts:
    """The networks of a recipe from random weights, or on the device "meta" from none.

    Args:
        recipe: from `without_weights`.

    Raises:
        BadTeacher: nobody knows the teacher's network without its file.
    """
    with torch.device(device):
        with named_by("teacher.source"):
            loaded = weightless_teacher(recipe.teacher.source) if recipe.teacher else None
        return build_parts(recipe, source, device, loaded=loaded)


def weightless_teacher(name: str) -> LoadedTeacher:
    """A teacher by its source, without its weights and without a download.

    A teacher of the catalog that has an SSL head gets MoCo-v2's: Linear, ReLU, Linear, as wide as the features.

    Raises:
        BadTeacher: a file or folder that is missing or damaged, or a name whose network only the Hub knows.
        UnknownName: no such model, or nobody published which network it has.
    """
    catalog = load_catalog()
    if name in catalog.teachers:
        return _from_catalog(catalog.teachers[name], catalog.network_of(catalog.teachers[name]))
    if name.startswith("hf-hub:"):
        raise BadTeacher(
            f"plan downloads nothing, and only the Hub knows {name}. Name its network: --set teacher.source=TIMM_NAME"
        )
    path = user_path(name)
    if not path.exists():
        return load_teacher_source(name, pretrained=False)
    with torch.device("cpu"):  # files hold real tensors
        return load_teacher_source(name)


def _from_catalog(row: TeacherRow, network: str) -> LoadedTeacher:
    backbone = create_for_any_size(network, pretrained=False, num_classes=0)
    width = feature_dim_of(backbone)
    head: nn.Module = projection_head(width, width, row.embed_dim) if row.embed_dim else nn.Identity()
    return LoadedTeacher(
        row.title, backbone, head, row.embed_dim or width, tuple(row.input.mean), tuple(row.input.std), supervised=None
    )


WIDTH, HEIGHT = 500, 375  # the commonest size of ImageNet's photos
JPEG_QUALITY = 92
DIFFERENT = 32


class NoiseSource(ImageSource):
    """JPEG files of soft shapes under grain. There are 32 different ones, kept once they are made.

    Args:
        num_images: that the source says it has.
        side: in pixels, for data sets of small square images; None for photos.
    """

    def __init__(self, num_images: int, side: int | None = None) -> None:
        super().__init__("generated images", "train")
        self.num_images, self.size = num_images, (side, side) if side else (WIDTH, HEIGHT)
        self._made: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self.num_images

    def encoded(self, index: int) -> bytes:
        number = index % DIFFERENT
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> bytes:
        """Shapes of a few pixels, enlarged, and noise as a sensor has."""
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize(self.size, Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = smooth + rng.normal(0, 6, smooth.shape)
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue()

    def path(self, index: int) -> str:
        return f"generated image {index}"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(repr(self.size).encode())


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made inside take no memory, and operations on them no time; `.item()` of one is 1, or False."""
    with FakeTensorMode(allow_non_fake_inputs=True), _SomeNumber():
        yield


class _SomeNumber(TorchDispatchMode):
    """Answers whoever asks a tensor for its number: counters and flags, whose value changes no shape."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            asked: Tensor = args[0]
            return False if asked.dtype == torch.bool else 1.0 if asked.is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def drop_numbers(*networks: nn.Module) -> None:
    """Inside `shapes_only`: replace parameters and buffers of the device "meta" by ones that claim to be on the CPU.

    Losses ask their tensors for a device with autocast, which "meta" has not.
    """
    known: dict[int, Tensor] = {}
    for module in (module for network in networks for module in network.modules()):
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    # Tied ones stay tied.
                    store[name] = known.setdefault(id(tensor), _without_numbers(tensor))


def _without_numbers(tensor: Tensor) -> Tensor:
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
