"""How long a user waits for a Hub that fails, in real time: nothing here is sped up.

`python tests/weights/test_hub_seconds.py` prints the table of fault, exception, seconds and message.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hub_faults import Fault, drop, silent, stall, status, truncate
from hub_files import REPO, Published, publish
from hub_server import TestHub
from huggingface_hub import constants

from disco_zoo.errors import HubUnreachable

pytest_plugins = ("hub_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quiet_client")]


def _fail(fault: Callable[[], Fault], method: str, times: float = float("inf")) -> Callable[[TestHub], object]:
    return lambda hub: hub.fail(fault(), method=method, times=times)


# What is done, and the most seconds that the report of it may take.
FAULTS: dict[str, tuple[Callable[[TestHub], object], float]] = {
    "connection refused": (lambda hub: hub.down(), 30),
    "HEAD: silent": (_fail(silent, "HEAD"), 60),
    "HEAD: closed without an answer": (_fail(drop, "HEAD"), 30),
    "HEAD: 503": (_fail(lambda: status(503), "HEAD"), 30),
    "HEAD: 429, Retry-After 10": (_fail(lambda: status(429, Retry_After="10"), "HEAD"), 30),
    "HEAD: 429, Retry-After 900": (_fail(lambda: status(429, Retry_After="900"), "HEAD"), 5),
    "our HEAD passes, the client's is silent": (lambda hub: _after_one(hub, silent()), 60),
    "GET: silent": (_fail(silent, "GET"), 60),
    "GET: 503": (_fail(lambda: status(503), "GET"), 5),
    "GET: cut each time": (_fail(lambda: truncate(at=50_000), "GET"), 30),
    "GET: 429, Retry-After 900": (_fail(lambda: status(429, Retry_After="900"), "GET"), 60),
    "GET: stops in mid body": (_fail(lambda: stall(at=50_000), "GET"), 70),
}


def _after_one(hub: TestHub, fault: Fault) -> None:
    hub.fail(Fault(), method="HEAD", times=1)
    hub.fail(fault, method="HEAD")


def outcome(published: Published) -> tuple[float, Exception | None]:
    """Seconds, and what was raised."""
    started = time.monotonic()
    try:
        published.fetch()
    except Exception as error:
        return time.monotonic() - started, error
    return time.monotonic() - started, None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_fails_is_reported_in_time(fault: str, hub: TestHub, capsys: pytest.CaptureFixture[str]) -> None:
    arrange, most_seconds = FAULTS[fault]
    published = publish(hub)
    arrange(hub)
    seconds, error = outcome(published)
    assert isinstance(error, HubUnreachable)
    assert seconds < most_seconds
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("disco-zoo: waiting for")]
    assert len(lines) == (seconds > 2.2), lines


@pytest.mark.parametrize("seconds_asked", [5])
def test_a_limit_that_passes_is_waited_out(seconds_asked: int, hub: TestHub) -> None:
    published = publish(hub)
    hub.fail(status(429, Retry_After=str(seconds_asked)), method="HEAD", times=1)
    seconds, error = outcome(published)
    assert error is None
    assert seconds_asked <= seconds < seconds_asked + 5


def _print_table() -> None:
    """All faults, one after the other, as a Markdown table."""
    import logging
    import tempfile

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    print("| fault | exception | seconds | message |\n| --- | --- | --- | --- |")
    with TestHub() as hub, tempfile.TemporaryDirectory() as folder:
        constants.HUGGINGFACE_CO_URL_TEMPLATE = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants.ENDPOINT = hub.url
        for number, (fault, (arrange, _)) in enumerate(FAULTS.items()):
            hub.reset()
            constants.HF_HUB_CACHE = f"{folder}/{number}"
            published = publish(hub)
            arrange(hub)
            seconds, error = outcome(published)
            message = str(error).replace(hub.url, "https://huggingface.co").replace(REPO, "ORG/NAME")
            print(f"| {fault} | {type(error).__name__} | {seconds:.1f} | {message} |", flush=True)


if __name__ == "__main__":
    _print_table()
