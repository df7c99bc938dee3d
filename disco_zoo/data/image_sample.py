"""Some bytes of a source's images: what names and sizes do not tell.

The fingerprint of a folder is of names and sizes. The folders of two cameras may agree in both, and a folder that was
moved is still the same one: the bytes of a few images tell which it is.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.passing_errors import read_patiently
from disco_zoo.errors import CannotRead

SAMPLED = 16  # images


def sample_sha256(source: ImageSource) -> str:
    """Sha256 of the bytes of evenly spaced images; a stream, which passes only once, has none of them.

    Raises:
        CannotRead: disk or network failed, and did so again.
    """
    digest, last = hashlib.sha256(), len(source) - 1
    spread = {round(place * last / (SAMPLED - 1)) for place in range(SAMPLED)} if source.has_index else set()
    for index in sorted(spread):
        try:
            found = read_patiently(partial(_bytes_of, source, index), partial(source.path, index))
        except CannotRead:
            raise
        except Exception:  # backends raise nearly anything; it is told when the image itself is wanted
            found = b""
        digest.update(len(found).to_bytes(8, "little") + found)
    return digest.hexdigest()


def _bytes_of(source: ImageSource, index: int) -> bytes:
    found = source.header(index)  # which leaves no file open
    if isinstance(found, Path):
        return found.read_bytes()
    return found if isinstance(found, bytes) else found.tobytes()
