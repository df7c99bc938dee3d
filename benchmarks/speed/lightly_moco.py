"""MoCo-v2 from lightly's building blocks: transform, head, loss with memory bank, moving average. For lightly 1.6."""

from __future__ import annotations

import argparse
import copy

import timm
import torch
from contestant import run_steps
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform
from torchvision.datasets import ImageFolder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    backbone = timm.create_model("efficientnet_b0", num_classes=0)
    head = MoCoProjectionHead(backbone.num_features, 2048, 128)
    twin, twin_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(twin)
    deactivate_requires_grad(twin_head)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        ImageFolder(given.data, MoCoV2Transform(input_size=given.size)),
        batch_size=given.batch_size,
        shuffle=True,
        drop_last=True,
    )

    def batches():
        while True:
            yield from loader

    images = batches()

    def step():
        (first, second), _ = next(images)
        update_momentum(backbone, twin, m=0.999)
        update_momentum(head, twin_head, m=0.999)
        query = head(backbone(first).flatten(start_dim=1))
        with torch.no_grad():
            key = twin_head(twin(second).flatten(start_dim=1))
        loss = criterion(query, key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    run_steps(step)


if __name__ == "__main__":
    main()
