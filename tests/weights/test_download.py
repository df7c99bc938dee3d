"""The authors' files come whole, from a loopback server with the habits of the real ones, or one line says why not."""

from __future__ import annotations

import errno
import http.client
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import HTTPSHandler, Request

import pytest
from filelock import FileLock
from hub_faults import FaultPlan, drop, silent, stall, status, truncate
from hub_http import Handler, Site

from disco_zoo.errors import BadCheckpoint, Busy, CacheNotWritable, DiscoZooError, WeightsError
from disco_zoo.weights import download
from disco_zoo.weights.download import download_official
from disco_zoo.weights.links import UnsafeLink, direct_url, require_safe

TITLE = "disco_r18.test"
DATA = random.Random(1).randbytes(1_500_000)


class FileHost(Handler):
    """A file host. `/loop` redirects for ever, `/cookie` opens with a cookie only, `/away` leads elsewhere."""

    def respond(self, authorization: str | None) -> None:
        host = cast("Files", self.server.site.backend)
        if self.route == "/odd-length":
            self.send_of_odd_length(host)
        elif self.route == "/away":
            self.reply(302, b"", {"Location": host.away})
        elif self.route == "/hop":
            self.reply(302, b"", {"Location": host.hop})
        elif self.route == "/loop":
            self.reply(302, b"", {"Location": "/loop"})
        elif self.route == "/cookie" and "opened=1" not in self.headers.get("Cookie", ""):
            self.reply(302, b"", {"Location": "/cookie", "Set-Cookie": "opened=1; Path=/"})
        elif self.route == "/page":
            self.reply(200, b"\n<!DOCTYPE html><html>Sign in</html>", {"Content-Type": host.page_type})
        else:
            self.send_whole_or_rest(host)

    def send_of_odd_length(self, host: Files) -> None:
        self.send_response(200)
        self.send_header("Content-Length", host.length)
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(host.data)
        self.close_connection = True

    def send_whole_or_rest(self, host: Files) -> None:
        if self.headers.get("If-Range") not in (None, *host.headers.values()) or not host.ranges:
            del self.headers["Range"]
        self.reply_file(host.data, {"Content-Type": "application/octet-stream", **host.headers})


class Files:
    """What the file host serves and how."""

    def __init__(self) -> None:
        self.faults = FaultPlan()
        self.released = threading.Event()
        self.data = DATA
        self.headers = {"ETag": '"one"'}
        self.ranges = True
        self.length = "abc"
        self.away = "http://example.invalid/x"
        self.hop = ""
        self.page_type = "text/html; charset=utf-8"
        self.site = Site(self, FileHost)

    @property
    def url(self) -> str:
        return f"{self.site.url}/file.pth.tar"

    @property
    def asked(self) -> list[str | None]:
        """The Range of each request."""
        return [request.range for request in self.site.requests]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda _: None))
    host = Files()
    yield host
    host.released.set()
    host.site.down()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "original"


def refused(url: str, target: Path, kind: type[DiscoZooError], *words: str) -> None:
    """The download fails with exactly `kind`, in one line that holds `words`, and the file is not there."""
    with pytest.raises(DiscoZooError) as caught:
        download_official(url, target, title=TITLE)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    for word in (*words, TITLE):
        assert word in message
    assert not target.exists()


