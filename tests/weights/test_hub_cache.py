"""What the Hub cache holds is handed out without a request, if its bytes are right; else it is healed once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock
from hub_faults import corrupt
from hub_files import REPO, publish
from hub_server import TestHub
from huggingface_hub import constants

from disco_zoo.errors import Damaged

pytest_plugins = ("hub_fixtures",)
pytestmark = pytest.mark.usefixtures("quiet_client")


def test_a_file_comes_verified_and_then_from_the_cache(hub: TestHub) -> None:
    published = publish(hub)
    path = published.fetch()
    assert path.read_bytes() == published.data
    hub.requests.clear()
    assert published.fetch() == path
    assert hub.requests == []


def test_a_new_download_costs_three_requests(hub: TestHub) -> None:
    publish(hub).fetch()
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD", "GET"]


def test_what_is_cached_needs_no_hub(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(hub)
    path = published.fetch()
    hub.down()
    assert published.fetch() == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert published.fetch() == path


def test_what_is_cached_survives_its_repository(hub: TestHub) -> None:
    published = publish(hub)
    path = published.fetch()
    del hub.store.repos[REPO]
    assert published.fetch() == path


def test_cache_dir_is_respected(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(hub)
    assert (tmp_path / "other") in published.fetch(tmp_path / "other").parents
    assert published.cached() is None
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = Path("~/cache")
    assert published.fetch(home) == published.fetch(home)
    assert (tmp_path / "home" / "cache") in published.fetch(home).parents


def test_what_is_cached_needs_no_writing(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    published = publish(hub)
    path = published.fetch()
    for owner, function in ((Path, "mkdir"), (os, "makedirs"), (os, "mkdir"), (FileLock, "acquire")):
        monkeypatch.setattr(owner, function, fail)
    assert published.fetch() == path


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_cache_serves_what_it_has(hub: TestHub, tmp_path: Path) -> None:
    published = publish(hub)
    path = published.fetch()
    folders = [tmp_path / "hub", *(p for p in (tmp_path / "hub").rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert published.fetch() == path
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_damaged_cache_is_healed_by_one_download(hub: TestHub) -> None:
    published = publish(hub)
    published.fetch()
    path = published.flip_a_cached_bit()
    hub.requests.clear()
    assert published.fetch() == path
    assert path.read_bytes() == published.data
    assert hub.count("GET") == 1
    assert published.fetch() == path
    assert hub.count("GET") == 1


def test_damage_on_the_way_is_healed_by_one_download(hub: TestHub) -> None:
    published = publish(hub)
    hub.fail(corrupt(), method="GET", times=1)
    assert published.fetch().read_bytes() == published.data
    assert hub.count("GET") == 2


def test_damage_that_stays_is_reported(hub: TestHub) -> None:
    published = publish(hub)
    hub.fail(corrupt(at=5), method="GET")
    with pytest.raises(Damaged, match=r"another sha256 than the catalog.*pip install --upgrade") as caught:
        published.fetch()
    assert hub.count("GET") == 2
    assert "\n" not in str(caught.value)
    with pytest.raises(Damaged):
        published.fetch()
    assert hub.count("GET") == 3


@pytest.mark.parametrize("why", ["down", "offline", "gone"])
def test_a_damaged_cache_without_a_hub_says_both(
    why: str, hub: TestHub, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(hub)
    published.fetch()
    path = published.flip_a_cached_bit()
    if why == "down":
        hub.down()
    elif why == "gone":
        del hub.store.repos[REPO]
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = {"down": "Cannot reach", "offline": "HF_HUB_OFFLINE", "gone": "not published"}[why]
    with pytest.raises(Damaged) as caught:
        published.fetch()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
