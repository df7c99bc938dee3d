"""A file of the Hub is handed out verified, or one line says why not: the real client against the test Hub."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_cases import ANSWERS, BODIES
from hub_faults import delay, stall, status, truncate
from hub_files import FILE, NAME, REPO, publish, refused
from hub_http import Handler
from hub_server import TestHub
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from disco_zoo.errors import (
    AccessDenied,
    CacheNotWritable,
    Gated,
    HubUnreachable,
    NotPublished,
    Offline,
    OutOfStep,
    WeightsError,
)
from disco_zoo.weights import hub as hub_module
from disco_zoo.weights import hub_errors, hub_waiting
from disco_zoo.weights.hub_file import HubFile

pytest_plugins = ("hub_fixtures",)
pytestmark = pytest.mark.usefixtures("quiet_client")


def test_the_token_goes_to_the_hub_and_no_further(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.store.add_user("hf_reader", "ann", "org", role="read")
    published = publish(hub, private=True)
    hub.redirect = True
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert published.fetch().read_bytes() == published.data
    assert all(request.has_authorization for request in hub.requests)
    assert [(request.method, request.has_authorization) for request in hub.file_requests] == [("GET", False)]


def test_the_stored_token_is_used(hub: TestHub) -> None:
    hub.store.add_user("hf_reader", "ann", "org", role="read")
    published = publish(hub, private=True)
    Path(constants.HF_TOKEN_PATH).write_text("hf_reader")
    assert published.fetch().read_bytes() == published.data


@pytest.mark.parametrize("case", ANSWERS)
def test_a_head_that_fails_is_explained(
    case: str, hub: TestHub, impatient: None, shorten_limit: Callable[[str], None]
) -> None:
    fault, kind, words = ANSWERS[case]
    if fault.silent:
        shorten_limit("HEAD")
    published = publish(hub)
    hub.fail(fault, method="HEAD")
    refused(published, kind, hub.url if kind is not AccessDenied else REPO, *words)
    assert hub.count("GET") == 0
    assert 1 <= hub.count("HEAD") <= 3


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_fails_is_explained(
    case: str, hub: TestHub, impatient: None, shorten_limit: Callable[[str], None]
) -> None:
    fault, kind, words = BODIES[case]
    if fault.silent:
        shorten_limit("GET")
    published = publish(hub)
    hub.fail(fault, method="GET")
    refused(published, kind, *words)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_passing_error_of_the_hub_is_overcome(code: int, hub: TestHub, impatient: None) -> None:
    published = publish(hub)
    hub.fail(status(code), method="HEAD", times=2)
    assert published.fetch().read_bytes() == published.data


@pytest.mark.parametrize("header", [{"Retry_After": "7"}, {"RateLimit": '"api";r=0;t=7'}])
def test_a_limit_is_waited_out(header: dict[str, str], hub: TestHub, impatient: None, no_waiting: list[float]) -> None:
    published = publish(hub)
    hub.fail(status(429, **header), method="HEAD", times=2)
    assert published.fetch().read_bytes() == published.data
    assert no_waiting == [7.0, 7.0]


def test_a_cut_body_is_resumed(hub: TestHub, impatient: None) -> None:
    published = publish(hub)
    hub.fail(truncate(at=50_000), method="GET", times=3)
    assert published.fetch().read_bytes() == published.data


def test_a_connection_cut_again_and_again_is_given_up(
    hub: TestHub, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # as 10 MiB are to a file of 100 MiB
    published = publish(hub)
    monkeypatch.setattr("hub_api.Handler.reply_file", _without_ranges)
    hub.fail(truncate(at=50_000), method="GET")
    refused(published, HubUnreachable, "cuts the connection again and again")
    assert hub.count("GET") == 7  # 3 x 100 kB in pieces of 50 kB, and the one too many


def _without_ranges(handler: Any, data: bytes, headers: dict[str, str]) -> None:
    handler.reply(200, data, headers)


def test_a_body_that_stops_coming_is_given_up(hub: TestHub, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PIECE_SECONDS", 0.5)
    published = publish(hub)
    hub.fail(stall(at=50_000), method="GET")
    refused(published, HubUnreachable, "stopped sending")


def test_a_dead_hub_is_named(hub: TestHub, impatient: None) -> None:
    published = publish(hub)
    hub.down()
    refused(published, HubUnreachable, f"Cannot reach {hub.url}", "refused", "HF_HOME")


def test_an_unknown_host_is_named(hub: TestHub, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(hub)
    url = "http://hub.invalid"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    refused(published, HubUnreachable, "http://hub.invalid")


@pytest.mark.parametrize("token", [None, "hf_other"])
@pytest.mark.parametrize("private", [True, False])
def test_a_missing_or_private_repository(
    token: str | None, private: bool, hub: TestHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.store.add_user("hf_other", "bob")
    published = publish(hub, private=True)
    if not private:
        del hub.store.repos[REPO]
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    refused(published, NotPublished, NAME, REPO, "not published", "hf auth login")


def test_a_gated_repository(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.store.add_user("hf_other", "bob")
    published = publish(hub, gated=True)
    refused(published, Gated, f"{hub.url}/{REPO}", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    refused(published, Gated, "terms")
    hub.store.repos[REPO].accepted.add("bob")
    assert published.fetch().read_bytes() == published.data


def test_a_commit_that_is_gone(hub: TestHub) -> None:
    published = publish(hub)
    published.revision = "0" * 40
    refused(published, OutOfStep, "0" * 12, "pip install --upgrade disco-zoo")


def test_a_file_that_is_gone(hub: TestHub) -> None:
    published = publish(hub)
    published.revision = hub.store.repos[REPO].commit({"other": b""})
    refused(published, OutOfStep, FILE, "pip install --upgrade disco-zoo")


@pytest.mark.parametrize("token", ["hf_unknownunknown", "hf_with blanks inside", "hf_\N{SNOWMAN}"])
def test_a_bad_token_is_refused_and_not_shown(
    token: str, hub: TestHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    published = publish(hub)
    monkeypatch.setenv("HF_TOKEN", token)
    message = refused(published, AccessDenied, "token", "HF_TOKEN", "hf auth login")
    assert token not in message
    assert token not in capfd.readouterr().err


def test_a_token_that_breaks_the_request_is_in_no_traceback(hub: TestHub) -> None:
    published = publish(hub)
    Path(constants.HF_TOKEN_PATH).write_text("hf_opaque\0opaque")
    with pytest.raises(AccessDenied, match=r"characters that no token has.*hf auth login") as caught:
        published.fetch()
    assert "opaque" not in "".join(traceback.format_exception(caught.value))


def test_secrets_leave_messages(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "mine")
    said = hub_errors.without_secrets("mine, Bearer xyz and hf_abcdefghij at https://u:p@x.org/a?Signature=1 ends")
    assert said == "***, Bearer *** and hf_*** at https://***@x.org/a?*** ends"


@pytest.mark.parametrize("password", ["secret", "sec@ret", "sec:ret"])
def test_the_endpoints_password_is_not_shown(password: str, hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"https://user:{password}@hub.example")
    assert hub_errors.endpoint_name() == "https://***@hub.example"


def test_the_client_finding_out_that_it_is_offline_says_the_same(hub: TestHub, tmp_path: Path) -> None:
    wanted = HubFile(NAME, REPO, "0" * 40, FILE, "0" * 64, tmp_path)
    with pytest.raises(Offline) as caught, hub_errors.explained(wanted):
        raise OfflineModeIsEnabled("")
    assert str(caught.value) == (
        f"{NAME} is not in the cache {tmp_path} and offline mode is on. "
        "Unset HF_HUB_OFFLINE, or set HF_HOME to a folder that has it"
    )


def test_offline_and_not_cached(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(published, Offline, NAME, "HF_HUB_OFFLINE", "HF_HOME", constants.HF_HUB_CACHE)
    assert hub.requests == []


@pytest.mark.parametrize("where", ["cache", "download"])
@pytest.mark.parametrize(("code", "words"), [(errno.EROFS, "Read-only"), (errno.ENOSPC, "full")])
def test_a_cache_that_cannot_be_written(
    where: str, code: int, words: str, hub: TestHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    published = publish(hub)
    monkeypatch.setattr(*{"cache": (Path, "mkdir"), "download": (os, "makedirs")}[where], fail)
    refused(published, CacheNotWritable, words, "HF_HOME", "cache_dir=", constants.HF_HUB_CACHE)
    assert hub.count("GET") == 0


def test_a_full_disk_is_seen_before_the_download(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(hub)
    usage = shutil.disk_usage(".")._replace(free=99_999)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: usage)
    refused(published, CacheNotWritable, "full", "HF_HOME")
    assert hub.count("GET") == 0


def test_a_wait_is_announced_with_the_size_once_it_is_known(
    hub: TestHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timers: list[threading.Timer] = []
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timers.append(timer))
    published = publish(hub, size=2_000_000)
    answer = Handler.reply_file

    def two_seconds_later(handler: Handler, data: bytes, headers: dict[str, str]) -> None:
        if handler.command == "GET":
            timers[0].function()
        answer(handler, data, headers)

    monkeypatch.setattr("hub_api.Handler.reply_file", two_seconds_later)
    published.fetch()
    assert [timer.interval for timer in timers] == [hub_waiting.LINE_AFTER_SECONDS]
    assert capsys.readouterr().err == f"disco-zoo: waiting for {hub.url}/{REPO} ({NAME}, 2.0 MB) ...\n"


def test_a_wait_for_the_first_answer_is_announced(
    hub: TestHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub_waiting, "LINE_AFTER_SECONDS", 0.0)
    published = publish(hub)
    hub.fail(delay(1.0), method="HEAD", times=1)
    published.fetch()
    assert capsys.readouterr().err == f"disco-zoo: waiting for {hub.url}/{REPO} ({NAME}) ...\n"


def test_a_quick_download_is_silent(hub: TestHub, capsys: pytest.CaptureFixture[str]) -> None:
    publish(hub).fetch()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("file", ["../../../x", "/etc/passwd"])
def test_a_path_out_of_the_cache_is_refused(file: str, hub: TestHub) -> None:
    published = publish(hub)
    with pytest.raises(WeightsError):
        hub_module.fetch_from_hub(NAME, repo=REPO, revision=published.revision, file=file, sha256=published.sha256)
