"""Eight processes at once against one cache, one store, one out folder: whole bytes, or one line for who is refused."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from storm_works import (
    CONVERTED,
    Work,
    build_cache,
    convert,
    embed,
    finetune,
    index,
    install,
    make_inputs,
    pack,
    pretrain,
    state_of,
)
from tiny_runs import differences

from disco_zoo.errors import DiscoZooError
from disco_zoo.weights.resolve import local_weights
from disco_zoo.zoo.catalog import load_catalog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("one_thread")]

PROCESSES = 8
DONE, REFUSED, FAILED = 0, 3, 1


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def at_once(work: Callable[[], object], log: Path, processes: int = PROCESSES) -> tuple[int, list[str]]:
    """Fork so many, let all of them begin together; how many came to the end, and what the others were told."""
    gate, opener = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            code = FAILED
            try:
                os.close(opener)
                os.read(gate, 1)  # ends when the parent closes its side
                work()
                code = DONE
            except DiscoZooError as error:
                (log / f"{number}.txt").write_text(str(error), encoding="utf-8")
                code = REFUSED
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    os.close(gate)
    os.close(opener)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {DONE, REFUSED}, "a process failed; its traceback is above"
    told = [path.read_text(encoding="utf-8") for path in sorted(log.glob("*.txt"))]
    assert all(text and "\n" not in text for text in told)
    print(f"{codes.count(DONE)} of {processes} came to the end; told: {sorted(set(told))}")
    return codes.count(DONE), told


def alone(work: Work, inputs: Path, folder: Path) -> Path:
    """The same by one process."""
    folder.mkdir()
    assert at_once(lambda: work(inputs, folder, False), folder, 1) == (1, [])
    return folder


@pytest.mark.parametrize("work", [build_cache, index])
def test_all_of_them_have_what_one_makes(work: Work, inputs: Path, tmp_path: Path) -> None:
    whole, shared, log = alone(work, inputs, tmp_path / "whole"), tmp_path / "shared", tmp_path / "log"
    shared.mkdir()
    log.mkdir()
    done, told = at_once(lambda: work(inputs, shared, False), log)
    assert done + len(told) == PROCESSES
    assert done == PROCESSES if work is build_cache else done >= 1
    assert differences(state_of(shared), state_of(whole)) == []


def test_eight_that_install_the_same_weights_leave_a_sound_store(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shared, log = alone(install, inputs, tmp_path / "whole"), tmp_path / "shared", tmp_path / "log"
    shared.mkdir()
    log.mkdir()

    def installs_and_reads() -> None:
        install(inputs, shared, False)
        found = local_weights(CONVERTED, catalog=load_catalog())
        assert found is not None
        assert found.path.is_file()

    assert at_once(installs_and_reads, log)[0] == PROCESSES
    assert differences(state_of(shared), state_of(whole)) == []


@pytest.mark.parametrize("work", [pretrain, finetune, pack, embed, convert])
def test_one_out_folder_is_one_process_s(work: Work, inputs: Path, tmp_path: Path) -> None:
    whole, shared, log = alone(work, inputs, tmp_path / "whole"), tmp_path / "shared", tmp_path / "log"
    shared.mkdir()
    log.mkdir()
    done, told = at_once(lambda: work(inputs, shared, False), log)
    assert done >= 1
    assert done + len(told) == PROCESSES
    assert differences(state_of(shared), state_of(whole)) == []
