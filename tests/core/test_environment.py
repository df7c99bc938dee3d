"""What a record says of the machine: the devices that computed, not all there are."""

from __future__ import annotations

import pytest
import torch

from disco_zoo.core.environment import hardware, hardware_line, hardware_text


@pytest.fixture(autouse=True)
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")


def test_a_run_on_the_cpu_names_no_gpu_beside_it() -> None:
    assert hardware("cpu")["accelerators"] == []
    assert hardware_line("cpu") == hardware_text(hardware(torch.device("cpu")))
    assert " CPU cores (" in hardware_line("cpu")


def test_each_process_has_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware_line("cuda") == "1 × NVIDIA H200"
    monkeypatch.setattr("disco_zoo.core.distributed.num_processes", lambda: 2)
    assert hardware_line(torch.device("cuda", 1)) == "2 × NVIDIA H200"


def test_another_accelerator_is_named_by_its_kind() -> None:
    assert hardware("mps")["accelerators"] == ["MPS"]


def test_without_a_device_all_are_named() -> None:
    assert hardware_line() == "8 × NVIDIA H200"
