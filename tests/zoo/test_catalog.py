"""The catalog's schema: figures of measurements, and how faults are reported."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from catalog_makers import measured, small_catalog
from scipy import stats

from disco_zoo.errors import BadCatalog
from disco_zoo.zoo.catalog import Catalog, load_catalog
from disco_zoo.zoo.facts import measured_remark
from disco_zoo.zoo.model_card import render_card
from disco_zoo.zoo.schema import T_995, Measured


def faults_of(raw: Any) -> str:
    with pytest.raises(BadCatalog) as caught:
        load_catalog(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return str(caught.value)


def test_t_quantiles_agree_with_scipy() -> None:
    exact = [stats.t.ppf(0.995, degrees) for degrees in range(1, len(T_995) + 1)]
    assert list(T_995) == pytest.approx(exact, abs=6e-4)


def test_allowed_difference_is_the_prediction_interval() -> None:
    figure = Measured(**measured([79.0, 81.0, 83.0]))
    assert (figure.mean, figure.std) == (81.0, 2.0)
    # scipy's quantile times the standard error of (new value - mean of three)
    assert figure.allowed_difference == pytest.approx(stats.t.ppf(0.995, 2) * 2.0 * math.sqrt(4 / 3), rel=1e-4)


def test_allowed_difference_has_a_floor_and_needs_three_seeds() -> None:
    assert Measured(**measured([80.0, 80.0, 80.0])).allowed_difference == 0.5
    assert Measured(**measured([80.0, 81.0])).allowed_difference is None
    assert Measured(**measured([80.0])).allowed_difference is None
    assert Measured(**measured([80.0])).std is None


def test_more_seeds_than_the_table_use_its_last_quantile() -> None:
    values = [80.0 + i % 2 for i in range(40)]
    figure = Measured(**measured(values))
    assert figure.std is not None
    assert figure.allowed_difference == pytest.approx(T_995[-1] * figure.std * math.sqrt(41 / 40))


def test_the_small_catalog_is_valid() -> None:
    catalog = load_catalog(yaml.safe_dump(small_catalog()))
    assert isinstance(catalog, Catalog)
    assert catalog.resolve("a").figure("student", "knn20_top1").mean == 81.0  # type: ignore[union-attr]


def test_all_faults_are_reported_at_once() -> None:
    raw = small_catalog()
    row = raw["checkpoints"]["disco_a.one"]
    row |= {"methud": "disco", "data": "e", "teacher": "u", "summary": 3}
    del row["origin"]
    row["weights"] = {"source": "hub", "sha256": "abc", "revision": "main", "repo": "org/name"}
    row["measured"] = [measured([101.0, 80.0], seeds=[0]), measured([-1.0])]
    raw["checkpoints"]["disco_b.two"] = small_catalog()["checkpoints"]["disco_a.one"]
    raw["architectures"]["disco_a"]["default"] = "three"
    message = faults_of(raw)
    here = "checkpoints.disco_a.one"
    for expected in (
        f"{here}.methud: unknown key. Did you mean 'method'?",
        f"{here}.data: 'e' is not in datasets",
        f"{here}.teacher: 'u' is not in teachers",
        f"{here}.summary: Input should be a valid string, not 3",
        f"{here}.origin: missing",
        f"{here}.weights.file: missing, hub weights need it",
        f"{here}.weights.sha256: String should match pattern",
        f"{here}.weights.revision: String should match pattern",
        f"{here}.measured.0: 2 values but 1 seeds",
        f"{here}.measured.0.values.0: Input should be less than or equal to 100, not 101.0",
        f"{here}.measured.1.values.0: Input should be greater than or equal to 0, not -1.0",
        "checkpoints.disco_b.two: unknown architecture 'disco_b'. Did you mean 'disco_a'?",
        "architectures.disco_a.default: there is no checkpoint disco_a.three",
    ):
        assert expected in message
    assert "has 13 faults" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weights": {"source": "bundled"}}, "weights.file: missing, bundled weights need it"),
        ({"weights": {"source": "bundled", "file": "f"}}, "weights.sha256: missing, bundled weights need it"),
        ({"weights": {"source": "official"}}, "weights.file: missing, official weights need it"),
        (
            {"weights": {"source": "drive"}},
            "weights.source: Input should be 'bundled', 'hub', 'official' or 'none'",
        ),
        ({"recipe": 1}, "recipe: Input should be a valid string, not 1"),
        ({"name": "other"}, "name: unknown key"),
        ({"measured": [measured([float("nan")])]}, "measured.0.values.0: Input should be"),
        ({"measured": [measured([True])]}, "measured.0.values.0: Input should be a valid number"),
        (
            {"measured": [measured([80.0], metric="accuracy")]},
            "measured.0.metric: String should match pattern",
        ),
        ({"variant": "tf_efficientnet_b0"}, "variant_reason: a variant and its reason stand together, or neither"),
        ({"start": "checkpoint"}, "start_from: missing, start is checkpoint"),
        (
            {"start": "random", "start_from": "x"},
            "start_from: stands where start is checkpoint or inherit",
        ),
        ({"weights": {"source": "official", "file": "f", "url": "ftp://x"}}, "weights.url: String should match"),
        ({"weights": {"source": "official", "file": "f", "md5_prefix": "59FD"}}, "weights.md5_prefix: String should"),
    ],
)
def test_faults_of_a_row(change: dict[str, Any], expected: str) -> None:
    raw = small_catalog()
    raw["checkpoints"]["disco_a.one"] |= change
    assert f"checkpoints.disco_a.one.{expected}" in faults_of(raw)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"networc": "resnet50"}, "t.networc: unknown key. Did you mean 'network'?"),
        ({"data": "e"}, "t.data: 'e' is not in datasets"),
        (
            {"weights": {"source": "hub", "repo": "o/r", "revision": "0" * 40, "file": "f", "sha256": "0" * 64}},
            "t.network: missing, weights need the network that they fit",
        ),
        ({"weights": {"source": "official"}}, "t.weights.file: missing, official weights need it"),
        ({"embed_dim": 0}, "t.embed_dim: Input should be greater than 0"),
    ],
)
def test_faults_of_a_teacher(change: dict[str, Any], expected: str) -> None:
    raw = small_catalog()
    raw["teachers"]["t"] |= change
    assert f"teachers.{expected}" in faults_of(raw)


def test_a_teachers_name_must_not_read_as_a_checkpoint() -> None:
    raw = small_catalog()
    raw["teachers"]["t.one"] = raw["teachers"]["t"]
    assert "teachers.t.one: a teacher's name has no dot" in faults_of(raw)


def test_an_architecture_without_a_network_must_not_be_registered() -> None:
    raw = small_catalog()
    raw["architectures"]["disco_a"]["native"] = None
    assert "architectures.disco_a.registered: must be false" in faults_of(raw)
    raw["architectures"]["disco_a"]["registered"] = False
    assert load_catalog(yaml.safe_dump(raw)).architectures["disco_a"].native is None


def test_a_name_written_twice_is_a_fault() -> None:
    text = yaml.safe_dump(small_catalog())
    line = text.splitlines().index("  disco_a.one:") + 1
    twice = text.replace("  disco_a.one:", "  disco_a.one: {}\n  disco_a.one:")
    assert f"key 'disco_a.one' appears twice (line {line + 1})" in faults_of(twice)


def test_a_date_that_there_is_not_is_a_fault() -> None:
    raw = small_catalog()
    raw["checkpoints"]["disco_a.one"]["measured"] = [measured([80.0]) | {"date": "2025-02-30"}]
    assert "checkpoints.disco_a.one.measured.0.date: " in faults_of(raw)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "checkpoints: 3", "datasets: {d: 3}", "just words"])
def test_nonsense_is_a_bad_catalog(text: str) -> None:
    faults_of(text)


def without_labels(**changes: Any) -> dict[str, Any]:
    """A catalog whose checkpoint is trained on images without labels, and measured on `d`."""
    raw = small_catalog()
    bare = {"num_test": None, "num_classes": None, "hub_id": None, "title": "Bare", "measured_on": "d"}
    raw["datasets"]["bare"] = raw["datasets"]["d"] | bare | changes
    raw["checkpoints"]["disco_a.one"]["data"] = "bare"
    return raw


def test_what_is_trained_without_labels_is_measured_on_other_data() -> None:
    catalog = load_catalog(yaml.safe_dump(without_labels()))
    row = catalog.checkpoints["disco_a.one"]
    assert catalog.measured_on(row).name == "d"
    assert "the 1 test images of D" in measured_remark(row, catalog)
    front = yaml.safe_load(render_card(row, catalog).split("---")[1])
    assert "datasets" not in front
    assert front["model-index"][0]["results"][0]["dataset"] == {"type": "h", "name": "D", "split": "test"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"measured_on": "e"}, "measured_on: 'e' is not in datasets"),
        ({"measured_on": "bare"}, "measured_on: bare has no test images"),
        ({"measured_on": None}, "measured_on: missing, without test images"),
    ],
)
def test_faults_of_a_data_set(changes: dict[str, Any], expected: str) -> None:
    assert f"datasets.bare.{expected}" in faults_of(without_labels(**changes))
