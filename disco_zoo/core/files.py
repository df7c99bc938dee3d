"""Atomic writes of files, their sha256, and the folder of the package."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from disco_zoo.errors import BadRunFolder, CannotWrite, DiscoZooError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PACKAGE_DIR = Path(__file__).resolve().parents[1]


def user_path(name: str | Path) -> Path:
    """The path that a user typed, `~` replaced by the home folder; that of a user without one stays as it is."""
    return Path(os.path.expanduser(name))  # Path's own raises there


def cache_home() -> Path:
    """The folder of what can be computed again: $DISCO_ZOO_CACHE, else one in the user's; it need not exist."""
    own = os.environ.get("DISCO_ZOO_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "disco-zoo"
    return user_path(base)


SCRATCH = ".scratch"
_CANNOT_WRITE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def write_whole(path: Path, write: Callable[[Path], object], name: Callable[[Path], Path] | None = None) -> Path:
    """Let `write` fill a hidden neighbour of `path`, then rename it into place: a reader sees the old file or the new.

    Args:
        path: where the file goes.
        write: fills the path it is given.
        name: gives the final path once the neighbour is written, where its content decides; None for `path`.

    Returns:
        The final path.

    Raises:
        OSError, SafetensorError: what the system said; the old file is untouched and the neighbour gone.
    """
    with _neighbour(path) as partial:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        partial.chmod(0o644)  # safetensors writes for the owner alone
        final = name(partial) if name else path
        partial.replace(final)
    return final


@contextlib.contextmanager
def _neighbour(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` that no other process fills meanwhile; it is gone in the end.

    Usually one name, so that what a killed process left is written over. Where another process writes into the same
    folder, or nobody can tell, a name of this process.
    """
    with _held(path.parent) as is_ours:
        partial = path.with_name(f".{path.name}.partial" if is_ours else f".{path.name}.{os.getpid()}.partial")
        try:
            yield partial
        finally:
            _remove(partial)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """An empty hidden folder in `parent`, gone in the end; what killed processes left there under this name goes, too.

    Raises:
        OSError: what the system said.
    """
    for left in parent.glob(f".{name}-*{SCRATCH}"):
        with _held(left) as is_left:
            if is_left:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=SCRATCH, dir=parent))
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder without waiting, and without a file in it; whether that came off."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # who writes there is told
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by another, or a network disk that locks no folders
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def failed_writes_as(kind: type[DiscoZooError], failure: str, remedy: str) -> Iterator[None]:
    """Tell a write that fails in one line, `failure: reason. remedy`.

    Raises:
        DiscoZooError: of that kind: no permission, no room, or a file where a folder should be.
    """
    try:
        yield
    except Exception as error:
        reason = why_not_written(error)
        if reason is None:
            raise
        raise kind(f"{failure}: {reason}. {remedy}") from error


def writing(path: Path) -> AbstractContextManager[None]:
    """What a user asked to have written: a failed write is told with its path, as `CannotWrite`."""
    return failed_writes_as(CannotWrite, f"Cannot write {path}", "Choose another folder, or make room")


def write_out(path: Path, write: Callable[[Path], object]) -> Path:
    """`write_whole` where a user said; the folder is made.

    Raises:
        CannotWrite: see `writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, write)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbouring file, then rename it into place: a reader sees the old file or the new.

    Raises:
        BadRunFolder: no space or no permission; the old file is untouched.
    """
    remedy = "Make room or fix it, then repeat the command with --resume"
    with failed_writes_as(BadRunFolder, f"cannot write {path}", remedy):
        write_whole(path, write)


def require_folder(folder: Path) -> None:
    """Make the folder that will take results, before the work that fills it.

    Raises:
        CannotWrite: no permission, no room, or a file where a folder should be.
    """
    with failed_writes_as(CannotWrite, f"Cannot write to {folder}", "Choose another folder, or make room"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def why_not_written(error: BaseException) -> str | None:
    """The system's message for a failed write; None for other errors."""
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        return "no space left"  # torch's zip writer notices a short write, but not why it was short
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):
        return "no space left"  # NumPy's words for a short write, without a number
    code = error.errno if isinstance(error, OSError) else None
    # SafetensorError is no OSError and says the number in its text.
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"os error (\d+)", str(error))):
        code = int(found[1])
    if code not in _CANNOT_WRITE:
        return None
    return "no space left" if code in (errno.ENOSPC, errno.EDQUOT) else os.strerror(code)


def why_not_read(error: BaseException) -> str | None:
    """Why a read failed where the content is not to blame: the system's message, or too little memory; else None."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return "too little memory"
    code = error.errno if isinstance(error, OSError) else None
    return None if code is None else os.strerror(code)


def read_fault(error: BaseException, otherwise: str) -> str:
    """What is wrong with a file that could not be read, after its name: the system's reason, else `otherwise`."""
    reason = why_not_read(error)
    return f"cannot be read: {reason}" if reason else otherwise


def says_no_room(error: BaseException) -> bool:
    """Whether a write failed for want of room: a full disk, a quota, a limit of file sizes, a read-only disk."""
    if isinstance(error, RuntimeError) and "unexpected pos" not in str(error):
        return False  # torch's zip reader stumbles in the same file
    full = (errno.EFBIG, errno.EROFS)
    return why_not_written(error) in {"no space left", *(os.strerror(code) for code in full)}


def _remove(partial: Path) -> None:
    try:
        partial.unlink(missing_ok=True)
    except NotADirectoryError:  # then it was never written
        return


def sha256_of(path: Path | str) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
