"""What arrived of an authors' file so far, and whether its server can go on from there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path


class Broken(Exception):
    """A try that failed in a way that another may not; the message says how."""


@dataclass
class Partial:
    """The bytes so far, and the note that says of what they are a part."""

    target: Path

    def __post_init__(self) -> None:
        self.path = self.target.with_name(f".{self.target.name}.partial")
        self.note = self.target.with_name(f".{self.target.name}.partial.json")
        self.size = 0
        self.kept: dict[str, str | int | None] = self._read_note()

    def _read_note(self) -> dict[str, str | int | None]:
        try:
            kept = json.loads(self.note.read_text(encoding="utf-8"))
            self.size = self.path.stat().st_size
        except (FileNotFoundError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def headers(self) -> dict[str, str]:
        """Ask for the rest of the same file, where it can be told that it is the same."""
        headers = {"User-Agent": "disco-zoo", "Accept-Encoding": "identity"}
        if self.can_go_on:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": str(self.kept["validator"])}
        return headers

    def begin(self, url: str, response: HTTPResponse) -> int | None:
        """Make ready for what `response` sends: all of the file or its rest. Returns the length of the whole file."""
        length = response.headers.get("Content-Length") or ""
        validator = _validator(response)
        start, total = _content_range(response)
        same = (url, total) == (self.kept.get("url"), self.kept.get("size"))
        if response.status == 206 and start == self.size and same and validator in (None, self.kept["validator"]):
            return total
        if response.status == 206:
            self.discard()
            raise Broken("sent another part of the file than was asked for")
        self.discard()
        total = _number(length)
        self.kept = {"url": url, "validator": validator, "size": total}
        if validator:
            self.note.write_text(json.dumps(self.kept), encoding="utf-8")
        return total

    def finish(self) -> None:
        self.path.replace(self.target)
        self.kept = {}

    def discard(self) -> None:
        self.size, self.kept = 0, {}
        self.tidy()

    @property
    def can_go_on(self) -> bool:
        return bool(self.size and self.kept.get("validator"))

    def tidy(self) -> None:
        """Remove partial files that cannot be resumed."""
        if not self.can_go_on:
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


def _validator(response: HTTPResponse) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    etag: str = response.headers.get("ETag") or ""
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte and whole length of `Content-Range: bytes 5-9/10`."""
    stated = (response.headers.get("Content-Range") or "").removeprefix("bytes ")
    span, _, total = stated.partition("/")
    start = span.partition("-")[0]
    return _number(start), _number(total)


def _number(text: str) -> int | None:
    """The number that a header states; None for whatever else a server may send in its place."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None
