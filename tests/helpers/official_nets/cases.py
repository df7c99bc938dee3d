"""A file of every layout and network: what is in it, and what it must be recognised as."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from tiny import make_run_folder
from torch import Tensor, nn

from disco_zoo.core.files import sha256_of
from official_nets import containers
from official_nets.containers import mlp, prefixed, write
from official_nets.subjects import official

State = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A file and what it holds.

    Attributes:
        subject: name of the authors' network in `subjects.py`.
        container: makes what the file holds; or writes the file into a folder, where it is no pickle.
        sizes: in pixels, that features are compared at.
        legacy: written in the format of torch before 1.6.
    """

    layout: str
    network: str
    subject: str
    container: Callable[[], Any] | None
    sizes: tuple[int, ...] = (224, 96)
    legacy: bool = False
    write_into: Callable[[Path], Path] | None = None

    def write(self, folder: Path) -> Path:
        if self.write_into is not None:
            return self.write_into(folder)
        assert self.container is not None
        return write(folder / "checkpoint.pth.tar", self.container(), legacy=self.legacy)


def net(name: str) -> State:
    return official(name).state


def topped(name: str, *widths: int, top: str = "fc.") -> State:
    """The network with a head of two layers: features, hidden, and 128 outputs."""
    return net(name) | prefixed(top, mlp(*widths))


@functools.cache
def teacher() -> State:
    """Some other network's tensors, which must not be taken; narrow, since files hold them twice."""
    narrow = timm.create_model("resnet18", num_classes=0, channels=(8, 16, 32, 64))
    return narrow.state_dict() | prefixed("fc.", mlp(64, 8))


def linear(outputs: int, inputs: int, prefix: str = "fc.") -> State:
    return {f"{prefix}weight": torch.full((outputs, inputs), 0.5), f"{prefix}bias": torch.ones(outputs)}


def disco_swav_student() -> State:
    """DisCo's SwAV students of EfficientNet keep their unused classifier."""
    head = prefixed("projection_head.", mlp(1280, 2048, norm=True))
    extras = linear(1000, 1280, "classifier.") | {"prototypes.weight": torch.zeros(30, 128)}
    return prefixed("module.", net("timm-b0") | head | extras)


def simclr_head() -> State:
    """Linear layers without bias, and a BatchNorm at the end."""
    torch.manual_seed(5)
    head = {"fc1.weight": torch.randn(64, 2048), "fc2.weight": torch.randn(128, 64)}
    for norm, width in (("bn1", 64), ("bn2", 128)):
        state = prefixed(f"{norm}.", nn.BatchNorm1d(width).state_dict())
        head |= {k: v + torch.rand(v.shape) if v.is_floating_point() else v for k, v in state.items()}
    return head


def zeroed(state: State) -> State:
    """DINO's student: its moving average is what counts."""
    return {key: torch.zeros_like(value) for key, value in state.items()}


def as_safetensors(folder: Path) -> Path:
    save_file(net("vit"), folder / "model.safetensors")
    return folder / "model.safetensors"


def as_run_folder(folder: Path) -> Path:
    run = make_run_folder(folder / "run")
    save_file(net("resnet18"), run / "student.safetensors")
    facts = json.loads((run / "run.json").read_text())
    facts["student"]["sha256"] = sha256_of(run / "student.safetensors")
    (run / "run.json").write_text(json.dumps(facts))
    return run


