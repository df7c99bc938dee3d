"""Sweeps, resumption, views and presets of the probes; the probes themselves are in test_linear.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from colour_probes import TEST, TRAIN, ColorSource, FingerprintedSource, MeanColor, Stop, probe
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as vision

from disco_zoo.core.random_streams import drawing_from
from disco_zoo.errors import BadRunFolder, DiscoZooError, TrainingDiverged
from disco_zoo.evaluation.features import extract_features
from disco_zoo.evaluation.probes.batches import probe_view
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.protocols.linear import (
    LINEAR_PROTOCOLS,
    SEMI_PROTOCOLS,
    TRANSFER_PROTOCOLS,
    bingo_protocol,
    linear_protocol,
)
from disco_zoo.transforms.eval import eval_transform
from disco_zoo.transforms.view_recipes import plain_view

# --- rates ---


def test_a_sweep_gives_what_each_rate_gives_alone():
    noisy = ColorSource("train", [0, 1, 2] * 8)
    alone = {lr: probe(train=noisy, protocol="disco", epochs=3, base_lrs=(lr,)) for lr in (0.001, 0.1, 3.0)}
    sweep = probe(train=noisy, protocol="disco", epochs=3, base_lrs=(0.001, 0.1, 3.0))
    assert sweep.top1_per_epoch_by_lr == {f"{lr:g}": result.top1_per_epoch for lr, result in alone.items()}
    assert sweep.top1 == max(result.top1 for result in alone.values())
    assert alone[3.0].protocol == "disco@3ep@batch8"
    assert alone[0.1].protocol == "disco@3ep@batch8@lr0.1"
    assert "best of 0.001, 0.1, 3 on test images" in sweep.protocol
    assert alone[0.1].top1_per_epoch_by_lr == {}


def test_a_rate_that_diverges_leaves_the_others():
    class Large(MeanColor):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 1e10

    alone = probe(Large(), protocol="moco", epochs=4, base_lrs=(1e-18,))
    sweep = probe(Large(), protocol="moco", epochs=4, base_lrs=(1e30, 1e-18))
    assert sweep.top1_per_epoch == alone.top1_per_epoch
    assert sweep.settings["base_lr"] == 1e-18
    assert len(sweep.top1_per_epoch_by_lr["1e+30"]) < 4
    with pytest.raises(TrainingDiverged, match="Type a smaller --lr"):
        probe(Large(), protocol="moco", epochs=4, base_lrs=(1e30, 1e31))


def test_another_rate_scales_the_whole_schedule():
    for name in ("moco", "disco", "seed", "bingo_r", "swav"):
        preset = LINEAR_PROTOCOLS[name]
        for epoch in (0, 3, 50, 99):
            usual = preset.lr(epoch, batch_size=512)
            assert preset.lr(epoch, batch_size=512, base_lr=10 * preset.base_lr) == pytest.approx(10 * usual)


def test_rates_that_cannot_be():
    with pytest.raises(DiscoZooError, match="Leave --lr out"):
        probe(protocol="fast", base_lrs=(3.0,))
    with pytest.raises(DiscoZooError, match="cannot use lr -1"):
        probe(protocol="disco", epochs=1, base_lrs=(3.0, -1.0))


# --- going on ---


@pytest.mark.parametrize("protocol", ["disco", "compress"])
def test_a_probe_that_was_stopped_ends_as_an_undisturbed_one(tmp_path: Path, protocol: str):
    noisy, sweep = FingerprintedSource("train", [0, 1, 2] * 8), (0.1, 3.0)
    test = FingerprintedSource("test", [0, 1, 2] * 4)
    whole = probe(train=noisy, test=test, protocol=protocol, epochs=5, base_lrs=sweep)
    file = tmp_path / "state.pt"
    cached = 12 + (24 if protocol == "compress" else 0)

    def cut(done: int, total: int) -> None:
        if done > cached + 3 * 24:  # within the fourth epoch
            raise Stop

    with pytest.raises(Stop):
        probe(
            train=noisy,
            test=test,
            protocol=protocol,
            epochs=5,
            base_lrs=sweep,
            progress=cut,
            checkpoint=ProbeCheckpoint(file, resume=False),
        )
    seen: list[int] = []
    again = probe(
        train=noisy,
        test=test,
        protocol=protocol,
        epochs=5,
        base_lrs=sweep,
        progress=lambda done, _: seen.append(done),
        checkpoint=ProbeCheckpoint(file, resume=True),
    )
    assert again == whole
    assert not any(cached < done <= cached + 3 * 24 for done in seen)  # three epochs were not run again


def test_the_state_of_another_probe_is_refused(tmp_path: Path):
    sources = {"train": FingerprintedSource("train", [0, 1, 2] * 8), "test": FingerprintedSource("test", [0, 1, 2])}
    file = tmp_path / "state.pt"
    probe(**sources, protocol="disco", epochs=2, checkpoint=ProbeCheckpoint(file, resume=False))
    with pytest.raises(BadRunFolder, match=r"another probe \(epochs differ\)"):
        probe(**sources, protocol="disco", epochs=3, checkpoint=ProbeCheckpoint(file, resume=True))
    other = MeanColor()
    with torch.no_grad():
        other.bn.bias.add_(1)
    with pytest.raises(BadRunFolder, match=r"\(backbone differ\)"):
        probe(other, **sources, protocol="disco", epochs=2, checkpoint=ProbeCheckpoint(file, resume=True))
    with pytest.raises(BadRunFolder, match="Add --resume to go on, or delete it"):
        ProbeCheckpoint(file, resume=False)
    with pytest.raises(BadRunFolder, match="nothing to resume"):
        ProbeCheckpoint(tmp_path / "none.pt", resume=True)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadRunFolder, match="damaged"):
        probe(**sources, protocol="disco", epochs=2, checkpoint=ProbeCheckpoint(file, resume=True))


# --- views ---


def test_the_views_are_a_plain_of_the_training_core():
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    for index in range(10):
        drawn = []
        for view in (plain_view(16), probe_view(16, (0.08, 1.0), "bilinear")):
            with drawing_from("test", index):
                drawn.append(view(image))
        assert torch.equal(*drawn)


def test_scale_and_interpolation_of_a_protocol_reach_the_views():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # Pillow's own noise has no seed
    image = Image.fromarray(noise)
    with drawing_from("test", 0):
        whole = probe_view(16, (1.0, 1.0), "bicubic")(image)

    def difference(method: Image.Resampling) -> int:
        resized = image.resize((16, 16), method)
        candidates = (resized, resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        return min(int((whole.int() - vision.pil_to_tensor(one).int()).abs().max()) for one in candidates)

    # torch's resizing of views is Pillow's up to rounding (`RandomCrop.apply`); another interpolation is far from it.
    assert difference(Image.Resampling.BICUBIC) <= 1
    assert difference(Image.Resampling.BILINEAR) > 5
    expected = vision.pil_to_tensor(image.resize((16, 16), Image.Resampling.BICUBIC))
    assert torch.equal(eval_transform(16, 16, "bicubic")(image), expected)
    assert not torch.equal(eval_transform(16, 16)(image), expected)


def test_features_see_the_protocols_interpolation():
    class Keeper(MeanColor):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images
            return super().forward(images)

    source = ColorSource("test", [0, 1, 2])
    backbone = Keeper()
    inputs = {"image_size": 8, "resize_size": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    extract_features(backbone, source, interpolation="bicubic", **inputs)
    expected = vision.pil_to_tensor(source.image(1).resize((8, 8), Image.Resampling.BICUBIC)) / 255
    torch.testing.assert_close(backbone.seen[1].contiguous(), expected)


# --- presets ---


def test_presets_with_few_labels_and_on_other_data():
    semi = SEMI_PROTOCOLS["disco"]
    assert [semi.lr(epoch) for epoch in (0, 59, 60, 79, 80, 99)] == pytest.approx([3, 3, 1.5, 1.5, 0.75, 0.75])
    assert (semi.epochs, semi.weight_decay) == (100, 0)
    disco, small = TRANSFER_PROTOCOLS["disco"], TRANSFER_PROTOCOLS["ssl_small"]
    assert {disco.lr(epoch) for epoch in range(200)} == {3.0}
    assert (disco.epochs, disco.image_size, disco.interpolation, disco.crop_scale) == (200, 224, "bicubic", (0.08, 1.0))
    assert [small.lr(epoch) for epoch in (0, 60, 80)] == pytest.approx([30, 3, 0.3])
    assert (small.epochs, small.image_size, small.interpolation, small.crop_scale) == (100, 224, "bicubic", (0.6, 1.0))
    assert small.feature_normalisation == "l2"


def test_unit_features_ignore_the_backbones_scale():
    class Scaled(MeanColor):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 2**-20  # a power of two: exact

    protocol = replace(linear_protocol("ssl_small", TRANSFER_PROTOCOLS), image_size=None)
    first, second = (probe(net, train=TRAIN, test=TEST, protocol=protocol, epochs=3) for net in (MeanColor(), Scaled()))
    assert first.top1_per_epoch == second.top1_per_epoch
    plain = replace(protocol, feature_normalisation="none")
    assert first.top1 == 100.0
    assert probe(Scaled(), protocol=plain, epochs=3).top1 < 50  # so small that nothing is learnt


@pytest.mark.parametrize(("network", "name"), [("test_resnet", "bingo_r"), ("test_efficientnet", "bingo_eff")])
def test_bingo_has_a_probe_for_each_kind_of_network(network: str, name: str):
    assert bingo_protocol(timm.create_model(network)) == name
