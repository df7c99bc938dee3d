"""The yardstick: DisCo as one would write it down with torchvision and timm, and nothing else.

MoCo-v2's two views by torchvision's transforms on PIL images, a DataLoader, a student and its moving average, a frozen
teacher in eval mode, a queue, SGD. No memory format is chosen, nothing is fused or folded.
"""

from __future__ import annotations

import argparse
import copy
import random

import timm
import torch
from contestant import run_steps
from PIL import ImageFilter
from torch import nn
from torch.nn import functional as F
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Blur:
    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class TwoViews:
    def __init__(self, size):
        self.view = T.Compose(
            [
                T.RandomResizedCrop(size, scale=(0.2, 1.0)),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                T.RandomGrayscale(p=0.2),
                T.RandomApply([Blur()], p=0.5),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )

    def __call__(self, image):
        return self.view(image), self.view(image)


class Network(nn.Module):
    def __init__(self, name, hidden, width):
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=0)
        features = self.backbone.num_features
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))

    def forward(self, images):
        return F.normalize(self.head(self.backbone(images)), dim=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a folder of class folders")
    parser.add_argument("--student", default="efficientnet_b0")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--queue", type=int, default=4096)
    given = parser.parse_args()
    options = {"img_size": given.size} if "vit" in given.teacher else {}
    teacher = timm.create_model(given.teacher, num_classes=0, **options).eval().requires_grad_(False)
    width = teacher.num_features
    student = Network(given.student, 2048, width)
    twin = copy.deepcopy(student).requires_grad_(False)
    queue, position = F.normalize(torch.randn(given.queue, width), dim=1), 0
    optimizer = torch.optim.SGD(student.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        ImageFolder(given.data, TwoViews(given.size)), batch_size=given.batch_size, shuffle=True, drop_last=True
    )

    def batches():
        while True:
            yield from loader

    images = batches()

    def step():
        nonlocal position
        (first, second), _ = next(images)
        with torch.no_grad():
            targets = [F.normalize(teacher(view), dim=1) for view in (first, second)]
            for mine, other in zip(twin.parameters(), student.parameters(), strict=True):
                mine.mul_(0.999).add_(other, alpha=0.001)
            keys = twin(second)
        embeddings = [student(view) for view in (first, second)]
        positive = (embeddings[0] * keys).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, embeddings[0] @ queue.T], dim=1) / 0.2
        contrast = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        distill = sum((t - s).pow(2).sum(dim=1).mean() for t, s in zip(targets, embeddings, strict=True))
        loss = contrast + 32 * distill
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[position : position + len(keys)] = keys
        position = (position + len(keys)) % len(queue)
        loss.item()

    student.train()
    twin.train()
    run_steps(step)


if __name__ == "__main__":
    main()