B0, B1, MOBV3 = "efficientnet_b0", "efficientnet_b1", "mobilenetv3_large_100"
PAD224, PAD2, SE_FIRST = "disco_effb0_pad224", "disco_effb1_pad2", "disco_mobv3_se_first"
# Of the padding that is frozen for 224 (B0) and 240 pixels (B1), TensorFlow's would be another at the last four.
FROZEN_SIZES = (224, 96, 240, 208, 225, 100)
VIT, XCIT = "vit_tiny_patch16_224", "xcit_tiny_12_p16_224"
CASES: dict[str, Case] = {
    "MoCo-v2 ResNet-50": Case("moco", "resnet50", "resnet50", lambda: containers.moco(topped("resnet50", 2048, 64))),
    "MoCo-v1 ResNet-18": Case(
        "moco", "resnet18", "resnet18", lambda: containers.moco(net("resnet18") | linear(128, 512)), (224,)
    ),
    "MoCo-v2 Eff-B0 (DisCo's baseline)": Case(
        "moco", B0, "timm-b0", lambda: containers.moco(topped("timm-b0", 1280, 1280, top="classifier.")), (224,)
    ),
    "DisCo Eff-B0": Case(
        "disco", B0, "timm-b0", lambda: containers.disco(topped("timm-b0", 1280, 2048, top="classifier."), teacher())
    ),
    "DisCo Eff-B1": Case(
        "disco", B1, "timm-b1", lambda: containers.disco(topped("timm-b1", 1280, 2048, top="classifier."), teacher())
    ),
    "DisCo MobileNetV3": Case(
        "disco",
        MOBV3,
        "timm-mobv3",
        lambda: containers.disco(topped("timm-mobv3", 1280, 2048, top="classifier."), teacher()),
    ),
    "DisCo ResNet-18": Case(
        "disco", "resnet18", "resnet18", lambda: containers.disco(topped("resnet18", 512, 2048), teacher())
    ),
    "DisCo ResNet-34": Case(
        "disco", "resnet34", "resnet34", lambda: containers.disco(topped("resnet34", 512, 2048), teacher())
    ),
    "DisCo-SwAV Eff-B0": Case(
        "swav",
        B0,
        "timm-b0",
        lambda: {"epoch": 1, "state_dict": disco_swav_student(), "optimizer": {}, "amp": {}},
        (224,),
    ),
    "SwAV ResNet-50": Case("swav", "resnet50", "swav", lambda: containers.swav_teacher(net("swav"))),
    "SwAV ResNet-50 w2": Case("swav", "disco_r50w2", "swav-w2", lambda: containers.swav_teacher(net("swav-w2")), (96,)),
    "SEED Eff-B0, small patch": Case(
        "seed",
        PAD224,
        "seed-b0",
        lambda: containers.seed(topped("seed-b0", 1280, 1280), teacher(), small_queue=True),
        FROZEN_SIZES,
    ),
    "SEED Eff-B1": Case(
        "seed", PAD2, "seed-b1", lambda: containers.seed(topped("seed-b1", 1280, 1280), teacher()), FROZEN_SIZES
    ),
    "SEED MobileNetV3": Case(
        "seed", SE_FIRST, "seed-mobv3", lambda: containers.seed(topped("seed-mobv3", 1280, 1280), teacher())
    ),
    "SEED ResNet-18, torch < 1.6": Case(
        "seed",
        "resnet18",
        "resnet18",
        lambda: containers.seed(topped("resnet18", 512, 512), teacher()),
        (224,),
        legacy=True,
    ),
    "SEED ResNet-18, encoder_q": Case(
        "seed", "resnet18", "resnet18", lambda: containers.bingo(topped("resnet18", 512, 512), teacher()), (224,)
    ),
    "BINGO ResNet-18": Case(
        "bingo", "resnet18", "resnet18", lambda: containers.bingo(topped("resnet18", 512, 2048), teacher()), (224,)
    ),
    "BINGO Eff-B0": Case(
        "bingo", PAD224, "seed-b0", lambda: containers.bingo(topped("seed-b0", 1280, 2048), teacher())
    ),
    "ssl-small Eff-B0": Case(
        "ssl_small", PAD224, "seed-b0", lambda: containers.ssl_small(topped("seed-b0", 1280, 2560))
    ),
    "ssl-small MobileNetV3": Case(
        "ssl_small",
        SE_FIRST,
        "seed-mobv3",
        lambda: containers.ssl_small(topped("seed-mobv3", 1280, 2560), kept_student=teacher()),
    ),
    "SimCLR ResNet-50 of SEED's list": Case(
        "simclr_seed",
        "resnet50",
        "resnet50",
        lambda: containers.simclr_of_seeds_list(net("resnet50") | prefixed("fc.", mlp(2048, 64, norm=True))),
        (96,),
    ),
    "SimCLR ResNet-50": Case(
        "simclr", "resnet50", "resnet50", lambda: containers.simclr(net("resnet50"), simclr_head()), (96,)
    ),
    "CompRess ResNet-18, 2q": Case("compress", "resnet18", "resnet18", lambda: containers.compress(net("resnet18"))),
    "CompRess ResNet-18, 1q": Case(
        "compress", "resnet18", "resnet18", lambda: containers.compress(net("resnet18") | linear(2048, 512)), (224,)
    ),
    "CompRess MobileNetV2": Case(
        "compress", "mobilenetv2_100", "mobilenetv2", lambda: containers.compress(net("mobilenetv2"))
    ),
    "DINO-like ViT-Tiny": Case("dino", VIT, "vit", lambda: containers.dino(zeroed(net("vit")), net("vit")), (224,)),
    "DINO-like XCiT-Tiny": Case("dino", XCIT, "xcit", lambda: containers.dino(zeroed(net("xcit")), net("xcit"))),
    "DINO-like XCiT-Tiny, frozen teacher": Case(
        "dino", XCIT, "xcit", lambda: containers.dino(net("xcit"), teacher()), (224,)
    ),
    "MoCo-v3-like ViT-Tiny": Case("moco_v3", VIT, "vit", lambda: containers.moco_v3(net("vit")), (224,)),
    "torchvision ResNet-34": Case("plain", "resnet34", "resnet34", lambda: net("resnet34") | linear(10, 512), (224,)),
    "torchvision MobileNetV2": Case(
        "plain",
        "mobilenetv2_100",
        "mobilenetv2",
        lambda: {"state_dict": net("mobilenetv2") | linear(10, 1280, "classifier.1.")},
        (224,),
    ),
    "XCiT's own": Case("plain", XCIT, "xcit", lambda: {"model": net("xcit") | linear(10, 192, "head.")}, (224,)),
    "efficientnet_pytorch Eff-B0": Case("plain", PAD224, "seed-b0", lambda: net("seed-b0") | linear(10, 1280, "_fc.")),
    "efficientnet_pytorch Eff-B1": Case("plain", PAD2, "seed-b1", lambda: net("seed-b1"), (240,)),
    "safetensors ViT-Tiny": Case("plain", VIT, "vit", None, (224,), write_into=as_safetensors),
    "run folder ResNet-18": Case("run", "resnet18", "resnet18", None, (224,), write_into=as_run_folder),
}
