"""What the Hub's client raises, sorted into our exceptions: one line each, and what to type next.

The client is built on requests, httpx or httpx2, depending on its version, and their errors have no common base.
So connection errors are told apart by the names of their classes.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from disco_zoo.errors import (
    AccessDenied,
    CacheNotWritable,
    DiscoZooError,
    Gated,
    HubUnreachable,
    NotPublished,
    Offline,
    OutOfStep,
    WeightsError,
)
from disco_zoo.weights.hub_file import HubFile

FULL = "The disk of the cache {cache} is full. Make room, or set HF_HOME or cache_dir= to another folder"
READ_ONLY = "The cache {cache} cannot be written ({reason}). Set HF_HOME or cache_dir= to a folder that can"
OFFLINE = (
    "{name} is not in the cache {cache} and offline mode is on. Unset HF_HUB_OFFLINE, or set HF_HOME to a folder "
    "that has it"
)
UPGRADE = "Type: pip install --upgrade disco-zoo"
LATER = "Try again later"

SERVER_ERRORS = (408, 500, 502, 503, 504)
NETWORK_ERRORS = (
    "ConnectionError",
    "TransportError",
    "TimeoutException",
    "Timeout",
    "TimeoutError",
    "ChunkedEncodingError",
)
BROKEN_OFF = ("RemoteProtocolError", "ReadError", "WriteError", "ChunkedEncodingError")
TIMEOUTS = ("TimeoutException", "Timeout", "TimeoutError")
UNSENDABLE = ("LocalProtocolError", "InvalidHeader", "UnicodeEncodeError")


class NoAnswer(Exception):
    """The Hub was given up: the message says after what."""


@contextmanager
def explained(wanted: HubFile) -> Iterator[None]:
    """Turn whatever the client raises inside into one of our errors, which say it once: its retries are not printed."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    except DiscoZooError:
        raise
    except Exception as error:
        ours = _ours(_root(error), wanted)
        raise ours from printable_cause(error)
    finally:
        client.setLevel(level)


def printable_cause(error: Exception) -> Exception | None:
    """`error` as the cause of one of ours; None if its traceback would quote a secret."""
    return None if any(map(_has_secrets, _chain(error))) else error


