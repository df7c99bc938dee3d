"""Several processes and one cache: one download, and nothing trusted that a killed one left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_faults import corrupt, pace, silent, stall
from hub_files import FILE, NAME, REPO, Published, catalog_with, publish
from hub_server import TestHub

pytest_plugins = ("hub_fixtures",)

PROCESSES = 8
# As the console script does, this loads no torch.
FETCH = """
import sys
sys.argv[0] = "disco-zoo"
from disco_zoo.core.files import sha256_of
from disco_zoo.weights.hub import fetch_from_hub
print("ready", flush=True)
sys.stdin.readline()
name, repo, revision, file, sha256 = sys.argv[1:]
print(sha256_of(fetch_from_hub(name, repo=repo, revision=revision, file=file, sha256=sha256)))
"""
LOAD = """
import sys, timm, disco_zoo
print("ready", flush=True)
sys.stdin.readline()
model = timm.create_model(sys.argv[1], pretrained=True)
print(float(model.conv1.weight.detach().double().sum()))
"""


def start(code: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetchers(count: int, published: Published, environment: dict[str, str]) -> list[subprocess.Popen[str]]:
    """Processes that fetch the file once they are told to; all have done their imports."""
    arguments = (NAME, REPO, published.revision, FILE, published.sha256)
    processes = [start(FETCH, environment, *arguments) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return processes


def outcomes(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Let all go at once; exit codes, output and errors."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, out.strip(), err) for process, (out, err) in zip(processes, ends, strict=True)]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.01)


def test_eight_processes_make_one_download(hub: TestHub, hub_environment: dict[str, str]) -> None:
    published = publish(hub, size=1_000_000)
    hub.fail(pace(0.03), method="GET")  # about half a second: all are there before it ends
    ended = outcomes(fetchers(PROCESSES, published, hub_environment))
    assert [out for _, out, _ in ended] == [published.sha256] * PROCESSES, ended
    assert hub.count("GET") == 1


@pytest.mark.slow
def test_eight_processes_heal_a_damaged_cache_by_one_download(hub: TestHub, hub_environment: dict[str, str]) -> None:
    published = publish(hub, size=1_000_000)
    published.fetch()
    published.flip_a_cached_bit()
    hub.requests.clear()
    hub.fail(pace(0.03), method="GET")
    ended = outcomes(fetchers(PROCESSES, published, hub_environment))
    assert [out for _, out, _ in ended] == [published.sha256] * PROCESSES, ended
    assert hub.count("GET") == 1


def test_a_process_killed_in_mid_download_leaves_nothing_that_is_trusted(
    hub: TestHub, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    published = publish(hub, size=12_000_000)
    hub.fail(stall(at=11_000_000), method="GET", times=1)
    (process,) = fetchers(1, published, hub_environment)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()

    def a_part_is_written() -> bool:
        return any(path.stat().st_size for path in (tmp_path / "hub").rglob("*.incomplete"))

    wait_for(a_part_is_written)
    process.kill()
    process.communicate()
    assert a_part_is_written(), "what was killed left its part behind"
    assert published.cached() is None
    assert published.fetch().read_bytes() == published.data


def test_a_process_killed_while_it_holds_the_lock_does_not_block_the_next(
    hub: TestHub, hub_environment: dict[str, str]
) -> None:
    published = publish(hub)
    hub.fail(silent(), method="GET", times=1)
    first, second = fetchers(2, published, hub_environment)
    for process in (first, second):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for(lambda: hub.count("GET") == 1)  # the first one is in its download
    assert second.stderr is not None
    assert NAME in second.stderr.readline()  # it has waited for two seconds, and says so
    assert hub.count("GET") == 1, "it did not wait for the first"
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert out.strip() == published.sha256, err
    assert hub.count("GET") == 2


@pytest.mark.slow
def test_eight_models_in_timm_from_one_download(hub: TestHub, hub_environment: dict[str, str], tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save

    name = "disco_r18.disco_lite0_cifar10"
    model = timm.create_model("resnet18", num_classes=0)
    data = save(model.state_dict())
    published = Published(data, hub.store.add_repo(REPO, {FILE: data}))
    environment = {**hub_environment, "DISCO_ZOO_CATALOG": str(catalog_with(published, name, tmp_path / "c.yaml"))}
    hub.fail(corrupt(at=-1000), method="GET", times=1)  # the first copy is bad, besides
    processes = [start(LOAD, environment, name) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = outcomes(processes)
    expected = repr(float(model.conv1.weight.detach().double().sum()))
    assert [out for _, out, _ in ended] == [expected] * PROCESSES, ended
    assert hub.count("GET") == 2
