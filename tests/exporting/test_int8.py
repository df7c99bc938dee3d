"""int8 files: smaller, still close, and what they cost is measured and not guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from embed_makers import tiny_named
from slow_params import slow_but
from tiny import TinySource, make_run_folder
from tiny_runs import toy_parquet

from disco_zoo.cli import main
from disco_zoo.data.image_list import open_images
from disco_zoo.errors import BadData, CannotExport
from disco_zoo.evaluation.features import extract_features
from disco_zoo.evaluation.knn import knn_top1
from disco_zoo.exporting import job
from disco_zoo.exporting.job import Int8Plan, export_subject, plan_int8
from disco_zoo.exporting.latency import as_markdown, latency_rows, paired_timings
from disco_zoo.exporting.loss import int8_loss, some_of
from disco_zoo.exporting.onnx_file import (
    FileNetwork,
    calibration_batches,
    calibration_size,
    metadata,
    write_int8,
    write_onnx,
)
from disco_zoo.exporting.subject import subject_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def subject():
    return subject_of(tiny_named())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The tiny network's files, of which each takes seconds to write, by whether they normalise inside."""
    folder = tmp_path_factory.mktemp("files")
    for inside in (False, True):
        write_onnx(subject_of(tiny_named(), normalise_inside=inside), folder / f"{inside}.onnx", 1e-4)
    return {inside: folder / f"{inside}.onnx" for inside in (False, True)}


@pytest.mark.parametrize(
    ("kind", "inside"),
    slow_but([("dynamic", True), ("static", False), ("static", True)], [("dynamic", True), ("static", False)]),
)
def test_int8_is_close_and_keeps_the_facts(tmp_path, files, kind, inside):
    subject = subject_of(tiny_named(), normalise_inside=inside)
    source = TinySource(40)
    batches = calibration_batches(subject, source, range(16))
    write_int8(subject, files[inside], tmp_path / "s.onnx", kind, batches)
    assert metadata(tmp_path / "s.onnx")["weights_sha256"] == metadata(files[inside])["weights_sha256"]
    found = int8_loss(subject, tmp_path / "s.onnx", source, range(16, 40))
    assert 0.99 < found.lowest_cosine <= found.mean_cosine < 1
    assert (found.top1, found.num_test) == (None, 24)


def test_the_loss_is_the_difference_of_two_knn(tmp_path, files):
    subject = subject_of(tiny_named(), normalise_inside=True)
    write_int8(subject, files[True], tmp_path / "s.onnx", "dynamic")
    train, test = TinySource(30), TinySource(21)
    found = int8_loss(subject, tmp_path / "s.onnx", test, range(21), train, range(30), k=3)
    expected = []
    for network, mean, std in (
        (subject.named.backbone, subject.named.mean, subject.named.std),
        (FileNetwork(tmp_path / "s.onnx", takes_pixels=True), (0,) * 3, (1,) * 3),
    ):
        one, other = (
            extract_features(network, source, image_size=16, resize_size=18, mean=mean, std=std)
            for source in (train, test)
        )
        expected.append(knn_top1(one.features, one.labels, other.features, other.labels, ks=(3,))[3])
    assert found.top1 == tuple(expected)
    assert (found.num_train, found.num_test, found.k) == (30, 21, 3)


def test_a_file_that_is_the_network_loses_nothing(files, subject):
    found = int8_loss(subject, files[False], TinySource(20), range(20), TinySource(30), range(30), k=3)
    assert found.lowest_cosine == pytest.approx(1, abs=1e-6)
    assert found.top1[0] == found.top1[1]


def test_wrong_weights_are_seen_in_the_figures(files):
    other = subject_of(tiny_named(5))
    assert int8_loss(other, files[False], TinySource(20), range(20)).mean_cosine < 0.98


def test_a_graph_without_data_to_calibrate_is_one_line(tmp_path, files, subject):
    with pytest.raises(CannotExport, match="cannot become int8") as caught:
        write_int8(subject, files[False], tmp_path / "s.onnx", "static", iter(()))
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []
    assert sorted(path.name for path in files[False].parent.iterdir()) == ["False.onnx", "True.onnx"]


def test_activations_without_a_spread_have_a_way_out(tmp_path, subject):
    with torch.no_grad():  # all of them within a few steps of float32
        subject.network.bn.weight.mul_(1e-6)
        subject.network.bn.bias.fill_(1)
    write_onnx(subject, tmp_path / "m.onnx", 1e-4)

    def calibration():
        return calibration_batches(subject, TinySource(40), range(16))

    with pytest.raises(CannotExport, match="--ranges minmax"):
        write_int8(subject, tmp_path / "m.onnx", tmp_path / "s.onnx", "static", calibration())
    write_int8(subject, tmp_path / "m.onnx", tmp_path / "s.onnx", "static", calibration(), "minmax")
    assert int8_loss(subject, tmp_path / "s.onnx", TinySource(20), range(20)).mean_cosine > 0.999


@pytest.mark.parametrize(("number", "sizes"), [(5, [5]), (16, [16]), (26, [16, 10]), (33, [16, 16, 1])])
def test_calibration_batches_hold_all_images(subject, number, sizes):
    batches = list(calibration_batches(subject, TinySource(40, unreadable=(1,)), range(number)))
    assert [len(batch) for batch in batches] == sizes
    torch.testing.assert_close(batches[0][1], batches[0][2])  # the unreadable one is replaced by the next