def pause_before_retry(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before attempt `attempt` + 1 of a request that failed so; None if it would fail again."""
    status = _status(error)
    if status == 429:
        return _asked_patience(error) or float(2**attempt)
    if status is not None:
        return float(2 ** (attempt - 1)) if status in SERVER_ERRORS else None
    if _is(error, TIMEOUTS) or isinstance(error, NoAnswer):
        return 1.0 if attempt == 1 else None  # each took long already
    if _is(error, UNSENDABLE):
        return None
    return float(2 ** (attempt - 1)) if _is(error, NETWORK_ERRORS) else None


def _ours(error: BaseException, wanted: HubFile) -> WeightsError:
    status = _status(error)
    ours = _of_repository(error, wanted)
    if ours is None and status is not None:
        ours = _of_status(status, error, wanted)
    ours = ours or _of_this_machine(error, wanted) or _of_connection(error, wanted)
    where = f"{endpoint_name()}/{wanted.repo}"
    return ours or WeightsError(f"Could not fetch {wanted.name} from {where}: {_reason(error)}. {LATER}")


def _of_repository(error: BaseException, wanted: HubFile) -> WeightsError | None:
    name, repo, commit = wanted.name, wanted.repo, wanted.revision[:12]
    if isinstance(error, GatedRepoError):
        return Gated(
            f"{name} is for those who accept the terms of {repo}. Accept them at {endpoint_name()}/{repo}, "
            "then type: hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return NotPublished(
            f"The weights of {name} are not published: {endpoint_name()} shows no repository {repo} to you. "
            "If it is private and you may read it, type: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return OutOfStep(f"{repo} no longer has the commit {commit}, which this package names for {name}. {UPGRADE}")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return OutOfStep(f"{repo} has no file {wanted.file} at the commit {commit}, for {name}. {UPGRADE}")
    return None


def _of_status(status: int, error: BaseException, wanted: HubFile) -> WeightsError:
    endpoint, name, repo = endpoint_name(), wanted.name, wanted.repo
    said = without_secrets(str(getattr(error, "server_message", None) or "").split("\n")[0]).rstrip(".")
    if status == 401:
        return AccessDenied(
            f"{endpoint} does not know your token (HTTP 401), so {name} was not fetched. "
            "Correct or unset HF_TOKEN, or type: hf auth login"
        )
    if status in (402, 403, 407, 451):
        remark = f": {said}" if said else ""
        return AccessDenied(
            f"{endpoint} refuses {repo} to you (HTTP {status}{remark}). Use another token: set HF_TOKEN, "
            "or type: hf auth login"
        )
    if status == 429:
        asked = _asked_patience(error)
        when = f"in {asked:.0f} s" if asked else "later"
        return HubUnreachable(
            f"{endpoint} limits how often you ask (HTTP 429), so {name} was not fetched. Try again {when}, "
            "or for a higher limit type: hf auth login"
        )
    return HubUnreachable(
        f"{endpoint} has an error of its own (HTTP {status}), so {name} was not fetched. {LATER}; "
        "cached weights load without it"
    )


def _of_this_machine(error: BaseException, wanted: HubFile) -> WeightsError | None:
    if isinstance(error, OfflineModeIsEnabled):
        return Offline(OFFLINE.format(name=wanted.name, cache=wanted.cache))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheNotWritable(FULL.format(cache=wanted.cache))
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return CacheNotWritable(READ_ONLY.format(cache=wanted.cache, reason=os.strerror(error.errno)))
    if _is(error, UNSENDABLE):
        return AccessDenied(
            "Your Hugging Face token has characters that no token has. Set HF_TOKEN anew, or type: hf auth login"
        )
    return None


def _of_connection(error: BaseException, wanted: HubFile) -> WeightsError | None:
    endpoint, not_fetched = endpoint_name(), f"so {wanted.name} was not fetched"
    if isinstance(error, NoAnswer):
        return HubUnreachable(f"{endpoint} {error}, {not_fetched}. {LATER}; cached weights load without it")
    if _is(error, TIMEOUTS):
        return HubUnreachable(f"{endpoint} does not answer, {not_fetched}. {LATER}; cached weights load without it")
    if "Consistency check failed" in str(error):
        return HubUnreachable(
            f"{endpoint} sent something of another length than {wanted.file}, {not_fetched}. "
            "Check whether the network wants a login, then try again"
        )
    if _is(error, BROKEN_OFF):
        return HubUnreachable(f"The connection to {endpoint} broke off ({_reason(error)}), {not_fetched}. {LATER}")
    if _is(error, NETWORK_ERRORS):
        return HubUnreachable(
            f"Cannot reach {endpoint} ({_reason(error)}), {not_fetched}. Check the network, HF_ENDPOINT and proxies, "
            "or set HF_HOME to a folder that has it"
        )
    return None


def _root(error: BaseException) -> BaseException:
    """The error behind the client's "check your connection" and "Force download failed", which name no cause."""
    while error.__cause__ is not None and (
        isinstance(error, LocalEntryNotFoundError) or str(error).startswith("Force download failed")
    ):
        error = error.__cause__
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """All that a traceback would show."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _has_secrets(error: BaseException) -> bool:
    return without_secrets(str(error)) != str(error)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error that is one."""
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _asked_patience(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait: `Retry-After: 5`, or `RateLimit: "api";r=0;t=5`."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    retry_after = str(headers.get("Retry-After", "")).strip()
    if retry_after.isdigit():
        return float(retry_after)
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", str(headers.get("RateLimit", "")))
    return float(limit[1]) if limit else None


def _is(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(base.__name__ in names for base in type(error).__mro__)


def _reason(error: BaseException) -> str:
    text = without_secrets(" ".join(str(error).split()).rstrip("."))
    return text[:200] or type(error).__name__


def endpoint_name() -> str:
    """The Hub's address, for messages."""
    return without_secrets(constants.ENDPOINT)


def without_secrets(text: str) -> str:
    """Without tokens, and without the query of addresses: that of a storage address is its signature."""
    token = get_token()
    if token:
        text = text.replace(token, "***")
    text = re.sub(r"Bearer\s+[^\s'\"]+", "Bearer ***", text)
    text = re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", text)
    text = re.sub(r"(https?://)[^\s/?#'\"]+@", r"\1***@", text)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1?***", text)
