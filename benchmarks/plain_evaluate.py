"""kNN or a linear probe as people write them: timm, a DataLoader, inference mode, faiss, scikit-learn.

One JSON line of figures in percent. The penalty of the linear probe is chosen as `disco-zoo evaluate linear` does it:
on a held-out fifth of each class, from the same seven.
"""

from __future__ import annotations

import argparse
import io
import json

import faiss
import numpy as np
import pyarrow.parquet
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, Dataset

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
KS = (1, 20, 200)


class Images(Dataset):
    def __init__(self, path, transform):
        table = pyarrow.parquet.read_table(path)
        self.files = table["image"].combine_chunks().field("bytes")
        self.labels, self.transform = table["label"].to_numpy(), transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.transform(Image.open(io.BytesIO(self.files[index].as_py())).convert("RGB"))


def features(network, images, workers):
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in DataLoader(images, batch_size=128, num_workers=workers)]).numpy()


def knn(train, train_labels, test, test_labels):
    index = faiss.IndexFlatIP(train.shape[1])
    faiss.normalize_L2(train)
    faiss.normalize_L2(test)
    index.add(train)
    similarities, rows = index.search(test, max(KS))
    found = {}
    for k in KS:
        votes = np.zeros((len(test), train_labels.max() + 1))
        for place in range(k):
            weights = np.exp(similarities[:, place] / 0.07)
            votes[np.arange(len(test)), train_labels[rows[:, place]]] += weights
        found[f"knn{k}_top1"] = 100 * float((votes.argmax(1) == test_labels).mean())
    return found


def linear(train, train_labels, test, test_labels):
    scaler = StandardScaler(copy=False)
    train, test = scaler.fit_transform(train), scaler.transform(test)

    def fitted(rows, labels, penalty, iterations):
        return LogisticRegression(C=1 / (penalty * len(rows)), max_iter=iterations).fit(rows, labels)

    parts = train_test_split(train, train_labels, test_size=0.2, stratify=train_labels, random_state=0)
    scores = {p: fitted(parts[0], parts[2], p, 30).score(parts[1], parts[3]) for p in PENALTIES}
    best = max(scores, key=scores.get)
    return {"linear_top1": 100 * fitted(train, train_labels, best, 100).score(test, test_labels), "penalty": best}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["knn", "linear"])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--mean", type=float, nargs=3, required=True)
    parser.add_argument("--std", type=float, nargs=3, required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--resize-size", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    network = timm.create_model("efficientnet_b0", num_classes=0, checkpoint_path=given.weights).eval()
    size, crop = given.image_size, given.image_size / given.resize_size
    look = {"interpolation": "bilinear", "mean": given.mean, "std": given.std, "crop_pct": crop}
    transform = timm.data.create_transform((3, size, size), **look)
    splits = [Images(path, transform) for path in (given.train, given.test)]
    train, test = (features(network, images, given.workers) for images in splits)
    measure = {"knn": knn, "linear": linear}[given.task]
    print(json.dumps(measure(train, splits[0].labels, test, splits[1].labels)))


if __name__ == "__main__":
    main()
