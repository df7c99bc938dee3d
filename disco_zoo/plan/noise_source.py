"""Synthetic images for a plan without data: as large as photos and about as expensive to decode."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from disco_zoo.data.dataset import ImageSource

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
