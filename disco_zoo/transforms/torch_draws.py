"""The numbers that torch's CPU generator would draw one by one, drawn in one call, which is faster."""

from __future__ import annotations

import torch

PAIRS = 16  # of 32-bit numbers, fetched at once; a view seldom takes more
UNIFORM_STEPS = 2**24  # of a float32 from 0 to 1


class Draws:
    """What `uniform_`, `rand`, `randint` and `randperm` of torch's generator would give next."""

    def __init__(self) -> None:
        self._raw: list[int] = []

    def _next(self) -> int:
        if not self._raw:
            # 64 bits are two numbers of the generator, the earlier one in the upper half.
            pairs = torch.empty(PAIRS, dtype=torch.int64).random_(-(2**63), None).tolist()
            self._raw = [half for pair in reversed(pairs) for half in (pair & 0xFFFFFFFF, pair >> 32 & 0xFFFFFFFF)]
        return self._raw.pop()

    def uniform(self, low: float, high: float) -> float:
        """From `low` to below `high`."""
        return low + (high - low) * (self._next() % UNIFORM_STEPS / UNIFORM_STEPS)

    def bernoulli(self, probability: float) -> bool:
        """Whether something of this probability does."""
        return self.uniform(0.0, 1.0) < probability

    def below(self, number: int) -> int:
        """A whole number from 0 to `number` - 1."""
        return self._next() % number

    def order(self, number: int) -> list[int]:
        """The numbers below `number` in random order."""
        places = list(range(number))
        for first in range(number - 1):
            other = first + self.below(number - first)
            places[first], places[other] = places[other], places[first]
        return places
