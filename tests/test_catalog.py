"""The catalog: what the package ships, how names resolve, and how faults are reported."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from disco_zoo.catalog import CATALOG_PATH, T_995, Catalog, Measured, list_models, load_catalog
from disco_zoo.errors import BadCatalog, UnknownName

# Spec, section 8: figures that were read in a source (bold or marked [V]) and belong to a released file.
VERIFIED = {
    ("disco_r18.disco_mocov2_r50_in1k", "linear_top1"): 60.6,
    ("disco_r18.disco_mocov2_r50_in1k", "linear_top5"): 83.7,
    ("disco_r34.disco_mocov2_r50_in1k", "linear_top1"): 62.5,
    ("disco_r34.disco_mocov2_r50_in1k", "linear_top5"): 85.4,
    ("disco_r18.disco_mocov2_r152_in1k", "linear_top1"): 65.5,
    ("disco_r18.disco_mocov2_r152_in1k", "linear_top5"): 86.7,
    ("disco_r34.disco_mocov2_r152_in1k", "linear_top1"): 68.1,
    ("disco_r34.disco_mocov2_r152_in1k", "linear_top5"): 88.6,
    ("disco_effb0.disco_swav_r50w2_in1k", "linear_top1"): 69.1,
    ("disco_mobv3.disco_swav_r50w2_in1k", "linear_top1"): 58.9,
    ("disco_r18.disco_swav_r50w2_in1k", "linear_top1"): 65.2,
    ("disco_r18.disco_swav_r50w2_in1k", "linear_top5"): 86.8,
    ("disco_r34.disco_swav_r50w2_in1k", "linear_top1"): 67.6,
    ("disco_r34.disco_swav_r50w2_in1k", "linear_top5"): 88.6,
    ("disco_r18.seed_mocov2_r50_in1k", "linear_top1"): 57.6,
    ("disco_r18.seed_mocov2_r50_in1k", "linear_top5"): 81.8,
    ("disco_mobv3.seed_mocov2_r50_in1k", "linear_top1"): 55.2,
    ("disco_effb0.seed_swav_r50w2_in1k", "linear_top1"): 67.6,
    ("disco_r50.seed_swav_r50w4_in1k", "linear_top1"): 74.3,
}


def measured(values: list[float], **changes: Any) -> dict[str, Any]:
    return {
        "subject": "student",
        "metric": "knn20_top1",
        "values": values,
        "seeds": list(range(len(values))),
        "protocol": "weighted kNN",
        "command": "disco-zoo reproduce effb0",
        "hardware": "2 cores",
        "date": datetime.date(2026, 1, 2),
    } | changes


def small_catalog() -> dict[str, Any]:
    """One valid row of everything."""
    licence = {"code": "Apache-2.0", "weights": "Apache-2.0", "teacher": "unknown", "data": "MIT"}
    row = {
        "method": "disco",
        "teacher": "t",
        "data": "d",
        "recipe": None,
        "summary": "A row",
        "licence": licence,
        "origin": "here",
        "input": {
            "size": 64,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
        },
        "weights": {"source": "none"},
        "measured": [measured([80.0, 81.0, 82.0])],
    }
    dataset = {
        "title": "D",
        "licence": "MIT",
        "num_train": 1,
        "num_test": 1,
        "num_classes": 1,
        "class_names": None,
    }
    architecture = {
        "short": "a",
        "native": "resnet18",
        "paper_name": "A",
        "feature_dim": 512,
        "default": "one",
    }
    return {
        "datasets": {"d": dataset | {"image_size": None, "url": "u", "hub_id": "h"}},
        "teachers": {"t": {"title": "T", "supervision": "unknown"}},
        "architectures": {"disco_a": architecture | {"params_millions": 1.0}},
        "checkpoints": {"disco_a.one": row},
    }


def faults_of(raw: Any) -> str:
    with pytest.raises(BadCatalog) as caught:
        load_catalog(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return str(caught.value)


def test_packaged_catalog_has_every_official_row() -> None:
    rows = load_catalog().checkpoints.values()
    official = [row for row in rows if row.weights.source == "official"]
    assert sum(row.method == "disco" for row in official) == 22
    assert sum(row.method == "seed" for row in official) == 8
    # The one file that two rows name is SEED's wrong link, and its row says so.
    files = [row.weights.file for row in official]
    assert {file for file in files if files.count(file) > 1} == {
        "resnet18_distill_resnet50-moco-v2-checkpoint_0199.pth.tar"
    }
    assert "broken" in (load_catalog().checkpoints["disco_effb1.seed_swav_r50_in1k"].note or "")


def test_verified_figures_are_exactly_those_of_the_spec() -> None:
    rows = load_catalog().checkpoints.values()
    verified = {(row.name, r.metric): r.value for row in rows for r in row.reported if r.verified}
    assert verified == VERIFIED


def test_seed_efficientnets_and_mobilenets_name_their_variant() -> None:
    seed = [row for row in load_catalog().checkpoints.values() if row.method == "seed"]
    needing = {row.name for row in seed if row.architecture in ("disco_effb0", "disco_effb1", "disco_mobv3")}
    assert needing == {row.name for row in seed if row.variant}
    assert len(needing) == 5


def test_every_recipe_of_the_catalog_exists() -> None:
    folder = Path(__file__).parents[1] / "recipes"
    recipes = [row.recipe for row in load_catalog().checkpoints.values() if row.recipe]
    assert recipes
    assert [recipe for recipe in recipes if not (folder / f"{recipe}.yaml").is_file()] == []


def test_inputs_are_those_of_the_recipes() -> None:
    """A model must see the images as its recipe trained and measured it."""
    folder = Path(__file__).parents[1] / "recipes"
    for row in load_catalog().checkpoints.values():
        if row.recipe and (folder / f"{row.recipe}.yaml").is_file():
            recipe = yaml.safe_load((folder / f"{row.recipe}.yaml").read_text(encoding="utf-8"))
            student, size = recipe["student"], recipe["student"]["image_size"]
            resize = (recipe.get("eval") or {}).get("resize_size") or round(size * 256 / 224)
            assert row.input.size == size, row.name
            assert row.input.mean == student.get("mean", [0.485, 0.456, 0.406]), row.name
            assert row.input.std == student.get("std", [0.229, 0.224, 0.225]), row.name
            assert math.floor(size / row.input.crop_pct) == resize, row.name  # timm's resize


def test_load_catalog_is_cached_and_reads_a_path() -> None:
    assert load_catalog() is load_catalog()
    assert load_catalog(CATALOG_PATH) == load_catalog()


@pytest.mark.parametrize("name", ["effb0", "disco_effb0", "effb0.disco_lite0_cifar10"])
def test_resolve_short_and_full_names(name: str) -> None:
    assert load_catalog().resolve(name).name == "disco_effb0.disco_lite0_cifar10"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("efb0", "effb0"),
        ("disco_efb0", "disco_effb0"),
        ("disco_r18.disco_mocov2_r5_in1k", "disco_r18.disco_mocov2_r50_in1k"),
    ],
)
def test_resolve_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(UnknownName, match=f"'{name}'.*Did you mean '{meant}'") as caught:
        load_catalog().resolve(name)
    assert "\n" not in str(caught.value)


def test_list_models_takes_parts_and_wildcards() -> None:
    assert all("effb1" in name for name in list_models("effb1"))
    assert list_models("disco_r34.*r50_in1k") == ["disco_r34.disco_mocov2_r50_in1k"]
    assert list_models() == list(load_catalog().checkpoints)
    with pytest.raises(UnknownName):
        list_models("nothing_like_it")


def test_reproduce_command_asks_for_data_beyond_the_pocket() -> None:
    rows = load_catalog().checkpoints
    pocket, cifar = rows["disco_effb0.disco_lite0_fmnist"], rows["disco_effb0.disco_lite0_cifar10"]
    assert pocket.reproduce_command == "disco-zoo reproduce disco_effb0.disco_lite0_fmnist"
    assert cifar.reproduce_command == "disco-zoo reproduce disco_effb0.disco_lite0_cifar10 --data DATA"
    assert rows["disco_r34.disco_mocov2_r50_in1k"].reproduce_command is None


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
    assert "has 13 fault(s)" in message


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
        (
            {
                "variant": "tf_efficientnet_b0",
                "weights": {"source": "bundled", "file": "f", "sha256": "0" * 64},
            },
            "variant: weights of the variant tf_efficientnet_b0 cannot be loaded as disco_a",
        ),
    ],
)
def test_faults_of_a_row(change: dict[str, Any], expected: str) -> None:
    raw = small_catalog()
    raw["checkpoints"]["disco_a.one"] |= change
    assert f"checkpoints.disco_a.one.{expected}" in faults_of(raw)


def test_a_name_written_twice_is_a_fault() -> None:
    text = yaml.safe_dump(small_catalog())
    line = text.splitlines().index("  disco_a.one:") + 1
    twice = text.replace("  disco_a.one:", "  disco_a.one: {}\n  disco_a.one:")
    assert f"checkpoints.disco_a.one: written twice, on lines {line} and {line + 1}" in faults_of(twice)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "checkpoints: 3", "datasets: {d: 3}", "just words"])
def test_nonsense_is_a_bad_catalog(text: str) -> None:
    faults_of(text)
