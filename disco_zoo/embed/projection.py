"""Many numbers to two, for a map: principal components, t-SNE or UMAP."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.errors import BadData, require
from disco_zoo.plots import _principal_components as principal_components
from disco_zoo.plots import project
from disco_zoo.threads import one_thread

Method = Literal["auto", "pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = ("auto", "pca", "tsne", "umap")
MINIMUM_POINTS = 3
UMAP_NEIGHBOURS = 15
UMAP_COMPONENTS = 50  # principal components that UMAP looks at


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
        components = principal_components(F.normalize(features.double()), UMAP_COMPONENTS).float()
    if method == "pca" or len(features) <= UMAP_NEIGHBOURS:
        return components[:, :2], "PCA"
    return _umap(components), "UMAP"


def _umap(components: Tensor) -> Tensor:
    umap = require("umap", "map")
    with one_thread():  # also what makes it the same every time
        found = umap.UMAP(n_neighbors=UMAP_NEIGHBOURS, metric="euclidean", random_state=0, n_jobs=1)
        return torch.from_numpy(found.fit_transform(components.numpy()))
