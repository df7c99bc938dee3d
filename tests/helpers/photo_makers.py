"""Images with the spectrum of photos."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor


def photo(seed: int, width: int, height: int) -> Image.Image:
    """Noise with the spectrum of photos, 1/frequency, in colours that go together: texture and smooth places."""
    generator = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height))
    spectrum = 1 / np.maximum(np.hypot(across, down), 1 / max(width, height))
    waves = np.fft.fft2(generator.standard_normal((3, height, width))) * spectrum
    layers = np.fft.ifft2(waves).real
    layers /= layers.std(axis=(1, 2), keepdims=True)
    mix = np.array([[1, 0.3, 0.1], [1, -0.1, 0.3], [1, -0.3, -0.3]])
    pixels = 120 + 45 * np.tensordot(mix, layers, 1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


PHOTOS = [photo(seed, *size) for seed, size in enumerate([(500, 375), (333, 500), (640, 480), (120, 90)])]


def sharpness(views: Tensor) -> Tensor:
    return (views[..., 1:] - views[..., :-1]).abs().mean(dim=(1, 2, 3))
