"""Each image is decoded once and computed once: both are counted, as times depend on the machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from embed_makers import tiny_job
from tiny import MEAN, STD, TinyNet, TinySource
from torch import Tensor, nn

from disco_zoo.data.source_image import SourceImage
from disco_zoo.evaluation.measure import Bench
from disco_zoo.evaluation.subject import Subject
from disco_zoo.evaluation.tasks import ProbeOptions, measure_knn, measure_linear
from disco_zoo.protocols.knn import knn_protocol

TRAIN, TEST = 210, 30  # kNN asks for 200 neighbors


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Images that are decoded, and images that go through a `TinyNet`."""
    counted: Counter[str] = Counter()
    decode, forward = SourceImage._decode, TinyNet.forward

    def counting_decode(image: SourceImage, factor: int) -> Any:
        counted["decoded"] += 1
        return decode(image, factor)

    def counting_forward(network: TinyNet, images: Tensor) -> Tensor:
        counted["computed"] += len(images)
        return forward(network, images)

    monkeypatch.setattr(SourceImage, "_decode", counting_decode)
    monkeypatch.setattr(TinyNet, "forward", counting_forward)
    return counted


def bench() -> Bench:
    return Bench(TinySource(TRAIN), TinySource(TEST), image_size=16, resize_size=18)


def subject(backbone: nn.Module) -> Subject:
    return Subject("tiny", "tiny", backbone, MEAN, STD, bench())


def test_embed_sees_each_image_once(tmp_path: Path, counts: Counter[str]) -> None:
    job = tiny_job(tmp_path / "e.npy", TinySource(11))
    counts.clear()  # making the network computes noise
    assert job.run().num_rows == 11
    assert counts == {"decoded": 11, "computed": 11}


def test_the_knn_of_all_k_sees_each_image_once(counts: Counter[str]) -> None:
    measure_knn(subject(TinyNet()), knn_protocol("default", ks=(), temperature=None))
    assert counts == {"decoded": TRAIN + TEST, "computed": TRAIN + TEST}


def test_the_fast_linear_probe_sees_each_image_once(counts: Counter[str]) -> None:
    measure_linear(subject(TinyNet()), "fast", ProbeOptions())
    assert counts == {"decoded": TRAIN + TEST, "computed": TRAIN + TEST}


def test_knn_and_linear_of_reproduce_share_one_pass(counts: Counter[str]) -> None:
    found = bench().measure(TinyNet(), mean=MEAN, std=STD, label="tiny")
    assert {"knn20_top1", "linear_top1"} <= set(found.figures)
    assert counts == {"decoded": TRAIN + TEST, "computed": TRAIN + TEST}


def test_a_probe_by_sgd_computes_test_images_once_and_training_images_once_an_epoch(counts: Counter[str]) -> None:
    measure_linear(subject(TinyNet()), "disco", ProbeOptions(epochs=3))
    assert counts == {"decoded": 3 * TRAIN + TEST, "computed": 3 * TRAIN + TEST}