def left(target: Path) -> list[str]:
    """What lies in the target's folder."""
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_a_file_comes_whole_and_alone(files: Files, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download_official(files.url, target, title=TITLE) == target
    assert target.read_bytes() == DATA
    assert left(target) == ["original"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"Downloading {TITLE} (2 MB) from 127.0.0.1\n"


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_a_broken_download_goes_on_where_it_was(headers: dict[str, str], files: Files, target: Path) -> None:
    files.headers = headers
    files.faults.add(truncate(at=1_000_000), "GET", "*", 1)
    download_official(files.url, target, title=TITLE)
    assert target.read_bytes() == DATA
    assert files.asked == [None, "bytes=1000000-"]
    assert left(target) == ["original"]


def test_the_next_command_goes_on_where_the_last_one_was(files: Files, target: Path) -> None:
    files.faults.add(truncate(at=1_000), "GET", "*", 3)
    refused(files.url, target, WeightsError, "sent 3000 of 1500000 bytes", "What arrived is kept", "disco-zoo convert")
    assert left(target) == [".original.partial", ".original.partial.json"]
    download_official(files.url, target, title=TITLE)
    assert target.read_bytes() == DATA
    assert files.asked[-1] == "bytes=3000-"
    assert left(target) == ["original"]


@pytest.mark.parametrize("change", ["content", "length", "ranges", "url", "note"])
def test_a_part_of_another_file_is_not_gone_on_with(change: str, files: Files, target: Path) -> None:
    files.faults.add(truncate(at=1_000), "GET", "*", 3)
    refused(files.url, target, WeightsError)
    if change == "content":
        files.data, files.headers = DATA[::-1], {"ETag": '"two"'}
    elif change == "length":  # a server that takes no notice of If-Range
        files.data = DATA[::-1][:-5]
    elif change == "ranges":
        files.data, files.ranges = DATA[::-1], False
    elif change == "note":
        (target.parent / ".original.partial.json").write_text("{")
    url = files.url + "?other" if change == "url" else files.url
    download_official(url, target, title=TITLE)
    assert target.read_bytes() == files.data
    assert left(target) == ["original"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_a_part_that_cannot_be_gone_on_with_is_not_kept(headers: dict[str, str], files: Files, target: Path) -> None:
    files.headers = headers
    files.faults.add(truncate(at=1_000), "GET", "*", 3)
    refused(files.url, target, WeightsError, "sent 1000 of 1500000 bytes")
    assert left(target) == []
    assert files.asked == [None, None, None]


@pytest.mark.parametrize("length", ["abc", "-1", "1_500_000", "\xb2", "9" * 5000])
def test_a_length_that_is_no_number_is_an_unknown_length(length: str, files: Files, target: Path) -> None:
    files.length = length
    download_official(f"{files.site.url}/odd-length", target, title=TITLE)
    assert target.read_bytes() == DATA
    assert left(target) == ["original"]


def test_a_part_longer_than_the_file_is_dropped(files: Files, target: Path) -> None:
    files.faults.add(truncate(at=1_000), "GET", "*", 3)
    refused(files.url, target, WeightsError)
    files.data = DATA[:500]
    download_official(files.url, target, title=TITLE)
    assert target.read_bytes() == DATA[:500]


@pytest.mark.parametrize("page_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_not_a_file(page_type: str, files: Files, target: Path) -> None:
    files.page_type = page_type
    url = f"{files.site.url}/page"
    refused(url, target, BadCheckpoint, "answers with a web page", f"Open {url} in a browser", "disco-zoo convert FILE")
    assert left(target) == []
    assert len(files.asked) == 1


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_dead_link_is_not_tried_again(code: int, files: Files, target: Path) -> None:
    files.faults.add(status(code), "GET", "*", 5)
    refused(files.url, target, WeightsError, "link", "dead", f"HTTP {code}", files.url, "disco-zoo convert FILE --as")
    assert len(files.asked) == 1
    assert left(target) == []


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_error_is_tried_again(code: int, files: Files, target: Path) -> None:
    files.faults.add(status(code), "GET", "*", 2)
    download_official(files.url, target, title=TITLE)
    assert target.read_bytes() == DATA


def test_an_error_that_stays_is_reported_after_three_tries(files: Files, target: Path) -> None:
    files.faults.add(status(503), "GET", "*", 9)
    refused(files.url, target, WeightsError, "answers HTTP 503", "Try again later", files.url)
    assert len(files.asked) == 3


def test_a_server_that_hangs_up(files: Files, target: Path) -> None:
    files.faults.add(drop(), "GET", "*", 9)
    refused(files.url, target, WeightsError, "broke the connection")
    assert left(target) == []


def test_a_silent_server_is_tried_twice(files: Files, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    files.faults.add(silent(), "GET", "*", 9)
    refused(files.url, target, WeightsError, "sent nothing", "Try again later")
    assert len(files.asked) == 2


def test_a_server_that_stops_sending_is_asked_for_the_rest(
    files: Files, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 1.5)
    files.faults.add(stall(at=1_000_000), "GET", "*", 1)
    download_official(files.url, target, title=TITLE)
    assert target.read_bytes() == DATA
    assert files.asked == [None, "bytes=1000000-"]


def test_a_server_that_is_down(files: Files, target: Path) -> None:
    files.site.down()
    with pytest.raises(WeightsError) as caught:
        download_official(files.url, target, title=TITLE)
    assert str(caught.value) == (
        f"{TITLE} was not downloaded: 127.0.0.1 cannot be reached (Connection refused). Check the network and try again"
    )
    assert left(target) == []
    with socket.socket() as listening:  # connections to it are neither taken nor refused... once its queue is full
        listening.bind(("127.0.0.1", 0))
        refused(f"http://127.0.0.1:{listening.getsockname()[1]}/x", target, WeightsError, "cannot be reached")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://example.com/x",
        "http://127.0.0.1.example.com/x",
        "http://localhost@example.com/x",
        "data:text/plain,x",
        "https:///x",
        "x.pth",
        "",
    ],
)
def test_other_schemes_are_refused_without_a_request(url: str, target: Path) -> None:
    with pytest.raises(UnsafeLink):
        require_safe(url)
    refused(url, target, WeightsError, "not https", "disco-zoo convert")
    assert left(target) == []


@pytest.mark.parametrize("away", ["http://example.invalid/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_another_scheme_is_refused(away: str, files: Files, target: Path) -> None:
    files.away = away
    refused(f"{files.site.url}/away", target, WeightsError)
    assert left(target) == []


@pytest.fixture
def https(files: Files, monkeypatch: pytest.MonkeyPatch) -> str:
    """An https host by name; what it answers comes from `files` all the same."""

    def connect(host: str, **options: Any) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(files.site.url.removeprefix("http://"), **options)

    def https_open(self: HTTPSHandler, request: Request) -> Any:
        return self.do_open(connect, request)

    monkeypatch.setattr(HTTPSHandler, "https_open", https_open)
    return "https://files.example"


def test_a_redirect_to_another_https_host_is_followed(https: str, files: Files, target: Path) -> None:
    files.away = "https://cdn.example/file.pth.tar"
    download_official(f"{https}/away", target, title=TITLE)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("hop", ["", "https://other.example/away"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_host_elsewhere_does_not_lead_to_this_machine(
    host: str, scheme: str, hop: str, https: str, files: Files, target: Path
) -> None:
    files.away = f"{scheme}://{host}:{files.site.url.split(':')[-1]}/file.pth.tar?secret"
    if hop:
        files.hop = hop
    refused(f"{https}/{'hop' if hop else 'away'}", target, WeightsError, "which is on this machine", host)
    assert len(files.asked) == (2 if hop else 1)
    assert left(target) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_leads_to_itself(host: str, files: Files, target: Path) -> None:
    files.away = f"http://127.0.0.1:{files.site.url.split(':')[-1]}/file.pth.tar"
    download_official(f"http://{host}:{files.site.url.split(':')[-1]}/away", target, title=TITLE)
    assert target.read_bytes() == DATA


def test_redirects_end(files: Files, target: Path) -> None:
    refused(f"{files.site.url}/loop", target, WeightsError, "HTTP 302")


def test_a_link_that_opens_by_a_cookie(files: Files, target: Path) -> None:
    download_official(f"{files.site.url}/cookie", target, title=TITLE)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://drive.google.com/file/d/1a-B_c/view", "1a-B_c"),
        ("https://drive.google.com/file/d/1a-B_c/view?usp=sharing", "1a-B_c"),
        ("https://drive.google.com/open?id=1a-B_c", "1a-B_c"),
        ("https://drive.google.com/uc?export=download&id=1a-B_c", "1a-B_c"),
    ],
)
def test_google_drive_pages_become_files(url: str, direct: str) -> None:
    asked = f"https://drive.usercontent.google.com/download?id={direct}&export=download&confirm=t"
    assert direct_url(url) == asked


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://x-my.sharepoint.com/:u:/g/p/Ea?e=abc", "https://x-my.sharepoint.com/:u:/g/p/Ea?e=abc&download=1"),
        ("https://x-my.sharepoint.com/:u:/g/p/Ea", "https://x-my.sharepoint.com/:u:/g/p/Ea?download=1"),
        ("https://x-my.sharepoint.com/:u:/g/p/Ea?download=1", "https://x-my.sharepoint.com/:u:/g/p/Ea?download=1"),
        ("https://dl.example.org/a.pth?e=1", "https://dl.example.org/a.pth?e=1"),
        ("https://drive.google.com/drive/folders/1a", "https://drive.google.com/drive/folders/1a"),
    ],
)
def test_sharepoint_downloads_and_the_rest_is_left_alone(url: str, direct: str) -> None:
    assert direct_url(url) == direct


def test_a_full_disk_is_seen_before_the_download(files: Files, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_499_999)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CacheNotWritable, match="is full"):
        download_official(files.url, target, title=TITLE)
    assert left(target) == []


def test_a_folder_that_cannot_be_written(files: Files, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(CacheNotWritable, match=r"Read-only.*DISCO_ZOO_HOME"):
        download_official(files.url, target, title=TITLE)
    assert files.asked == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a /proc, in which nobody can make a folder")
def test_a_folder_that_cannot_be_made(files: Files) -> None:
    with pytest.raises(CacheNotWritable, match=r"^/proc/nothere/d cannot be written \(.*\)\. Set DISCO_ZOO_HOME to"):
        download_official(files.url, Path("/proc/nothere/d/original"), title=TITLE)
    assert files.asked == []


def test_two_at_once_do_not_mix(files: Files, target: Path) -> None:
    target.parent.mkdir()
    with FileLock(target.parent / ".original.lock"):
        refused(files.url, target, Busy, "Another process is downloading")
    assert files.asked == []


@pytest.mark.slow
def test_a_silent_server_costs_less_than_a_minute(target: Path) -> None:
    host = Files()
    host.faults.add(silent(), "GET", "*", 9)
    started = time.monotonic()
    refused(host.url, target, WeightsError, "sent nothing")
    assert 40 < time.monotonic() - started < 60
    host.released.set()
    host.site.down()
