"""Twenty kills of each command at points of its writing; what goes on ends in the bytes of an undisturbed one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TestHub
from kill_storm import count_points, ends_by_kill
from storm_works import (
    REPO,
    Work,
    build_cache,
    convert,
    embed,
    finetune,
    index,
    install,
    is_installed_in,
    make_inputs,
    pack,
    pretrain,
    publish,
    state_of,
)
from tiny_runs import differences

pytest_plugins = ("hub_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600), pytest.mark.usefixtures("one_thread")]

KILLS = int(os.environ.get("DISCO_ZOO_KILLS", "20"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def storm(work: Work, inputs: Path, folder: Path) -> Iterator[Path]:
    """Kill `KILLS` times at points spread over the whole work, and let it end; yield each folder when it has.

    Where there are fewer points, what goes on is killed, too, at points of its own.
    """
    whole = folder / "whole"
    whole.mkdir()
    points = count_points(lambda: work(inputs, whole, False))
    yield whole
    wanted = state_of(whole)
    again = points < KILLS
    rounds = -(-KILLS // 2) if again else KILLS
    killed = 0
    for number in range(rounds):
        point = 1 + number * points // rounds
        here = folder / f"{number}_killed_at_{point}"
        here.mkdir()
        assert ends_by_kill(point, lambda at=here: work(inputs, at, False)), f"it never came to point {point}"  # type: ignore[misc]
        killed += 1
        if again:
            killed += ends_by_kill(1 + number % points, lambda at=here: work(inputs, at, True))  # type: ignore[misc]
        assert not ends_by_kill(0, lambda at=here: work(inputs, at, True))  # type: ignore[misc]
        yield here
        assert differences(state_of(here), wanted) == [], f"killed at point {point}"
    print(f"{work.__name__}: {killed} kills, of {points} points")
    assert killed >= 0.75 * KILLS


@pytest.mark.parametrize("work", [pretrain, build_cache, embed, pack, finetune, index, convert])
def test_killed_twenty_times_and_the_same_in_the_end(work: Work, inputs: Path, tmp_path: Path) -> None:
    assert all(state_of(folder) for folder in storm(work, inputs, tmp_path))


def test_an_installation_is_whole_after_each_kill(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_ZOO_HOME", "")  # put back in the end
    for folder in storm(install, inputs, tmp_path):
        assert is_installed_in(folder)


def test_a_publication_is_one_commit_of_the_same_files_after_each_kill(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: TestHub
) -> None:
    hub.store.add_user("hf_ann", "ann", "org")
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    for folder in storm(publish, inputs, tmp_path):
        repo = hub.store.repos.pop(REPO)
        hub.store.lfs.clear()  # what is there is not uploaded again, and the next one is to be a first one
        assert len(repo.commits) == 2  # the repository's own first one, and ours
        stored = repo.commits[repo.branches["main"]]
        for path in (folder / "hub_folder").iterdir():
            assert stored[path.name] == path.read_bytes(), path.name
