"""The store hands out whole installations or none, whoever writes, dies or meddles."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import CacheNotWritable, Damaged, UnknownName
from disco_zoo.weights import store

NAME = "disco_r18.seed_mocov2_r50_in1k"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def install(content: bytes = b"weights", **facts: Any) -> store.Installed:
    return store.install(
        NAME, "resnet18", lambda path: path.write_bytes(content), facts, lambda path: path.write_bytes(b"golden")
    )


def test_an_installation_is_found_by_name_with_its_facts() -> None:
    assert store.installed(NAME) is None
    assert store.installed_names() == set()
    found = install(layout="seed", source_sha256="ab")
    assert found == store.installed(NAME)
    assert found.path.read_bytes() == b"weights"
    assert found.sha256 == sha256_of(found.path) == found.path.stem
    assert found.golden.read_bytes() == b"golden"
    assert (found.network, found.facts) == ("resnet18", {"layout": "seed", "source_sha256": "ab"})
    assert store.installed_names() == {NAME}


def test_a_new_installation_replaces_the_old_one_and_clears_up(home: Path) -> None:
    former = install(b"former")
    (former.path.parent / ".weights.partial").write_bytes(b"left by a killed process")
    latter = install(b"latter")
    names = {path.name for path in former.path.parent.iterdir()} - {".lock"}
    assert names == {latter.path.name, latter.golden.name, "installed.json"}
    assert store.installed(NAME) == latter


def test_without_a_manifest_nothing_is_trusted(home: Path) -> None:
    found = install()
    (found.path.parent / "installed.json").unlink()
    assert store.installed(NAME) is None
    assert store.installed_names() == set()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"sha256": "x"}', "null", '{"sha256": "../../x", "network": "resnet18"}']
)
def test_a_damaged_manifest_says_what_to_delete(text: str) -> None:
    manifest = install().path.parent / "installed.json"
    manifest.write_text(text)
    with pytest.raises(Damaged, match=f"is damaged. Delete the folder .*{NAME} and type: disco-zoo download {NAME}"):
        store.installed(NAME)


def test_missing_weights_are_reported() -> None:
    install().path.unlink()
    with pytest.raises(Damaged, match="are gone"):
        store.installed(NAME)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\\b", "a\0b", "a b", "x" * 200, "ü", "a\n"])
def test_odd_names_never_become_paths(name: str, home: Path) -> None:
    with pytest.raises(UnknownName, match="is no name of the zoo"):
        store.folder_of(name)
    assert not home.exists()


def test_a_failed_write_leaves_the_former_installation(home: Path) -> None:
    former = install(b"former")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.install(NAME, "resnet18", fail, {}, lambda path: None)
    assert store.installed(NAME) == former
    assert not list(former.path.parent.glob("*.partial"))
    assert not list(former.path.parent.glob(".*.partial"))


def test_a_full_disk_is_one_line(home: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheNotWritable, match=r"no space left. Make room, or set DISCO_ZOO_HOME"):
        store.install(NAME, "resnet18", full, {}, lambda path: None)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_a_home_that_is_a_file_is_one_line(home: Path) -> None:
    home.write_text("not a folder")
    with pytest.raises(CacheNotWritable, match="Not a directory"):
        install()


def slow_install(home: str, ready: str) -> None:
    os.environ["DISCO_ZOO_HOME"] = home

    def write(path: Path) -> None:
        path.write_bytes(b"half a")
        Path(ready).touch()
        time.sleep(60)

    store.install(NAME, "resnet18", write, {}, lambda path: None)


def test_a_process_killed_in_mid_install_leaves_nothing_that_is_trusted(home: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
    ready = tmp_path / "ready"
    process = context.Process(target=slow_install, args=(str(home), str(ready)))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert store.installed(NAME) is None
    found = install()  # its lock died with it, its partial file is in nobody's way
    assert found.path.read_bytes() == b"weights"
    assert not list(found.path.parent.glob(".*.partial"))


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISCO_ZOO_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store.home() == tmp_path / "data" / "disco-zoo"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert store.home() == Path.home() / ".local/share/disco-zoo"


def test_the_manifest_is_plain_json_for_people() -> None:
    found = install(layout="seed")
    assert json.loads((found.path.parent / "installed.json").read_text()) == {
        "sha256": found.sha256,
        "network": "resnet18",
        "layout": "seed",
    }
