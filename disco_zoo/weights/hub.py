"""A verified file from the Hugging Face Hub, or one line that says why not.

huggingface_hub checks the length of what it downloads, not its bytes, and waits 23 s for a dead Hub and 393 s for
a silent one (measured, 2.4.0). So a short HEAD of our own comes first, waits are bounded, and the sha256 decides.
"""

from __future__ import annotations

import inspect
import logging
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import CacheNotWritable, Damaged, HubUnreachable, Offline, WeightsError
from disco_zoo.weights.hub_errors import FULL, OFFLINE, UPGRADE, NoAnswer, endpoint_name, explained, pause_before_retry
from disco_zoo.weights.hub_file import HubFile, cache_folder, cached_file
from disco_zoo.weights.hub_waiting import Transfer, waiting_line, within

__all__ = ["cached_file", "fetch_from_hub"]

LIBRARY = "disco-zoo"
HEAD_TRIES = 3
HEAD_SECONDS = 10.0  # for the answer to one HEAD, as long as the client itself gives it
SLOW_HEAD_SECONDS = 12.0  # ... and for its name look-up, whose time no HTTP client bounds
LIMIT_SECONDS = 30.0  # in all, when the Hub asks for patience (HTTP 429)
ANSWER_SECONDS = 30.0  # until the body of the file begins
PIECE_SECONDS = 300.0  # for the next piece of it: the client hands out 10 MiB at a time


def fetch_from_hub(
    name: str, *, repo: str, revision: str, file: str, sha256: str, cache_dir: str | Path | None = None
) -> Path:
    """A local file with this sha256: from the cache without any request, else downloaded.

    A damaged file, cached or downloaded, is downloaded anew once. Of several processes that want one file, one
    downloads it. A line on stderr tells of a wait of more than two seconds.

    Args:
        name: the checkpoint, for messages.
        repo: `organisation/name`.
        revision: the 40-hex commit; what is cached for it needs no request.
        file: path in the repository.
        sha256: 64 hexadecimal digits.
        cache_dir: the Hub cache; None for the usual one (HF_HUB_CACHE, HF_HOME).

    Raises:
        NotPublished: no such repository, or it is private.
        Gated: its terms were not accepted.
        AccessDenied: the token is refused, or may not read it.
        OutOfStep: the commit or the file is gone.
        Offline: not cached, and HF_HUB_OFFLINE is set.
        HubUnreachable: no connection, no answer, an error of the Hub's own, or something that is no Hub.
        CacheNotWritable: the cache is read-only or full.
        Damaged: the bytes are not those of the catalog, also after a new download.
    """
    wanted = HubFile(name, repo, revision, file, sha256, cache_folder(cache_dir))
    with explained(wanted):
        cached = wanted.cached()
        if cached is not None and sha256_of(cached) == sha256:
            return cached
    try:
        return _fetch(wanted)
    except WeightsError as error:
        if cached is None or isinstance(error, Damaged):
            raise
        damaged = f"The cached weights of {name} are damaged ({cached} has another sha256)"
        raise Damaged(f"{damaged}, and no new copy came. {error}") from error


def _fetch(wanted: HubFile) -> Path:
    if constants.HF_HUB_OFFLINE:
        raise Offline(OFFLINE.format(name=wanted.name, cache=wanted.cache))
    with (
        explained(wanted),
        waiting_line(f"{endpoint_name()}/{wanted.repo}", wanted.name) as line,
    ):
        line.size_bytes = _ask(wanted)
        started = time.monotonic()
        with _alone(wanted):
            path = wanted.verified()  # another process may have brought it meanwhile
            if path is not None:
                return path
            waited = time.monotonic() - started
            _require_room(wanted.cache, line.size_bytes)
            # Waiting for a process that got no answer either counts as waiting for the Hub.
            patience = max(ANSWER_SECONDS - waited, ANSWER_SECONDS / 6)
            return _download_verified(wanted, line, patience)


