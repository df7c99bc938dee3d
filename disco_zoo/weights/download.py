"""Downloads an authors' file atomically and with time-outs."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from disco_zoo.core.console import console
from disco_zoo.errors import BadCheckpoint, Busy, CacheNotWritable, WeightsError
from disco_zoo.weights.links import UnsafeLink, direct_url, new_opener, open_url
from disco_zoo.weights.partial import Broken, Partial

TRIES = 3
TIMEOUT_SECONDS = 25.0  # to connect, and for each piece; a silent server is tried twice, so within a minute
PIECE_BYTES = 1 << 18
DEAD = (401, 403, 404, 410, 451)
PASSING = (408, 429, 500, 502, 503, 504)
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_NETWORK = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


class _Silent(Broken):
    """A try that ended with a full time-out in which nothing came."""


class _Unreachable(Broken):
    """A try that ended before the server was asked anything."""


class _NoConnection(_Silent, _Unreachable):
    """A try that waited for a connection in vain."""


def download_official(url: str, target: Path, *, title: str) -> Path:
    """Download `url` to `target`, which appears only once it is complete.

    What arrived before the connection broke is kept beside it (`.NAME.partial`, and `.NAME.partial.json` which says
    of what it is a part), if the server can go on from there; else nothing is left.

    Args:
        url: https, a Google Drive or SharePoint share link, or http on this machine.
        target: where the file goes; its folder is made.
        title: the checkpoint, for messages.

    Raises:
        BadCheckpoint: the link answers with a web page.
        WeightsError: the link is dead, unsafe, or its server does not answer.
        Busy: another process is downloading it.
        CacheNotWritable: the folder is read-only, full, or cannot be made.
    """
    try:
        with _folder(target.parent), _alone(target, title):
            partial = Partial(target)
            try:
                _download(url, partial, title)
                partial.finish()
            finally:
                partial.tidy()
    except UnsafeLink as error:
        raise WeightsError(f"The link of {title} leads to {error}. {_by_hand(title)}") from error
    except OSError as error:  # the network's were sorted out before
        raise _not_writable(error, target.parent) from error
    return target


def _download(url: str, partial: Partial, title: str) -> None:
    host = urlsplit(direct_url(url)).hostname or url
    for attempt in range(1, TRIES + 1):
        try:
            _try(url, partial, title)
            return
        except HTTPError as error:
            error.close()
            if error.code == 416:  # what was kept is longer than the file has become
                partial.discard()
            elif error.code not in PASSING:
                raise _refused(url, title, error.code) from None
            failure = Broken(f"answers HTTP {error.code}")
        except Broken as error:
            failure = error
        if attempt == TRIES or (isinstance(failure, _Silent) and attempt > 1):
            break
        time.sleep(2.0 ** (attempt - 1))
    if isinstance(failure, _Unreachable):
        raise WeightsError(f"{title} was not downloaded: {host} {failure}. Check the network and try again")
    kept = f" What arrived is kept ({partial.size / 1e6:.0f} MB)." if partial.can_go_on else ""
    raise WeightsError(
        f"{title} was not downloaded: {host} {failure}.{kept} "
        f"Try again later, or open {url} in a browser, save the file and type: {_convert(title)}"
    )


def _try(url: str, partial: Partial, title: str) -> None:
    """One request, resumed where the last one ended; the bytes are in `partial` when it returns."""
    with _connection(), open_url(new_opener(), direct_url(url), partial.headers(), TIMEOUT_SECONDS) as response:
        total = partial.begin(url, response)
        first = response.read(min(PIECE_BYTES, 1024)) if partial.size == 0 else b""
        if partial.size == 0 and _is_page(response, first):
            partial.discard()
            raise BadCheckpoint(f"The link of {title} answers with a web page, not a file. {_by_hand(title, url)}")
        _require_room(partial, total)
        _copy(response, first, partial, total, title)
    if total is not None and partial.size != total:
        raise Broken(f"sent {partial.size} of {total} bytes")


def _copy(response: HTTPResponse, first: bytes, partial: Partial, total: int | None, title: str) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    shown = console.is_terminal
    if not shown:
        size = f" ({total / 1e6:.0f} MB)" if total else ""
        console.print(f"Downloading {title}{size} from {urlsplit(response.url).hostname}", soft_wrap=True)
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar,
        partial.path.open("ab") as file,
    ):
        task = bar.add_task(title, total=total, completed=partial.size)
        piece = first or response.read1(PIECE_BYTES)
        while piece:
            file.write(piece)
            partial.size += len(piece)
            bar.update(task, completed=partial.size)
            piece = response.read1(PIECE_BYTES)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the name without the bytes


def _is_page(response: HTTPResponse, first: bytes) -> bool:
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    return response.headers.get_content_type() == "text/html" or start.startswith((b"<!doctype html", b"<html"))


@contextmanager
def _connection() -> Iterator[None]:
    """Turn what a connection may end with into `Broken`, apart from the errors of our own files."""
    try:
        yield
    except HTTPError:
        raise
    except TimeoutError as error:
        raise _Silent(f"sent nothing for {TIMEOUT_SECONDS:.0f} s") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _NoConnection(f"does not answer within {TIMEOUT_SECONDS:.0f} s") from error
        raise _Unreachable(f"cannot be reached ({_said(error.reason)})") from error
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise Broken(f"broke the connection ({type(error).__name__})") from error
    except OSError as error:
        if error.errno in NO_NETWORK:
            raise _Unreachable(f"cannot be reached ({_said(error)})") from error
        raise


def _said(reason: object) -> str:
    """Without the number that nobody knows by heart."""
    return str(getattr(reason, "strerror", None) or reason)


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make the folder; take it away again if nothing came to lie in it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def _alone(target: Path, title: str) -> Iterator[None]:
    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"Another process is downloading {title} now. Wait until it is done") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # nobody waits for it: the next one makes its own
        lock.release()


def _require_room(partial: Partial, total: int | None) -> None:
    if total is not None and total - partial.size > shutil.disk_usage(partial.path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _refused(url: str, title: str, status: int) -> WeightsError:
    if status in DEAD:
        return WeightsError(f"The authors' link of {title} is dead (HTTP {status}: {url}). {_by_hand(title)}")
    return WeightsError(f"The server of {title} refuses (HTTP {status}: {url}). {_by_hand(title)}")


def _by_hand(title: str, url: str | None = None) -> str:
    if url is None:
        return f"If you have the file, type: {_convert(title)}"
    return f"Open {url} in a browser, save the file and type: {_convert(title)}"


def _convert(title: str) -> str:
    return f"disco-zoo convert FILE --as {title} --install"


def _not_writable(error: OSError, folder: Path) -> CacheNotWritable:
    if error.errno in FULL:
        return CacheNotWritable(f"The disk of {folder} is full. Make room, or set DISCO_ZOO_HOME to another folder")
    return CacheNotWritable(f"{folder} cannot be written ({_said(error)}). Set DISCO_ZOO_HOME to a folder that can")
