"""The `.json` beside a `.npy`: where it lies, and whether the one that is there may be replaced."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.errors import BadRunFolder

_BEGINS = b'{"facts": {"format": '  # as `write_embedding` writes it; the rest may be long


def json_beside(out: Path) -> Path:
    """Where the facts and names of the rows in a `.npy` are."""
    return out.with_suffix(".json")


def require_json_is_ours(out: Path) -> None:
    """Refuse a `.npy` whose `.json` would take the place of a file that is none of an embedding.

    Raises:
        BadRunFolder: there is such a file.
    """
    beside = json_beside(out)
    if out.suffix.lower() != ".npy" or not beside.exists():
        return
    if not beside.is_file() or not _begins_as_ours(beside):
        raise BadRunFolder(
            f"{beside} is there and is no embedding's; {out.name} would replace it. Choose another --out"
        )


def _begins_as_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINS)) == _BEGINS
    except OSError:  # not ours to read
        return False
