"""Wilson's interval against scipy and closed forms."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from disco_zoo.evaluation.metrics import wilson_interval


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (1, 7), (752, 1000), (7517, 10_000), (25_000, 50_000)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_equals_scipy(right, total, level):
    expected = binomtest(right, total).proportion_ci(level, method="wilson")
    found = wilson_interval(100 * right / total, total, level)
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_closed_form_at_the_ends():
    # With no image right the upper end is z² / (n + z²), and the interval is mirrored with all of them right.
    z = 1.959963984540054
    low, high = wilson_interval(0.0, 50)
    assert low == 0.0
    assert high == pytest.approx(100 * z * z / (50 + z * z))
    assert wilson_interval(100.0, 50) == pytest.approx((100 - high, 100.0))


@pytest.mark.parametrize("num_images", [1, 7, 44, 50, 1999, 10_000, 50_000])
def test_the_ends_are_exact(num_images):
    assert wilson_interval(100.0, num_images)[1] == 100.0
    assert wilson_interval(0.0, num_images)[0] == 0.0


def test_four_times_the_images_halve_the_width():
    widths = [high - low for low, high in (wilson_interval(70.0, n) for n in (10_000, 40_000))]
    assert widths[0] / widths[1] == pytest.approx(2, rel=1e-3)
