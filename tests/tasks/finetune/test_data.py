"""What a fine-tuning trains on: classes, splits, batches and mixtures, each against a plain count."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinySource

from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadData, BadRecipe, DiscoZooError
from disco_zoo.evaluation.probes.batches import LabeledViews
from disco_zoo.tasks.finetune.batches import StepBatches, mixed, training_loader, training_view
from disco_zoo.tasks.finetune.classes import (
    balanced_weights,
    class_names_of,
    few_per_class,
    hold_out,
    require_enough,
    require_same_labels,
)
from disco_zoo.tasks.finetune.settings import FinetuneSettings, read_settings


class Listed(ImageSource):
    """Grey images whose labels are listed."""

    def __init__(self, labels: list[int] | None, names: list[str] | None = None, split: str = "train") -> None:
        super().__init__("listed", split, labels, names)
        self.number = len(labels or [0, 0])

    def __len__(self) -> int:
        return self.number

    def encoded(self, index: int) -> Image.Image:
        return Image.fromarray(np.full((8, 8, 3), index % 256, dtype=np.uint8))

    def path(self, index: int) -> str:
        return str(index)

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(b"listed")


IMBALANCED = [0] * 50 + [1] * 20 + [2] * 3


# --- classes ---


def test_names_are_the_sources_own_or_numbers() -> None:
    assert class_names_of(Listed([0, 1, 1], ["a", "b"]), None) == ("a", "b")
    assert class_names_of(Listed([0, 1, 1]), Listed([1, 0], split="test")) == ("0", "1")


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (Listed(None), None, "needs labels"),
        (Listed([0, 0], ["a"]), None, "has one class (a)"),
        (Listed([0, 2], ["a", "b", "c"]), None, "without training images: b"),
        (Listed([0, 1], ["a", "b"]), Listed([0, 1], ["a", "c"], "test"), "differ: b, c"),
        (Listed([0, 1]), Listed([0, 1, 2], split="test"), "class 2 have no training images"),
    ],
)
def test_classes_that_no_classifier_can_learn_are_refused(
    train: ImageSource, test: ImageSource | None, words: str
) -> None:
    with pytest.raises(BadData) as error:
        class_names_of(train, test)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_without_test_images_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert class_names_of(Listed([0, 1], ["a", "b"]), Listed([0, 0], ["a", "b"], "test")) == ("a", "b")
    assert "listed: no test images of 1 of the 2 classes, which are not measured: b" in capsys.readouterr().err


def test_streams_are_refused() -> None:
    source = Listed([0, 1])
    source.has_index = False
    with pytest.raises(BadData, match="is a stream"):
        class_names_of(source, None)


def test_labels_of_a_classifier_must_be_those_of_the_data_in_their_order() -> None:
    require_same_labels("m", ["a", "b"], ["a", "b"])
    for names, odd in ((["a", "c"], "c, b"), (["b", "a"], "their order"), (["a", "b", "c"], "c")):
        with pytest.raises(DiscoZooError, match=f"{odd}. For a new head on its backbone add --new-head"):
            require_same_labels("m", ["a", "b"], names)


def test_more_than_the_smallest_class_has_is_refused_with_what_it_has() -> None:
    require_enough(IMBALANCED, ["a", "b", "c"], 3, "data")
    with pytest.raises(BadData, match=r"has 3 training images of class c, fewer than 4\. Type: --few 3"):
        require_enough(IMBALANCED, ["a", "b", "c"], 4, "data")


def test_balanced_weights_give_each_class_the_same_weight_in_all_and_a_mean_of_one() -> None:
    weights = balanced_weights(IMBALANCED, 3)
    total = torch.tensor([50.0, 20.0, 3.0]) * weights
    assert torch.allclose(total, total.mean().expand(3))
    assert total.sum().item() == pytest.approx(len(IMBALANCED))


# --- splits ---


def test_few_takes_that_many_of_each_class_and_fewer_are_among_more() -> None:
    source = Listed([i % 4 for i in range(200)])
    ten, three = few_per_class(source, 10, seed=1), few_per_class(source, 3, seed=1)
    assert Counter(ten.labels) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert set(three.indices) < set(ten.indices)
    assert few_per_class(source, 10, seed=2).indices.tolist() != ten.indices.tolist()
    assert few_per_class(source, 10, seed=1).indices.tolist() == ten.indices.tolist()


def test_held_out_images_have_the_mixture_of_the_whole_and_are_not_trained_on() -> None:
    train, held = hold_out(Listed(IMBALANCED), 0.1, seed=0)
    assert held is not None
    assert Counter(held.labels) == {0: 5, 1: 2, 2: 1}
    assert sorted([*train.indices, *held.indices]) == [*range(len(IMBALANCED))]
    assert not set(train.indices) & set(held.indices)


def test_no_class_loses_its_last_image_to_the_held_out_ones() -> None:
    train, held = hold_out(Listed([0, 1, 1]), 0.9, seed=0)
    assert held is not None
    assert Counter(train.labels) == {0: 1, 1: 1}
    assert Counter(held.labels) == {1: 1}
    assert hold_out(Listed([0, 1]), 0.5, seed=0)[1] is None
    assert hold_out(Listed(IMBALANCED), 0.0, seed=0)[1] is None


# --- batches ---


@pytest.mark.parametrize(("images", "batch"), [(10, 4), (9, 4), (129, 64), (3, 64), (5, 4), (7, 3)])
def test_each_epoch_visits_each_image_once_in_batches_of_nearly_one_size(images: int, batch: int) -> None:
    per_epoch = -(-images // batch)
    steps = [*StepBatches(images, batch, seed=3, first=0, last=2 * per_epoch)]
    assert len(steps) == 2 * per_epoch
    for epoch in range(2):
        mine = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(index for step in mine for _, index in step) == [*range(images)]
        assert {found for step in mine for found, _ in step} == {epoch}
        sizes = [len(step) for step in mine]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch
        assert min(sizes) >= 2  # BatchNorm cannot work with one
    assert steps[:per_epoch] != [[(0, i) for _, i in step] for step in steps[per_epoch:]]  # another order


@pytest.mark.parametrize("first", [0, 1, 3, 4, 7])
def test_batches_from_the_middle_are_those_of_the_whole(first: int) -> None:
    whole = [*StepBatches(26, 8, seed=0, first=0, last=9)]
    assert [*StepBatches(26, 8, seed=0, first=first, last=9)] == whole[first:]


@pytest.mark.parametrize("augment", ["none", "light", "strong"])
def test_views_are_fixed_by_seed_epoch_and_image_whatever_the_workers(augment: str) -> None:
    def batches(workers: int, seed: int = 0) -> list[torch.Tensor]:
        source = TinySource()
        dataset = LabeledViews(source, source.labels, training_view(augment, 16, 18), seed)
        return [
            images for images, _, _ in training_loader(dataset, StepBatches(12, 5, seed=0, first=0, last=6), workers)
        ]

    alone = batches(0)
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (3, 16, 16) for images in alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, batches(1), strict=True))
    same = all(torch.equal(a, b) for a, b in zip(alone, batches(0, seed=1), strict=True))
    assert same == (augment == "none")


def test_unreadable_image_is_replaced_with_its_neighbours_label() -> None:
    source = TinySource(unreadable=(4,))
    dataset = LabeledViews(source, source.labels, training_view("none", 16, 16), 0)
    image, label, error = dataset[0, 4]
    expected, its_label, none = dataset[0, 5]
    assert torch.equal(image, expected)
    assert label == its_label == source.labels[5]
    assert error is not None
    assert none is None


# --- mixtures ---

IMAGES = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous()
MIX_LABELS = torch.tensor([0, 1, 2, 0])


def test_without_mixing_shares_are_one_hot() -> None:
    images, shares = mixed(IMAGES, MIX_LABELS, 3, mixup=0, cutmix=0, seed=0, step=0)
    assert torch.equal(images, IMAGES)
    assert torch.equal(shares, torch.eye(3)[MIX_LABELS])


@pytest.mark.parametrize("step", range(5))
def test_mixup_shares_say_what_is_in_the_pixels(step: int) -> None:
    images, shares = mixed(IMAGES, MIX_LABELS, 3, mixup=1.0, cutmix=0, seed=0, step=step)
    assert torch.allclose(shares.sum(1), torch.ones(4))
    # Image 1 has value 1 and follows image 0, which has value 0: its value is its own share.
    assert images[1].unique().numel() == 1
    assert images[1, 0, 0, 0].item() == pytest.approx(shares[1, 1].item(), abs=1e-6)


@pytest.mark.parametrize("step", range(5))
def test_cutmix_shares_say_what_is_in_the_pixels(step: int) -> None:
    images, shares = mixed(IMAGES, MIX_LABELS, 3, mixup=0, cutmix=1.0, seed=0, step=step)
    assert (images[1] == 1).float().mean().item() == pytest.approx(shares[1, 1].item(), abs=1e-6)
    assert set(images[1].unique().tolist()) <= {0.0, 1.0}


def test_mixture_is_fixed_by_seed_and_step_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first = mixed(IMAGES, MIX_LABELS, 3, mixup=0.4, cutmix=1.0, seed=0, step=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    again = mixed(IMAGES, MIX_LABELS, 3, mixup=0.4, cutmix=1.0, seed=0, step=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    others = [mixed(IMAGES, MIX_LABELS, 3, mixup=0.4, cutmix=1.0, seed=0, step=step)[1] for step in range(20)]
    assert len({tuple(shares.flatten().tolist()) for shares in others}) > 10


# --- settings ---


def test_defaults_are_written_out_by_the_number_of_images() -> None:
    settings = FinetuneSettings(model="m")
    assert settings.resolved(50_000).epochs == 20
    assert settings.resolved(100).epochs == 200  # 2 steps an epoch, 400 in all
    assert settings.resolved(100).layer_decay == 0.75
    assert settings.model_copy(update={"untrained": True}).resolved(100).layer_decay == 1.0
    head = settings.model_copy(update={"head_only": True}).resolved(100)
    assert (head.lr, head.layer_decay) == (1e-2, 1.0)
    assert settings.model_copy(update={"epochs": 3, "lr": 0.5}).resolved(100).epochs == 3


def test_few_labels_hold_nothing_out_unless_asked() -> None:
    assert FinetuneSettings(model="m").held_out == 0.1
    assert FinetuneSettings(model="m", few=5).held_out == 0
    assert FinetuneSettings(model="m", few=5, val_fraction=0.2).held_out == 0.2


def test_overrides_win_over_options() -> None:
    settings = read_settings({"model": "m", "lr": 0.1, "epochs": None}, ["lr=1e-3", "weight_decay=0"])
    assert (settings.lr, settings.weight_decay, settings.epochs) == (1e-3, 0, None)


@pytest.mark.parametrize(
    ("given", "overrides", "words"),
    [
        ({}, ["weigth_decay=1"], "unknown key 'weigth_decay'. Did you mean 'weight_decay'?"),
        ({"layer_decay": 1.5}, [], "layer_decay: input should be less than or equal to 1"),
        ({"augment": "litght"}, [], "Did you mean 'light'?"),
        ({}, ["epochs"], "write --set key=value"),
        ({"patience": 3, "few": 5}, [], "patience: needs held-out images"),
        ({"head_only": True, "untrained": True}, [], "random features"),
        ({"head_only": True, "layer_decay": 0.5}, [], "only the head learns"),
    ],
)
def test_bad_settings_are_told_in_one_line(given: dict[str, object], overrides: list[str], words: str) -> None:
    with pytest.raises(BadRecipe) as error:
        read_settings({"model": "m", **given}, overrides)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_digest_sees_every_setting_but_the_interval_of_checkpoints() -> None:
    settings = FinetuneSettings(model="m")
    assert settings.model_copy(update={"checkpoint_every_steps": 7}).digest() == settings.digest()
    assert settings.model_copy(update={"mixup": 0.2}).digest() != settings.digest()
