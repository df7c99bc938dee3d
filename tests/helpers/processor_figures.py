"""In a process of its own: figures that another processor could change, as JSON on one line.

`golden`: of each bundled checkpoint, the largest difference to its stored features, as a share of the largest feature.
`drift`: of five float32 training steps of a tiny network, the largest difference of a weight to the same steps in
float64.
"""

from __future__ import annotations

import copy
import json

import torch
from method_training import train
from plain_loop import in_float64
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches

from disco_zoo.core.files import PACKAGE_DIR
from disco_zoo.methods.feature import FeatureDistillation
from disco_zoo.models.load import load_model
from disco_zoo.weights.golden import compare_with_golden

torch.set_num_threads(1)


def golden() -> dict[str, float]:
    found = {}
    for path in sorted((PACKAGE_DIR / "assets" / "weights").glob("*.golden.safetensors")):
        name = path.name.removesuffix(".golden.safetensors")
        difference = compare_with_golden(path, load_model(name).backbone)
        found[name] = difference.largest / difference.scale
    return found


def drift() -> float:
    torch.manual_seed(9)
    single = FeatureDistillation(tiny_encoder(), tiny_teacher(), EMBED_DIM, adapter_hidden_dim=5)
    double, batches = in_float64(copy.deepcopy(single)), [views[:1] for views in view_batches(5)]
    for method in (single, double):
        train(method, batches)
    pairs = zip(single.student.parameters(), double.student.parameters(), strict=True)
    return max(float((a.double() - b).abs().max()) for a, b in pairs)


if __name__ == "__main__":
    print(json.dumps({"kernels": torch.backends.cpu.get_cpu_capability(), "golden": golden(), "drift": drift()}))
