#!/usr/bin/env bash
# torchinfo 1.8.0 says 34 million multiply-adds of a ViT-Tiny that has 1,075; ptflops 0.7.5 says 9 of an NF-RegNet-B0's 351.
#
# Both are asked in the way their readmes show. torchinfo counts a linear layer once an image, not once for each of its
# 197 tokens, and attention not at all; what a convolution does is right. ptflops knows modules by their type: in its
# default backend a class derived from nn.Conv2d that calls F.conv2d itself, as weight-standardised ones do, counts for
# nothing, and nothing is said of it (its backend "aten" is right). PyTorch's own FlopCounterMode counts what is computed.
# Tables of small backbones that mix convolutions and tokens so compare numbers of different kinds.
# Seen, millions of multiply-adds at 224 px (torch 2.14.1, timm 1.0.31; FlopCounterMode / torchinfo / ptflops):
# ResNet-18 1,814 / 1,814 / 1,825; ViT-Tiny 1,075 / 34 / 913; NF-RegNet-B0 at 256 px 351 / 354 / 9.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31 torchinfo==1.8.0 ptflops==0.7.5
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import ptflops
import timm
import torch
import torchinfo
from torch.utils.flop_counter import FlopCounterMode

print({name: version(name) for name in ("torch", "timm", "torchinfo", "ptflops")})


def million_multiply_adds(name: str) -> dict[str, float]:
    network = timm.create_model(name).eval()
    shape = network.pretrained_cfg["input_size"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape))
    return {
        "FlopCounterMode": counter.get_total_flops() / 2e6,  # two operations a multiply-add
        "torchinfo": torchinfo.summary(network, (1, *shape), verbose=0).total_mult_adds / 1e6,
        "ptflops": ptflops.get_model_complexity_info(
            network, tuple(shape), as_strings=False, print_per_layer_stat=False
        )[0]
        / 1e6,
    }


found = {name: million_multiply_adds(name) for name in ("resnet18", "vit_tiny_patch16_224", "nf_regnet_b0")}
for name, counts in found.items():
    print(name, {counter: round(count) for counter, count in counts.items()})
for counter in ("torchinfo", "ptflops"):
    assert abs(found["resnet18"][counter] / found["resnet18"]["FlopCounterMode"] - 1) < 0.01
vit, nf = found["vit_tiny_patch16_224"], found["nf_regnet_b0"]
assert vit["torchinfo"] < vit["FlopCounterMode"] / 30
assert nf["ptflops"] < nf["FlopCounterMode"] / 30
assert abs(nf["torchinfo"] / nf["FlopCounterMode"] - 1) < 0.01
PYTHON
