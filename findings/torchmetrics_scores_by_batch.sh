#!/usr/bin/env bash
# torchmetrics 1.9.0: AUROC and average precision of cosine scores depend on the batches in which they are given.
#
# The binary metrics take any scores: those outside 0 to 1 are put through a sigmoid. Whether they are is decided in each
# update() anew. Cosines go from -1 to 1, so a batch with a negative one is squeezed to 0.27 to 0.73 and the batch without
# stays as it is; scores of both are then ranked together. Pair verification, retrieval and out-of-distribution figures
# by distances or similarities are measured so. One update() with everything, and scikit-learn, have the right figure.
# Seen: 400 pairs, AUROC 0.990 at once and by scikit-learn 1.9.1; 0.94 in batches of 16 and 0.92 in batches of 8;
# average precision 0.993 and, in batches of 8, 0.95. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import sklearn
import torch
import torchmetrics
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

warnings.simplefilter("error")
generator = np.random.default_rng(0)
same = generator.integers(0, 2, 400)  # whether a pair shows the same thing
cosines = np.clip(generator.normal(0.15 + 0.5 * same, 0.15), -1, 1).astype(np.float32)
pairs = [(torch.tensor(cosines), torch.tensor(same))]


def by_batches(kind: type, size: int) -> float:
    metric = kind()
    for scores, labels in pairs:
        for some, theirs in zip(scores.split(size), labels.split(size), strict=True):
            metric.update(some, theirs)
    return round(float(metric.compute()), 4)


print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__, "scikit-learn", sklearn.__version__)
for kind, reference in ((BinaryAUROC, roc_auc_score), (BinaryAveragePrecision, average_precision_score)):
    right = round(float(reference(same, cosines)), 4)
    found = {size: by_batches(kind, size) for size in (400, 16, 8)}
    print(kind.__name__, "scikit-learn", right, "by size of the batches", found)
    assert abs(found[400] - right) < 0.001, "all at once is no longer right"
    assert found[8] < right - 0.02, "it no longer depends on the batches"
PYTHON
