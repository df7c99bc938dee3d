"""Licences as SPDX identifiers, and which of them permit commercial use."""

from __future__ import annotations

import re

from disco_zoo.zoo.schema import Checkpoint, Teacher

UNKNOWN = "NOASSERTION"  # SPDX's word for: nobody has stated one
# Identifiers of the SPDX list that permit commercial use. A licence that is not here is not taken to permit it.
COMMERCIAL = frozenset(
    {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "Unlicense", "Zlib"}
)
_OTHERS = frozenset({"CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "AGPL-3.0-only", "GPL-3.0-only"})
_KNOWN = {name.lower(): name for name in COMMERCIAL | _OTHERS}
COMMERCIAL_NOTE = (
    "Commercial: the licences of weights, code and teacher permit it. The data's own terms are another matter: "
    "`disco-zoo show NAME` states them"
)


def spdx(licence: str) -> str:
    """A licence of the catalog as SPDX writes it: its identifier, NOASSERTION, or a LicenseRef for terms of its own.

    >>> spdx("unknown (not stated by the authors)"), spdx("ImageNet terms (non-commercial research)")
    ('NOASSERTION', 'LicenseRef-ImageNet-terms')
    """
    name = licence.partition(" (")[0].strip()
    if name.lower() == "unknown":
        return UNKNOWN
    return _KNOWN.get(name.lower()) or f"LicenseRef-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}"


def spdx_of(row: Checkpoint | Teacher) -> dict[str, str]:
    """The SPDX identifiers of all that a row is made of: `weights`, and for a checkpoint `code`, `teacher`, `data`."""
    if isinstance(row, Teacher):
        return {"weights": spdx(row.licence)}
    return {part: spdx(getattr(row.licence, part)) for part in ("code", "weights", "teacher", "data")}


def is_commercial(row: Checkpoint | Teacher) -> bool:
    """Whether the licences of weights, code and teacher all permit commercial use; the data's terms do not count."""
    return all(identifier in COMMERCIAL for part, identifier in spdx_of(row).items() if part != "data")
