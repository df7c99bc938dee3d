#!/usr/bin/env bash
# torcheval 0.0.7 counts a class without a single vote as found: top-5 accuracy of kNN votes comes out near 100 %.
#
# multiclass_accuracy(k=5) asks how many classes score more than the right one, and takes fewer than 5 for a hit. Equal
# scores are thus all won. Votes of neighbors are mostly zeros: where fewer than five classes got votes, every other class
# ties behind them and is counted, whatever it is. A network that gives all classes the same score has 100 %, too; with
# k=1 the same function breaks ties by argmax, so top-1 next to it looks sane. hit_rate and reciprocal_rank do the same.
# Seen: 1,000 images of 100 classes, 20 neighbors that vote for up to three classes, the right one among these for 62 %:
# top-1 0.22, top-5 1.0; five classes taken by torch.topk hold the right one for 0.63. Equal scores: 0.01 and 1.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 torcheval==0.0.7 numpy==2.4.6
"$folder/venv/bin/python" -W ignore::FutureWarning -W ignore::DeprecationWarning - <<'PYTHON'
from importlib.metadata import version

import torch
from torcheval.metrics.functional import hit_rate, multiclass_accuracy

CLASSES, IMAGES, NEIGHBORS = 100, 1000, 20
generator = torch.Generator().manual_seed(0)
labels = torch.arange(IMAGES) % CLASSES
rivals = torch.randint(0, CLASSES, (IMAGES, 3), generator=generator)
known = torch.rand(IMAGES, generator=generator) < 0.6  # images whose class is among those that get votes
rivals[:, 0] = torch.where(known, labels, rivals[:, 0])
voters = rivals.gather(1, torch.randint(0, 3, (IMAGES, NEIGHBORS), generator=generator))
votes = torch.zeros(IMAGES, CLASSES).scatter_add_(1, voters, torch.ones(IMAGES, NEIGHBORS))

print("torcheval", version("torcheval"), "torch", torch.__version__)
found = {}
for name, scores in (("votes", votes), ("equal scores", torch.zeros(IMAGES, CLASSES))):
    top1, top5 = (float(multiclass_accuracy(scores, labels, k=k)) for k in (1, 5))
    hits = float(hit_rate(scores, labels, k=5).mean())
    by_topk = float((scores.topk(5, dim=1).indices == labels[:, None]).any(dim=1).float().mean())
    voted = float((scores.gather(1, labels[:, None]) > 0).float().mean())
    found[name] = top1, top5
    print(
        f"{name}: top-1 {top1:.3f} top-5 {top5:.3f} hit_rate {hits:.3f}; "
        f"by topk {by_topk:.3f}; right class has a vote {voted:.3f}"
    )
    assert top5 == hits == 1, "classes without a vote are no longer counted"
    assert top1 < 0.4 and by_topk < 0.7
PYTHON
