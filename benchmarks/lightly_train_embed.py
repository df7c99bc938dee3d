"""lightly-train's `embed` of a timm EfficientNet-B0 with given weights. Needs lightly-train 0.18.

Its `embed` takes a checkpoint of its own training, which is written the first time. Its wrapper takes EfficientNet's
last block, 320 numbers, for the network's 1280; it is handed timm's `forward_features`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightly_train
import timm
from lightly_train._checkpoint import Checkpoint, CheckpointLightlyTrain, CheckpointLightlyTrainModels
from lightly_train._models.embedding_model import EmbeddingModel
from lightly_train._models.timm import timm as timm_wrapper
from lightly_train._transforms.transform import NormalizeArgs


def write_checkpoint(given):
    timm_wrapper._get_forward_features_fn = lambda model: timm_wrapper._forward_features
    network = timm.create_model("efficientnet_b0", num_classes=0, checkpoint_path=given.weights).eval()
    wrapped = timm_wrapper.TIMMModelWrapper(network)
    models = CheckpointLightlyTrainModels(network, wrapped, EmbeddingModel(wrapped).eval())
    args = NormalizeArgs(mean=tuple(given.mean), std=tuple(given.std))
    Checkpoint(network.state_dict(), CheckpointLightlyTrain.from_now(models, args)).save(given.checkpoint)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--mean", type=float, nargs=3, required=True)
    parser.add_argument("--std", type=float, nargs=3, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    if not given.checkpoint.is_file():
        write_checkpoint(given)
    lightly_train.embed(
        out="features.pt",
        data=given.data,
        checkpoint=given.checkpoint,
        image_size=given.image_size,
        batch_size=given.batch_size,
        num_workers=given.workers,
        accelerator="cpu",
    )


if __name__ == "__main__":
    main()
