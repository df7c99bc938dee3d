"""The authors' networks with calibrated weights, drawn once, and the features that they compute."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torchvision
from torch import Tensor, nn

from official_nets import timm_named
from official_nets.calibration import random_images, randomise
from official_nets.efficientnet import EfficientNet
from official_nets.mobilenetv3 import MobileNetV3Large
from official_nets.swav_resnet import SwavResNet50
from official_nets.transformers import VitTiny, XcitTiny

State = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """An authors' network: its tensors, and the features it computes."""

    state: State
    features: Callable[[Tensor], Tensor]


def without_classifier(model: nn.Module, name: str) -> nn.Module:
    setattr(model, name, nn.Identity())
    return model


def of_module(model: nn.Module) -> Official:
    return Official(dict(model.state_dict()), model)


def of_function(network: str, function: Callable[[State, Tensor], Tensor], sizes: tuple[int, ...]) -> Official:
    """timm draws and calibrates the weights; the features are computed by `function`."""
    state = dict(randomise(timm.create_model(network, num_classes=0), sizes=sizes).state_dict())
    return Official(state, functools.partial(function, state))


def of_swav(width: int, hidden: int, sizes: tuple[int, ...]) -> Official:
    model = randomise(SwavResNet50(width, hidden), sizes=sizes)
    return Official(dict(model.state_dict()), model.features)


@functools.cache
def official(name: str) -> Official:
    models = torchvision.models
    makers: dict[str, Callable[[], Official]] = {
        "seed-b0": lambda: of_module(randomise(EfficientNet("b0"), sizes=(224,))),
        "seed-b1": lambda: of_module(randomise(EfficientNet("b1"), sizes=(224,))),
        "seed-mobv3": lambda: of_module(randomise(MobileNetV3Large(), sizes=(224,))),
        "timm-b0": lambda: of_function("efficientnet_b0", timm_named.efficientnet, (224,)),
        "timm-b1": lambda: of_function("efficientnet_b1", timm_named.efficientnet, (224,)),
        "timm-mobv3": lambda: of_function("mobilenetv3_large_100", timm_named.mobilenetv3_large, (224,)),
        "resnet18": lambda: of_module(randomise(without_classifier(models.resnet18(), "fc"), sizes=(96,))),
        "resnet34": lambda: of_module(randomise(without_classifier(models.resnet34(), "fc"), sizes=(96,))),
        "resnet50": lambda: of_module(randomise(without_classifier(models.resnet50(), "fc"), sizes=(96,))),
        "mobilenetv2": lambda: of_module(randomise(without_classifier(models.mobilenet_v2(), "classifier"))),
        "swav": lambda: of_swav(1, 2048, sizes=(96,)),
        "swav-w2": lambda: of_swav(2, 64, sizes=(64,)),  # a narrow head: the file is large enough
        "vit": lambda: of_module(randomise(VitTiny(), sizes=(224,))),
        "xcit": lambda: of_module(randomise(XcitTiny())),
    }
    return makers[name]()


@functools.cache
def expected(name: str, size: int) -> Tensor:
    with torch.no_grad():
        return official(name).features(images(size))


def images(size: int) -> Tensor:
    return random_images(8, size, seed=1)[:2]  # of those that set BatchNorm's statistics


def features(network: str, backbone: State, size: int) -> Tensor:
    model = timm.create_model(network, num_classes=0)
    model.load_state_dict(backbone, strict=True)
    with torch.no_grad():
        return model.eval()(images(size))
