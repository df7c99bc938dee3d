"""What is evaluated: a model by name, and the labelled images to measure it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from disco_zoo.core.console import StepProgress
from disco_zoo.data.dataset import ImageSource, require_index, require_labels
from disco_zoo.data.pairing import open_labeled_pair
from disco_zoo.data.subsets import SubsetSource
from disco_zoo.data.summary import look_facts
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.features import Features, extract_features
from disco_zoo.evaluation.few_labels import balanced_indices
from disco_zoo.evaluation.knn import check_neighbors
from disco_zoo.evaluation.measure import Bench
from disco_zoo.models.encoder import backbone_fingerprint, feature_dim_of
from disco_zoo.models.engine import EngineName
from disco_zoo.models.load import load_model
from disco_zoo.networks.input_size import fit_input_size
from disco_zoo.transforms.eval import eval_resize_size

LOOK_BATCH = 256  # images that `--steps 1` looks at, the batch of the papers' probes


@dataclass(frozen=True)
class Subject:
    """A frozen backbone and its bench.

    Attributes:
        name: what the user typed.
        network: the timm name that builds it without weights.
        mean, std: of the backbone's input, for RGB in 0..1.
        bench: images and input size.
        untrained: whether its weights are random.
        is_look: whether the bench holds a part of the images only.
        engine: what computes features, see `forward_by`.
    """

    name: str
    network: str
    backbone: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bench: Bench
    untrained: bool = False
    is_look: bool = False
    engine: EngineName = "torch"

    @property
    def feature_dim(self) -> int:
        return feature_dim_of(self.backbone)

    @property
    def resize_size(self) -> int:
        """Shorter side before the crop, in pixels."""
        return self.bench.resize_size or eval_resize_size(self.bench.image_size)

    def with_train(self, train: ImageSource) -> Subject:
        """The same with other training images."""
        return replace(self, bench=replace(self.bench, train=train))

    def input_facts(self) -> dict[str, Any]:
        """How images reach the backbone, for JSON."""
        sizes = {"image_size": self.bench.image_size, "resize_size": self.resize_size}
        return sizes | {"mean": list(self.mean), "std": list(self.std)}

    def model_facts(self) -> dict[str, Any]:
        """Which weights these are, for JSON; the sha256 is over the tensors (`backbone_fingerprint`)."""
        return {
            "name": self.name,
            "network": self.network,
            "untrained": self.untrained,
            "backbone_sha256": backbone_fingerprint(self.backbone),
            "parameters": sum(parameter.numel() for parameter in self.backbone.parameters()),
            "feature_dim": self.feature_dim,
        }

    def data_facts(self) -> dict[str, Any]:
        """Which images these are, for JSON."""
        train, test = self.bench.train, self.bench.test
        return {
            "train": train.name,
            "test": test.name,
            "num_train": len(train),
            "num_test": len(test),
            "num_classes": len(set(train.labels or ())),
            "train_fingerprint": train.fingerprint(),
            "test_fingerprint": test.fingerprint(),
            "train_look": look_facts(train),
            "test_look": look_facts(test),
        }

    def features(self, source: ImageSource) -> Features:
        """EVAL features of one of the sources, with progress on stderr."""
        bench = self.bench
        with StepProgress(f"features, {source.split}", len(source)) as progress:
            return extract_features(
                self.backbone,
                source,
                image_size=bench.image_size,
                resize_size=self.resize_size,
                mean=self.mean,
                std=self.std,
                device=bench.device,
                workers=bench.workers,
                progress=progress.update,
                engine=self.engine,
            )


def load_subject(
    *,
    model: str,
    data: str,
    eval_data: str | None = None,
    untrained: bool = False,
    ks: Sequence[int] = (),
    seed: int = 0,
    image_size: int | None = None,
    resize_size: int | None = None,
    max_batches: int | None = None,
    device: str = "cpu",
    workers: int = 0,
    engine: EngineName = "torch",
) -> Subject:
    """Load what `load_model` knows, and its labelled data, checked.

    Args:
        untrained: random weights, drawn by `seed`.
        ks: numbers of neighbours that will be asked for.
        image_size, resize_size: in pixels, instead of the model's.
        engine: what computes features, see `forward_by`.
        max_batches: of `LOOK_BATCH` images of each split, classes in turn; None takes all.

    Raises:
        UnknownName: no such model.
        BadData: the data cannot be used.
        WeightsError: the model's weights cannot be had.
        DiscoZooError: the model cannot look at this size.
    """
    train, test = (_part(source, max_batches) for source in open_labeled_pair(data, eval_data))
    bench = Bench(train, test, image_size or 0, resize_size, device=device, workers=workers)
    bench.check(ks=())
    check_neighbors(ks, len(train))
    named = load_model(model, pretrained=not untrained, seed=seed)
    if image_size is None:
        bench = replace(bench, image_size=named.image_size, resize_size=resize_size or named.resize_size)
    if (bench.resize_size or eval_resize_size(bench.image_size)) < bench.image_size:
        raise DiscoZooError(
            f"--resize-size {bench.resize_size} is smaller than the crop of {bench.image_size} pixels. "
            f"Type: --resize-size {eval_resize_size(bench.image_size)}"
        )
    fit_to(named.backbone, bench.image_size, model)
    return Subject(
        model, named.network, named.backbone, named.mean, named.std, bench, untrained, max_batches is not None, engine
    )


def fit_to(backbone: nn.Module, size: int, name: str) -> None:
    """`fit_input_size` for commands with --image-size.

    Raises:
        BadTeacher: it cannot look at images of this size; the message says which size it can.
    """
    fit_input_size(backbone, size, name, "--image-size ")


def _part(source: ImageSource, max_batches: int | None) -> ImageSource:
    number = None if max_batches is None else max_batches * LOOK_BATCH
    if number is None or number >= len(source):
        return source
    require_index(source, "a look")
    return SubsetSource(source, balanced_indices(require_labels(source, "evaluation"), number, seed=0))
