"""The catalog that the package ships: rows, figures, links, networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from disco_zoo.config.recipe import load_recipe
from disco_zoo.errors import UnknownName
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.papers import METHOD_PAPERS, PAPERS

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
    ("disco_r18.compress_mocov2_r50_in1k", "linear_top1"): 61.7,
    ("disco_r18.compress_mocov2_r50_in1k", "knn1_top1"): 53.4,
    ("disco_r18.compress_swav_r50_in1k", "linear_top1"): 65.6,
    ("disco_r18.compress_swav_r50_in1k", "knn1_top1"): 56.0,
    ("disco_mobv2.compress_mocov2_r50_in1k", "linear_top1"): 63.0,
    ("disco_mobv2.compress_mocov2_r50_in1k", "knn1_top1"): 54.4,
    ("disco_r50.compress_simclr_r50x4_in1k", "linear_top1"): 71.6,
    ("disco_r50.compress_simclr_r50x4_in1k", "knn1_top1"): 63.4,
    # of CompRess's readme alone
    ("disco_alexnet.compress_simclr_r50x4_in1k", "linear_top1"): 57.6,
    ("disco_alexnet.compress_simclr_r50x4_in1k", "knn1_top1"): 52.3,
}
# All figures of teachers: value, and whether spec section 8 marks it as read.
TEACHERS = {
    ("mocov2_r50", "linear_top1"): (67.7, True),
    ("mocov2_r50_disco", "linear_top1"): (67.4, True),
    ("mocov2_r50_800ep", "linear_top1"): (71.1, True),
    ("mocov2_r50_800ep", "knn1_top1"): (57.3, True),
    ("mocov2_r101", "linear_top1"): (69.1, False),
    ("mocov2_r152", "linear_top1"): (74.1, True),
    ("swav_r50", "linear_top1"): (75.3, True),
    ("swav_r50", "knn1_top1"): (60.7, True),
    ("swav_r50w2", "linear_top1"): (77.3, True),
    ("swav_r50w4", "linear_top1"): (77.9, True),
    ("swav_r50w5", "linear_top1"): (78.5, True),
    ("simclr_r50x4", "linear_top1"): (75.6, True),
    ("simclr_r50x4", "knn1_top1"): (64.5, True),
}


def test_packaged_catalog_has_every_official_row() -> None:
    catalog = load_catalog()
    official = [row for row in catalog.checkpoints.values() if row.weights.source == "official"]
    methods = [row.method for row in official]
    assert {method: methods.count(method) for method in methods} == {"disco": 22, "seed": 8, "compress": 5}
    # The one file that two rows name is SEED's wrong link, and its row says so.
    files = [row.weights.file for row in official]
    assert {file for file in files if files.count(file) > 1} == {
        "resnet18_distill_resnet50-moco-v2-checkpoint_0199.pth.tar"
    }
    broken = [row for row in catalog.entries if row.weights.broken]
    assert [row.name for row in broken] == ["disco_effb1.seed_swav_r50_in1k"]
    assert "broken upstream" in (broken[0].note or "")
    assert not broken[0].weights.downloadable
    assert "doubtful" in (catalog.checkpoints["disco_effb1.seed_swav_r152_in1k"].note or "")


def test_every_official_file_has_a_link_of_its_own_and_where_it_was_read() -> None:
    official = [row.weights for row in load_catalog().entries if row.weights.source == "official"]
    links = [link for weights in official for link in (weights.url, *weights.other_urls)]
    assert len(links) == len(set(links)) > 45
    assert all(weights.url and weights.url_note for weights in official)
    signed = [weights for weights in official if "sig=" in (weights.url or "")]
    assert len(signed) == 9  # SEED's students and its SimCLR
    assert all("2031-11-04" in (weights.url_note or "") for weights in signed)


def test_mocos_files_carry_the_md5_that_their_authors_state() -> None:
    teachers = load_catalog().teachers.values()
    stated = {teacher.name: teacher.weights.md5_prefix for teacher in teachers if teacher.weights.md5_prefix}
    assert stated == {"mocov2_r50": "59fd9945", "mocov2_r50_800ep": "a04e12f8"}


def test_networks_of_all_rows_exist() -> None:
    import timm

    import disco_zoo.networks.variants  # noqa: F401  registers the variants

    catalog = load_catalog()
    without = {"disco_alexnet.compress_simclr_r50x4_in1k", "swav_r152", "simclr_r50x4", "vits", "xcits"}
    for row in catalog.entries:
        if row.name in without:
            with pytest.raises(UnknownName, match=f"{row.name} has no network in timm"):
                catalog.network_of(row)
        else:
            assert timm.is_model(catalog.network_of(row)), row.name


def test_every_paper_is_known() -> None:
    catalog = load_catalog()
    assert {row.paper for row in [*catalog.teachers.values(), *catalog.datasets.values()] if row.paper} <= set(PAPERS)
    papers = {METHOD_PAPERS.get(row.method, row.method) for row in catalog.checkpoints.values()}
    assert papers - {None} <= set(PAPERS)  # feature distillation has no paper of its own
    for paper in PAPERS.values():
        assert paper.bibtex.count("{") == paper.bibtex.count("}")
        assert paper.url in paper.bibtex


def test_verified_figures_are_exactly_those_of_the_spec() -> None:
    rows = load_catalog().checkpoints.values()
    verified = {(row.name, r.metric): r.value for row in rows for r in row.reported if r.verified}
    assert verified == VERIFIED


def test_figures_of_teachers_are_those_of_the_spec() -> None:
    teachers = load_catalog().teachers.values()
    assert {(t.name, r.metric): (r.value, r.verified) for t in teachers for r in t.reported} == TEACHERS


def test_seed_efficientnets_and_mobilenets_name_their_variant() -> None:
    """Spec, section 7: in the network of the same keys these weights compute something else."""
    variants = {"disco_effb0": "disco_effb0_pad224", "disco_effb1": "disco_effb1_pad2"}
    variants["disco_mobv3"] = "disco_mobv3_se_first"
    catalog = load_catalog()
    seed = [row for row in catalog.checkpoints.values() if row.method == "seed"]
    assert {row.name: row.variant for row in seed} == {row.name: variants.get(row.architecture) for row in seed}
    assert sum(row.variant is not None for row in seed) == 5
    for row in seed:
        assert catalog.network_of(row) == (row.variant or catalog.architectures[row.architecture].native)


def test_every_recipe_of_the_catalog_exists() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    recipes = [row.recipe for row in load_catalog().checkpoints.values() if row.recipe]
    assert recipes
    assert [recipe for recipe in recipes if not (folder / f"{recipe}.yaml").is_file()] == []


def test_inputs_are_those_of_the_recipes() -> None:
    """A model must see the images as its recipe trained and measured it."""
    for row in load_catalog().checkpoints.values():
        if row.recipe:
            recipe = load_recipe(row.recipe)
            student, size = recipe.student, recipe.eval_size
            resize = recipe.eval.resize_size or round(size * 256 / 224)
            assert row.input.size == size, row.name
            assert tuple(row.input.mean) == student.mean, row.name
            assert tuple(row.input.std) == student.std, row.name
            assert math.floor(size / row.input.crop_pct) == resize, row.name  # timm's resize


def test_reproduce_command_asks_for_data_beyond_the_pocket() -> None:
    rows = load_catalog().checkpoints
    pocket, cifar = rows["disco_effb0.disco_lite0_fmnist"], rows["disco_effb0.disco_lite0_cifar10"]
    assert pocket.reproduce_command == "disco-zoo reproduce disco_effb0.disco_lite0_fmnist"
    assert cifar.reproduce_command == "disco-zoo reproduce disco_effb0.disco_lite0_cifar10 --data DATA"
    assert rows["disco_r50.seed_swav_r50w4_in1k"].reproduce_command is None
