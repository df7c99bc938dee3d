"""Projects features to two dimensions: principal components, t-SNE or UMAP."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.process import one_thread
from disco_zoo.errors import BadData, require

Method = Literal["auto", "pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = ("auto", "pca", "tsne", "umap")
MINIMUM_POINTS = 3
UMAP_NEIGHBORS = 15
COMPONENTS = 50  # principal components that t-SNE and UMAP look at


def check_method(method: Method) -> None:
    """Find a missing package before the features are read.

    Raises:
        MissingExtra: what the method needs is not installed.
    """
    if method == "umap" and importlib.util.find_spec("umap") is None:
        require("umap", "map")
    if method == "tsne" and importlib.util.find_spec("sklearn") is None:
        require("sklearn", "train")


def project_by(features: Tensor, method: Method) -> tuple[Tensor, str]:
    """Map features (N, D), L2-normalised first, to (N, 2), and say by what.

    Args:
        method: "auto" is UMAP where it is installed, else t-SNE, else PCA; few points make it PCA.

    Raises:
        BadData: fewer than three features.
        MissingExtra: the method's package is not installed.
    """
    if len(features) < MINIMUM_POINTS:
        raise BadData(f"a map needs at least {MINIMUM_POINTS} images, there are {len(features)}")
    if method == "auto" and importlib.util.find_spec("umap") is None:
        return project(features)
    if method == "tsne":
        check_method(method)
        return project(features)
    with one_thread():
        components = principal_components(F.normalize(features.double()), COMPONENTS).float()
    if method == "pca" or len(features) <= UMAP_NEIGHBORS:
        return components[:, :2], "PCA"
    return _umap(components), "UMAP"


def _umap(components: Tensor) -> Tensor:
    umap = require("umap", "map")
    with one_thread():  # also what makes it the same every time
        found = umap.UMAP(n_neighbors=UMAP_NEIGHBORS, metric="euclidean", random_state=0, n_jobs=1)
        return torch.from_numpy(found.fit_transform(components.numpy()))


def project(features: Tensor) -> tuple[Tensor, str]:
    """Map features (N, D) to (N, 2): t-SNE where scikit-learn is installed, else PCA; and the name of it."""
    with one_thread():
        components = principal_components(F.normalize(features.double()), COMPONENTS).float()
        if len(features) < 10 or importlib.util.find_spec("sklearn") is None:
            return components[:, :2], "PCA"
        manifold = require("sklearn.manifold", "test")
        tsne = manifold.TSNE(init="pca", perplexity=min(30.0, (len(features) - 1) / 3), random_state=0)
        return torch.from_numpy(tsne.fit_transform(components.numpy())), "t-SNE"


def principal_components(features: Tensor, number: int) -> Tensor:
    """Scores (N, number) of centred features (N, D); zeros where there are fewer components.

    By exact decomposition: `torch.pca_lowrank` draws from the global generator. The sign of a component is
    arbitrary; its largest score is made positive.
    """
    left, scale, _ = torch.linalg.svd(features - features.mean(dim=0), full_matrices=False)
    scores = (left * scale)[:, :number]
    largest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(largest < 0, -1.0, 1.0)
    return F.pad(scores, (0, number - scores.shape[1]))
