"""Online kNN: accuracy of the student's features on a part of the data during training."""

from __future__ import annotations

import torch

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.knn import knn_top1
from disco_zoo.evaluation.shared_features import shared_features
from disco_zoo.models.encoder import Encoder

K = 20


class OnlineKnn:
    """Weighted kNN (k = 20, T = 0.07) from part of the training split to part of the test split.

    All processes of a run call it together.

    Args:
        train, test: labelled sources.
        num_images: at most this many of each, drawn by `seed`: the same in every epoch and every run.
        image_size, resize_size: in pixels, see `eval_transform`: the same throughout, also while the student trains
            at other sizes.
    """

    def __init__(
        self,
        train: ImageSource,
        test: ImageSource,
        *,
        num_images: int,
        seed: int,
        image_size: int,
        resize_size: int | None,
    ) -> None:
        self.train, self.test, self.image_size, self.resize_size = train, test, image_size, resize_size
        self.train_indices = _some(len(train), num_images, seed)
        self.test_indices = _some(len(test), num_images, seed)

    def __call__(self, student: Encoder, device: torch.device | str = "cpu") -> float:
        """Top-1 in percent; leaves the student's mode and all random state as they were."""
        bank, queries = (
            shared_features(
                student.backbone,
                source,
                image_size=self.image_size,
                resize_size=self.resize_size,
                mean=student.mean,
                std=student.std,
                device=device,
                indices=indices,
            )
            for source, indices in ((self.train, self.train_indices), (self.test, self.test_indices))
        )
        assert bank.labels is not None
        assert queries.labels is not None
        k = min(K, len(bank))
        return knn_top1(bank.features, bank.labels, queries.features, queries.labels, ks=(k,))[k]


def _some(total: int, wanted: int, seed: int) -> list[int]:
    order = torch.randperm(total, generator=stream_generator("online_knn", seed))
    return sorted(order[:wanted].tolist())
