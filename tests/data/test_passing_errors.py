"""A disk's or network's error is no bad image: it is tried again, and then stops the work."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from data_makers import encode
from PIL import Image

from disco_zoo.data import passing_errors
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.passing_errors import PASSING, file_bytes, is_passing
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.errors import CannotRead, UnreadableImage


class Failing(ImageSource):
    """Two images; the first fails with `error` the first `times` times."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__("photos", "train")
        self.error, self.left, self.tries = error, times, 0

    def __len__(self) -> int:
        return 2

    def encoded(self, index: int) -> bytes:
        if index == 0:
            self.tries += 1
            if self.left:
                self.left -= 1
                raise self.error
        return encode(Image.new("RGB", (4, 4), (index * 100, 0, 0)))

    def path(self, index: int) -> str:
        return f"photo_{index}.png"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing_errors, "WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("number", sorted(PASSING))
def test_an_error_that_passes_changes_nothing(number: int) -> None:
    source = Failing(OSError(number, "for a moment"), times=3)
    image, index, error = load_or_replace(source, 0)
    assert (image.getpixel((0, 0)), index, error, source.tries) == ((0, 0, 0), 0, None, 4)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_one_that_does_not_pass_stops_the_work_and_replaces_no_image(number: int) -> None:
    source = Failing(OSError(number, "Input/output error"), times=100)
    with pytest.raises(CannotRead, match=r"photo_0.png cannot be read: Input/output error. It is the disk"):
        load_or_replace(source, 0)
    assert source.tries == 4


@pytest.mark.parametrize(
    "error", [OSError("image file is truncated"), FileNotFoundError(errno.ENOENT, "gone"), ValueError("bad bytes")]
)
def test_what_is_the_images_own_fault_is_not_tried_again(error: Exception) -> None:
    source = Failing(error, times=100)
    with pytest.raises(UnreadableImage):
        source.opened(0)
    assert source.tries == 1
    assert load_or_replace(source, 0)[1] == 1


def test_memory_is_no_images_fault() -> None:
    assert all(is_passing(error) for error in (MemoryError(), ConnectionResetError(), TimeoutError()))
    with pytest.raises(CannotRead, match="MemoryError"):
        Failing(MemoryError(), times=100).opened(0)


def test_files_of_annotated_sets_are_read_as_patiently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, errors = tmp_path / "a.bin", [OSError(errno.ESTALE, "Stale file handle")] * 2
    path.write_bytes(b"content")
    former = Path.read_bytes

    def read(self: Path) -> bytes:
        if errors:
            raise errors.pop()
        return former(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert file_bytes(path) == b"content"
