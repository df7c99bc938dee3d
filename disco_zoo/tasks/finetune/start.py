"""Where a fine-tuning begins: a backbone with a new head, or a classifier that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from disco_zoo.core.random_streams import drawing_from, stream_generator
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.accuracy import class_weight
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.classifier_dir import Classifier, find_classifier_folder, read_classifier
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.tasks.finetune.classes import require_same_labels
from disco_zoo.tasks.finetune.optimizer import classifiers
from disco_zoo.tasks.finetune.settings import FinetuneSettings
from disco_zoo.transforms.eval import eval_resize_size


@dataclass(frozen=True)
class Start:
    """The classifier at the start of a fine-tuning.

    Attributes:
        classifier: network and input, with the classes of the data.
        continues: whether the head knows these classes already.
    """

    classifier: Classifier
    continues: bool


def build_start(settings: FinetuneSettings, names: Sequence[str]) -> Start:
    """The network to train, with a head for `names`, at the size the settings ask for.

    A new head is N(0, 0.01²) with bias 0, drawn by the seed; so is a whole network with random weights.

    Raises:
        UnknownName, WeightsError, BadCheckpoint: the model cannot be had.
        DiscoZooError: a classifier of other classes, random weights of a folder, or a size the network cannot look at.
    """
    folder = find_classifier_folder(Path(settings.model).expanduser())
    if folder is not None and settings.untrained:
        raise DiscoZooError(f"{settings.model} is its weights. For random ones give the name of a zoo or timm model.")
    if folder is not None:
        classifier = read_classifier(folder)
        if not settings.new_head:
            require_same_labels(settings.model, classifier.label_names, names)
            return Start(_at_size(classifier, settings), continues=True)
    else:
        named = load_model(settings.model, pretrained=not settings.untrained, seed=settings.seed)
        classifier = _without_head(named)
    _give_head(classifier.network, len(names), settings.seed)
    return Start(_at_size(replace(classifier, label_names=tuple(names)), settings), continues=False)


def _without_head(named: NamedModel) -> Classifier:
    resize_size = named.resize_size or eval_resize_size(named.image_size)
    return Classifier(named.backbone, (), named.mean, named.std, named.image_size, resize_size)


def _give_head(network: Any, num_classes: int, seed: int) -> None:
    with drawing_from("finetune_head", seed):  # timm draws its own start first
        network.reset_classifier(num_classes)
    generator = stream_generator("finetune_head", seed)
    for head in classifiers(network):
        if not isinstance(head, nn.Linear):
            raise DiscoZooError(
                f"{type(network).__name__} has no linear head that could be replaced. Take another model."
            )
        with torch.no_grad():
            head.weight.copy_(class_weight(head.out_features, head.in_features, generator))
            if head.bias is not None:
                head.bias.zero_()


def _at_size(classifier: Classifier, settings: FinetuneSettings) -> Classifier:
    if settings.image_size is not None:
        size = settings.image_size
        classifier = replace(classifier, image_size=size, resize_size=eval_resize_size(size))
    fit_to(classifier.network, classifier.image_size, settings.model)
    classifier.network.to(memory_format=torch.channels_last)
    return classifier
