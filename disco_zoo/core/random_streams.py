"""Counter-based randomness: a key of whole numbers fixes a draw, whatever was drawn before it.

Views, the order of an epoch and the choice of calibration images all come from here. That is what makes a
resumed run equal to an undisturbed one, and one process equal to many.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator

import torch


def stream_seed(purpose: str, *key: int) -> int:
    """Map a purpose and a key such as (seed, epoch, index, view) to a 63-bit seed, the same on every machine."""
    message = purpose.encode() + struct.pack(f"<{len(key)}q", *key)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little") >> 1


def stream_generator(purpose: str, *key: int) -> torch.Generator:
    """A CPU generator at the start of the stream of `key`."""
    return torch.Generator().manual_seed(stream_seed(purpose, *key))


@contextlib.contextmanager
def drawing_from(purpose: str, *key: int) -> Iterator[None]:
    """Let torch's CPU generator draw from the stream of `key`, then put its state back.

    torchvision's transforms draw from the global generator and take no other, hence the exchange. The CPU
    generator is used directly: `torch.manual_seed` would also reseed every accelerator.
    """
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(stream_seed(purpose, *key))
    try:
        yield
    finally:
        generator.set_state(state)