def _download_verified(wanted: HubFile, line: Transfer, patience: float) -> Path:
    force = wanted.cached() is not None
    path = _download(wanted, line, patience, force)
    if not force and sha256_of(path) != wanted.sha256:
        path = _download(wanted, line, patience, force=True)
    if sha256_of(path) != wanted.sha256:
        raise Damaged(
            f"The Hub's file of {wanted.name} ({wanted.repo}, {wanted.file}) has another sha256 than the catalog, "
            f"also when downloaded again; it was not loaded. {UPGRADE}"
        )
    return path


def _ask(wanted: HubFile) -> int | None:
    """Whether the Hub has the file, by a HEAD that gives up soon: the size in bytes, where it is told."""
    url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
    slept = 0.0
    for attempt in range(1, HEAD_TRIES + 1):
        try:
            metadata = within(
                lambda: get_hf_file_metadata(url, timeout=HEAD_SECONDS, library_name=LIBRARY), SLOW_HEAD_SECONDS
            )
        except Exception as error:  # the client's errors have no common base
            pause = pause_before_retry(error, attempt)
            if pause is None or attempt == HEAD_TRIES or slept + pause > LIMIT_SECONDS:
                raise
            time.sleep(pause)
            slept += pause
        else:
            if metadata.commit_hash is None or metadata.etag is None:
                raise HubUnreachable(
                    f"{endpoint_name()} does not answer as a Hugging Face Hub does, so {wanted.name} was not "
                    "fetched. Check HF_ENDPOINT, and whether the network wants a login"
                )
            return metadata.size
    raise AssertionError("the last try returns or raises")


def _download(wanted: HubFile, line: Transfer, patience: float, force: bool) -> Path:
    transfer = line.new_body()
    options: dict[str, Any] = {}
    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        options["tqdm_class"] = transfer.bar_class()
    else:  # before huggingface_hub 1.0: nothing tells when the body begins
        transfer.begun.set()
    path = transfer.run(
        lambda: hf_hub_download(
            wanted.repo,
            wanted.file,
            revision=wanted.revision,
            cache_dir=wanted.cache,
            force_download=force,
            etag_timeout=HEAD_SECONDS,
            library_name=LIBRARY,
            **options,
        ),
        patience,
        PIECE_SECONDS,
    )
    return Path(path)


@contextmanager
def _alone(wanted: HubFile) -> Iterator[None]:
    """Hold the lock of this file. The system frees it when its process dies, however that happens."""
    folder = wanted.cache / ".locks" / f"models--{wanted.repo.replace('/', '--')}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"disco-zoo-{wanted.sha256[:16]}.lock", mode=0o664)
    try:
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1.0)  # in steps, so that Ctrl-C works on every system
            except Timeout:
                continue
            except NotImplementedError:  # a file system without locks: correct all the same, only not downloaded once
                break
        yield
    finally:
        lock.release()


def _require_room(cache: Path, size_bytes: int | None) -> None:
    free = shutil.disk_usage(cache).free
    if size_bytes is not None and size_bytes > free:
        raise CacheNotWritable(FULL.format(cache=cache))


DNS_SECONDS = 5.0


def why_no_network() -> str | None:
    """Why the Hub's host name cannot be resolved; None where it can, behind a proxy, or where unknown."""
    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme in urllib.request.getproxies():
        return None
    try:
        within(lambda: socket.getaddrinfo(parts.hostname, parts.port or 443), DNS_SECONDS)
    except socket.gaierror as error:
        return error.strerror
    except (NoAnswer, OSError):  # a slow name server is no proof
        return None
    return None


@contextmanager
def quick_and_quiet(name: str) -> Iterator[None]:
    """Let the Hub's client work without its lines on each retry and, where there is no network, on its cache alone.

    Raises:
        HubUnreachable: there is no network, and `name` is not in the cache.
    """
    logger = logging.getLogger("huggingface_hub.utils._http")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    reason = None if offline else why_no_network()
    constants.HF_HUB_OFFLINE = offline or reason is not None
    try:
        yield
    except Offline as error:
        if reason is None:
            raise
        raise HubUnreachable(
            f"Cannot reach {endpoint_name()} ({reason}), so {name} was not fetched. Check the network, HF_ENDPOINT and "
            "proxies, or set HF_HOME to a folder that has it"
        ) from error
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline
