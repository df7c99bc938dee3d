"""Confidence intervals of accuracies over the choice of test images."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = "95 % Wilson interval over the test images; it says nothing of other seeds"


def wilson_interval(percent: float, num_images: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy (Wilson 1927), in percent.

    It treats the test images as independent draws. Unlike the plain ± of a normal, it stays within 0 and 100 and
    has a width even where no image, or every image, was right.

    Args:
        percent: accuracy in percent.
        num_images: test images that it is a share of, at least 1.
        level: probability that the interval covers the accuracy on all images of this kind.
    """
    share, z = percent / 100, NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * math.sqrt(share * (1 - share) / num_images + (z / (2 * num_images)) ** 2)
    middle, scale = share + z * z / (2 * num_images), 1 + z * z / num_images
    # Its ends are exact where no image, or every image, was right; rounding would leave 99.99999999999997.
    low = 0.0 if share <= 0 else 100 * max(0.0, (middle - spread) / scale)
    high = 100.0 if share >= 1 else 100 * min(1.0, (middle + spread) / scale)
    return low, high
