"""Probes by SGD on K views of each image: the backbone runs K times, and an epoch shows the views of epoch e mod K."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from colour_probes import TEST, TRAIN, FingerprintedSource, MeanColor, Stop, probe
from torch import Tensor

from disco_zoo.data.source_image import SourceImage
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.probes import crop_features
from disco_zoo.evaluation.probes.batches import ProbeBatches, probe_view
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.crop_features import CropFeatures, require_room
from disco_zoo.evaluation.probes.settings import probe_settings
from disco_zoo.evaluation.tasks import ProbeOptions, check_options
from disco_zoo.protocols.finetune import SEMI_FINETUNE_PROTOCOLS
from disco_zoo.protocols.linear import LINEAR_PROTOCOLS
from disco_zoo.transforms.view_recipes import draw_view

SETTINGS = probe_settings(
    LINEAR_PROTOCOLS["disco"],
    image_size=8,
    resize_size=9,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    batch_size=7,
    epochs=5,
    seed=3,
    device="cpu",
    workers=0,
    crops=2,
)


def pixel_sums(images: Tensor) -> Tensor:
    return images.flatten(1).sum(dim=1, keepdim=True, dtype=torch.float32)


class Counted(MeanColor):
    """Counts the images that it has seen."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.seen, self.stop_at = 0, stop_at

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        if self.stop_at is not None and self.seen > self.stop_at:
            raise Stop
        return super().forward(images)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("epoch", [0, 1, 2, 3, 4])
def test_an_epoch_shows_the_views_of_its_draw_in_its_own_order(epoch: int, goes_on: bool) -> None:
    crops = CropFeatures(ProbeBatches(TRAIN, TRAIN.labels, SETTINGS), pixel_sums, 2)
    view = probe_view(8, SETTINGS.crop_scale, SETTINGS.interpolation)
    for before in range(0 if goes_on else epoch):
        list(crops.epoch(before))
    found = list(crops.epoch(epoch))
    order = crops.batches.order(epoch).tolist()
    drawn = [draw_view(view, SourceImage(TRAIN.encoded(i)), 3, epoch % 2, i, 0) for i in order]
    assert [len(labels) for _, labels in found] == [7, 7, 7, 3]
    torch.testing.assert_close(torch.cat([rows for rows, _ in found]), pixel_sums(torch.stack(drawn)))
    assert torch.cat([labels for _, labels in found]).tolist() == [TRAIN.labels[i] for i in order]
    assert (order == crops.batches.order(epoch % 2).tolist()) == (epoch < 2)


def test_the_backbone_sees_each_image_k_times() -> None:
    backbone = Counted()
    result = probe(backbone, protocol="disco", epochs=6, crops=2)
    assert backbone.seen == 2 * len(TRAIN) + len(TEST)
    assert result.protocol == "disco@6ep@2crops@batch8"


def test_as_many_crops_as_epochs_are_new_crops_in_each_epoch() -> None:
    same, new = probe(protocol="disco", epochs=3, crops=3), probe(protocol="disco", epochs=3)
    assert same.top1_per_epoch == new.top1_per_epoch
    assert same.protocol == new.protocol == "disco@3ep@batch8"


def test_a_probe_that_goes_on_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    train, test = (FingerprintedSource(split, source.labels) for split, source in (("train", TRAIN), ("test", TEST)))
    options = {"train": train, "test": test, "protocol": "moco", "epochs": 6, "base_lrs": (0.001,), "crops": 3}
    whole = probe(**options)
    file = tmp_path / "probe.pt"
    with pytest.raises(Stop):
        probe(Counted(len(TEST) + 2 * len(TRAIN) + 5), checkpoint=ProbeCheckpoint(file, resume=False), **options)
    resumed = probe(checkpoint=ProbeCheckpoint(file, resume=True), **options)
    assert resumed.top1_per_epoch == whole.top1_per_epoch


def test_protocols_without_kept_features_refuse_crops() -> None:
    with pytest.raises(DiscoZooError, match=r"fast cannot use 4 crops an image. Leave --crops out"):
        check_options(LINEAR_PROTOCOLS["fast"], ProbeOptions(crops=4))
    with pytest.raises(DiscoZooError, match=r"Fine-tuning changes the backbone.*Leave --crops out"):
        check_options(SEMI_FINETUNE_PROTOCOLS["swav"], ProbeOptions(crops=4))


def test_more_crops_than_memory_holds_are_refused_with_a_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_features, "available_bytes", lambda: 5 * 4 * 1000 * 10)
    require_room(5, 1000, 10)
    require_room(None, 10**9, 10**4)
    with pytest.raises(DiscoZooError, match=r"6 crops of 1000 images keep .* Type: --crops 5"):
        require_room(6, 1000, 10)
    with pytest.raises(DiscoZooError, match="Type: the command without --crops"):
        require_room(1, 10**6, 10)