@pytest.mark.parametrize(
    ("engine", "kind", "used", "said"),
    [("onnx", "static", 16, 16), ("openvino", "static", 31, 31), ("onnx", "dynamic", None, None)],
)
def test_the_number_of_calibration_images_is_the_one_that_is_used(
    engine, kind, used, said, subject, tmp_path, monkeypatch, capsys
):
    """ONNX Runtime's histograms want batches of one size; NNCF takes images one by one."""
    seen = []

    def count(subject, full, path, *arguments):
        batches = next((one for one in arguments if isinstance(one, Iterator)), None)
        seen.append(None if batches is None else sum(map(len, batches)))

    for name in ("write_int8", "write_openvino_int8"):
        monkeypatch.setattr(job, name, count)
    for name in ("_write", "_bytes_of", "int8_loss"):
        monkeypatch.setattr(job, name, lambda *arguments, **settings: None)
    source = TinySource(31)
    plan = Int8Plan(kind, "minmax", source, [*range(31)], source, [*range(31)], None, [])
    export_subject(subject, engine, tmp_path / "m.onnx", int8=plan)
    assert seen == [used]
    told = capsys.readouterr().err
    assert f"calibrating with {said} images" in told if said else "calibrating" not in told


def test_classes_that_knn_would_compare_by_number_must_agree(subject, tmp_path):
    train, test = TinySource(30), TinySource(30)
    test.set_labels([index % 2 for index in range(30)], ["plane", "ship"])
    plan = Int8Plan("static", "minmax", train, [*range(30)], test, [*range(30)], train, [*range(30)])
    with pytest.raises(BadData, match="differ: a, b, c, plane, ship"):
        export_subject(subject, "onnx", tmp_path / "m.onnx", int8=plan)
    assert [*tmp_path.iterdir()] == []


def test_images_are_chosen_once_and_apart_from_the_calibration():
    source = TinySource(50)
    calibration = some_of(source, 20)
    assert calibration == some_of(source, 20)
    assert not set(some_of(source, 30, calibration)) & set(calibration)
    assert some_of(source, 5, range(50)) == some_of(source, 5)


def test_large_inputs_are_calibrated_with_fewer_images_for_the_memory():
    assert [calibration_size(side) for side in (32, 96, 192, 224, 448)] == [256, 256, 64, 47, 32]


def test_what_is_measured_follows_from_the_data(tmp_path):
    data = toy_parquet(tmp_path)
    labelled = plan_int8("static", data=str(data), eval_data=None, calibration=None, max_images=10)
    assert (len(labelled.train_indices), len(labelled.test_indices)) == (10, 10)
    assert (labelled.train.split, labelled.test.split) == ("train", "test")
    alone = plan_int8("static", data=None, eval_data=None, calibration=str(data), max_images=10)
    assert (alone.train, len(alone.test)) == (None, len(open_images([str(data)])))


def test_the_command_measures_and_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run_folder(tmp_path / "model")
    data = toy_parquet(tmp_path / "data")
    settings = ("--int8", "static", "--data", str(data), "--workers", "0", "--json")
    assert main(["export", "model", "--out", "m.onnx", *settings]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest_difference"] < 1e-4
    small = found["int8"]
    assert small["bytes"] < 0.3 * found["bytes"]
    assert small["bytes"] == Path("m.int8.onnx").stat().st_size
    assert small["mean_cosine"] > 0.99
    assert (small["num_train"], small["num_test"]) == (26, 12)
    assert main(["export", "model", "--out", "m.onnx", *settings]) == 2


class Clock:
    """Time that passes only where a variant says so."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def spend(self, name: str, seconds):
        def call() -> None:
            self.calls.append(name)
            self.now += next(seconds)

        return call


def test_pairs_cancel_what_slows_the_whole_machine():
    clock = Clock()
    load = [1.0] * 3 + [1.0, 9.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0]  # a round under load slows all three
    spends = {
        name: clock.spend(name, iter([factor * slow for slow in load]))
        for name, factor in (("a", 0.010), ("b", 0.005), ("c", 0.002))
    }
    found = paired_timings(spends, 8, lambda: clock.now)
    assert found["a"].median_ms == pytest.approx(10)
    assert (found["a"].speed_up, found["b"].speed_up, found["c"].speed_up) == pytest.approx((1, 2, 5))
    assert found["b"].low_ms == pytest.approx(5)
    assert clock.calls[:9] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_the_table_of_a_network():
    threads = torch.get_num_threads()
    (row,) = latency_rows(iter([subject_of(tiny_named())]), 1, 4, 1)
    assert row.num_parameters == 3 * 8 * 9 + 16
    assert min(row.torch.median_ms, row.onnx.median_ms, row.int8.median_ms) > 0
    assert row.torch.speed_up == 1
    assert torch.get_num_threads() == threads
    table = as_markdown([row], "note").splitlines()
    assert table[2].startswith("| tiny | 0.0 |")
    assert {line.count("|") for line in table[:3]} == {10}


def test_ctrl_c_leaves_the_rows_of_the_table_that_are_done(monkeypatch, capsys):
    from disco_zoo.exporting import latency

    real = latency._row

    def once(subject, rounds, threads):
        monkeypatch.setattr(latency, "_row", interrupted)
        return real(subject_of(tiny_named()), rounds, threads)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "_row", once)
    assert main(["export", "--table", "test_resnet", "test_vit", "--rounds", "4", "--image-size", "64"]) == 130
    printed = capsys.readouterr()
    assert "| tiny |" in printed.out
    assert "1 of 2 networks are measured" in printed.err
