"""Training on some of the images."""

from __future__ import annotations

import pickle

import numpy as np

from disco_zoo.config.recipe import load_recipe
from disco_zoo.data.open_source import open_source
from disco_zoo.data.subsets import SubsetSource, random_subset
from disco_zoo.training.run_data import open_data


def test_images_labels_and_paths_are_those_of_the_source() -> None:
    source = open_source("sample", "test")
    subset = pickle.loads(pickle.dumps(SubsetSource(source, [7, 3, 100])))
    assert len(subset) == 3
    assert source.labels is not None
    assert subset.labels == [source.labels[index] for index in (7, 3, 100)]
    assert subset.class_names == source.class_names
    assert subset.path(1) == source.path(3)
    assert np.array_equal(np.asarray(subset.image(2)), np.asarray(source.image(100)))


def test_the_choice_is_one_for_all_seeds_and_its_fingerprint_is_its_own() -> None:
    source = open_source("sample", "train")
    chosen = random_subset(source, 1000)
    assert isinstance(chosen, SubsetSource)
    assert len(chosen) == 1000
    assert (np.diff(chosen.indices) > 0).all()  # each once, in order
    assert chosen.fingerprint() == random_subset(source, 1000).fingerprint()
    others = {source.fingerprint(), random_subset(source, 999).fingerprint(), SubsetSource(source, [1]).fingerprint()}
    assert chosen.fingerprint() not in others
    assert chosen.labels is not None
    assert len(set(chosen.labels)) == 10  # not the first thousand of a file sorted by class


def test_nothing_is_chosen_where_all_fit() -> None:
    source = open_source("sample", "test")
    assert random_subset(source, None) is source
    assert random_subset(source, len(source)) is source


def test_the_recipe_limits_training_images_only() -> None:
    recipe = load_recipe("pocket/disco_r18.mocov2_fmnist", ["data.max_images=300"])
    data = open_data(recipe)
    assert len(data.train) == 300
    assert data.test is not None
    assert len(data.test) == len(open_source("sample", "test"))
