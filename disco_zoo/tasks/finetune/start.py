"""Where a fine-tuning begins: a backbone with a new head, or a classifier that goes on; and its optimizer.

The head learns at the full rate, lower layers at decayed rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.core.files import user_path
from disco_zoo.core.random_streams import drawing_from, stream_generator
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.metrics import class_weight
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.classifier_dir import Classifier, find_classifier_folder, read_classifier
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.tasks.finetune.classes import require_same_labels
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
    folder = find_classifier_folder(user_path(settings.model))
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


def build_optimizer(network: nn.Module, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """AdamW over all that learns; each group carries its share of the rate as `lr_scale`.

    The layers are timm's (`group_matcher`): layer l of L, counted from the input, has lr · decay^(L - l), and the
    head, L, the full rate (Clark et al. 2020; Bao et al. 2021). Biases, norms and what the model names in
    `no_weight_decay` are not decayed.
    """
    assert settings.lr is not None
    assert settings.layer_decay is not None
    if settings.head_only:
        network.requires_grad_(False)
        for head in classifiers(network):
            head.requires_grad_(True)
    no_decay = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()  # type: ignore[operator]
    groups = param_groups_layer_decay(
        network, settings.weight_decay, no_weight_decay_list=no_decay, layer_decay=settings.layer_decay
    )
    return torch.optim.AdamW(groups, lr=settings.lr)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def set_modes(network: nn.Module, settings: FinetuneSettings) -> None:
    """Put what learns into train mode; a frozen backbone, or BatchNorm where asked, stays in eval mode."""
    network.train(not settings.head_only)
    if settings.head_only:
        for head in classifiers(network):
            head.train()
    if settings.batch_norm == "eval":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def classifiers(network: Any) -> Iterator[nn.Module]:
    """The linear head of a timm network, or its two heads (distilled transformers)."""
    head = network.get_classifier()
    yield from head if isinstance(head, (tuple, list)) else (head,)
