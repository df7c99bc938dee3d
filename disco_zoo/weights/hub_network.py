"""A quick check for a network connection, before the Hub's client waits half a minute for one."""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

from disco_zoo.errors import HubUnreachable, Offline
from disco_zoo.weights.hub_errors import NoAnswer, endpoint_name
from disco_zoo.weights.hub_waiting import within

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
