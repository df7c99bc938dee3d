"""Linear probes by SGD: the papers' schedules, and a backbone that stays frozen."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import pytest
import torch
from colour_probes import TEST, TRAIN, ColorSource, MeanColor, probe
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.errors import BadData, DiscoZooError, TrainingDiverged, UnknownName
from disco_zoo.evaluation.probes.linear import check_classes, linear_probe
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.protocols.linear import LINEAR_PROTOCOLS
from disco_zoo.transforms.view_recipes import OfWholeImage


class Counting(MeanColor):
    """A backbone that writes to a buffer whenever it runs, eval or not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


# --- presets of spec 4.1 ---


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [
        ("moco", {0: 30, 59: 30, 60: 3, 79: 3, 80: 0.3, 99: 0.3}),
        ("ssl_small", {0: 30, 59: 30, 60: 3, 79: 3, 80: 0.3, 99: 0.3}),
        ("seed", {0: 30, 4: 30, 59: 30, 60: 3, 80: 0.3}),
        (
            "disco",
            {0: 3, 4: 3, 5: 1.5, 10: 0.75, 44: 3 / 256, 45: 3 / 512, 59: 3 / 512, 60: 3 / 1024, 80: 3 / 2048},
        ),
        ("compress", {0: 0.01, 14: 0.01, 15: 0.001, 30: 0.0001, 39: 0.0001}),
        ("swav", {0: 0.3, 50: 0.15, 25: 0.15 * (1 + math.sqrt(0.5)), 100: 0}),
        ("bingo_r", {0: 30, 60: (30 + 0.01) / 2, 120: 0.01}),
        ("bingo_eff", {0: 3, 60: (3 + 0.001) / 2, 40: 0.001 + 2.999 * 0.75, 120: 0.001}),
    ],
)
def test_learning_rates_closed_form(protocol, rates):
    preset = LINEAR_PROTOCOLS[protocol]
    for epoch, rate in rates.items():
        assert preset.lr(epoch) == pytest.approx(rate, rel=1e-12, abs=1e-12)
        if epoch >= preset.warmup_epochs:
            assert preset.lr(epoch, batch_size=64) == pytest.approx(rate / 4, rel=1e-12, abs=1e-12)


def test_seed_warms_up_from_the_unscaled_rate():
    preset = LINEAR_PROTOCOLS["seed"]
    rates = [preset.lr(epoch, batch_size=512) for epoch in range(7)]
    assert rates == pytest.approx([30, 36, 42, 48, 54, 60, 60])


def test_epochs_and_weight_decay_of_the_presets():
    table = {name: (p.epochs, p.weight_decay) for name, p in LINEAR_PROTOCOLS.items() if p.solver == "sgd"}
    assert table == {
        "moco": (100, 0),
        "disco": (100, 0),
        "seed": (100, 0),
        "bingo_r": (120, 0),
        "bingo_eff": (120, 0),
        "compress": (40, 1e-4),
        "swav": (100, 1e-6),
        "ssl_small": (100, 0),
    }
    assert all(name == preset.name for name, preset in LINEAR_PROTOCOLS.items())


def test_a_shorter_probe_moves_the_milestones():
    preset = LINEAR_PROTOCOLS["moco"]
    rates = [preset.lr(epoch, epochs=10) for epoch in range(10)]
    assert rates == pytest.approx([30] * 6 + [3] * 2 + [0.3] * 2)
    assert LINEAR_PROTOCOLS["swav"].lr(5, epochs=10) == pytest.approx(0.15)
    assert preset.label(10) == "moco@10ep"
    assert preset.label(100) == preset.label() == "moco"
    assert preset.label(10, batch_size=64) == "moco@10ep@batch64"
    assert LINEAR_PROTOCOLS["fast"].label(batch_size=64) == "fast"  # it takes no steps


def test_milestones_move_to_whole_epochs_without_rounding():
    """25 of 100 epochs are 7 of 28, while 25 · 0.28 is a little more than 7."""
    disco = LINEAR_PROTOCOLS["disco"]
    for epochs in range(1, 301):
        expected = [
            3.0 * 0.5 ** sum(Fraction(milestone * epochs, 100) <= epoch for milestone in disco.milestones)
            for epoch in range(epochs)
        ]
        assert [disco.lr(epoch, epochs=epochs) for epoch in range(epochs)] == expected


# --- SGD on a frozen backbone ---


@pytest.mark.parametrize(
    ("protocol", "epochs", "label"),
    [
        ("disco", 4, "disco@4ep@batch8"),
        ("compress", 40, "compress@batch8"),
        ("swav", 4, "swav@4ep@batch8"),
        ("fast", None, "fast"),
    ],
)
def test_colours_are_learnt_and_the_backbone_stays(protocol, epochs, label):
    backbone = MeanColor().train()
    before = backbone_fingerprint(backbone)
    result = probe(backbone, protocol=protocol, epochs=epochs)
    assert result.protocol == label
    assert result.top1 == 100.0
    assert result.top5 is None
    assert backbone_fingerprint(backbone) == before
    assert backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())
    if epochs is not None:
        assert len(result.top1_per_epoch) == epochs
        assert result.top1_per_epoch[result.best_epoch - 1] == result.top1
        assert result.top1_per_epoch[-1] == result.last_top1
    json.dumps(dataclasses.asdict(result))


def test_best_and_last_epoch_are_kept_apart(monkeypatch):
    scores = [(40.0, 90.0), (60.0, 91.0), (60.0, 95.0), (50.0, 99.0)]
    monkeypatch.setattr("disco_zoo.evaluation.probes.linear.train_linear_layers", lambda *_: [scores])
    result = probe(epochs=4)
    assert (result.top1, result.top5, result.best_epoch, result.last_top1) == (60.0, 91.0, 2, 50.0)


def test_sgd_equals_a_plain_torch_loop(monkeypatch):
    """With EVAL views in place of random ones the layer must follow torch's own SGD step by step."""
    from disco_zoo.core.random_streams import stream_generator
    from disco_zoo.evaluation.features import extract_features
    from disco_zoo.evaluation.probes import batches as probe_batches
    from disco_zoo.evaluation.probes import linear_sgd
    from disco_zoo.transforms.eval import eval_transform

    monkeypatch.setattr(probe_batches, "probe_view", lambda size, *_: OfWholeImage(eval_transform(size)))
    seen = []
    real_step = linear_sgd._Layer.step

    def spy(layer, *batch):
        real_step(layer, *batch)
        seen.append((layer.weight.detach().clone(), layer.bias.detach().clone()))

    monkeypatch.setattr(linear_sgd._Layer, "step", spy)
    probe(protocol="swav", epochs=3, seed=5, batch_size=10)

    train = extract_features(MeanColor(), TRAIN, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.01, generator=stream_generator("linear_layer", 5))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-6)
    step = 0
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.3 * 10 / 256 * 0.5 * (1 + math.cos(math.pi * epoch / 3))
        order = torch.randperm(24, generator=stream_generator("linear_order", 5, epoch))
        for batch in order.split(10):
            optimizer.zero_grad()
            F.cross_entropy(layer(train.features[batch]), train.labels[batch]).backward()
            optimizer.step()
            torch.testing.assert_close(seen[step][0], layer.weight.detach())
            torch.testing.assert_close(seen[step][1], layer.bias.detach())
            step += 1
    assert step == len(seen) == 9


def test_seed_fixes_a_probe_whatever_the_global_state_and_workers():
    backbone = MeanColor()
    noisy = ColorSource("train", [0, 1, 2] * 8)
    torch.manual_seed(1)
    first = probe(backbone, train=noisy, protocol="disco", epochs=2, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = probe(backbone, train=noisy, protocol="disco", epochs=2, seed=3, workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert dataclasses.replace(second, settings={}) == dataclasses.replace(first, settings={})


def test_a_backbone_that_changes_is_found_out():
    with pytest.raises(DiscoZooError, match="backbone changed"):
        probe(Counting(), protocol="fast")
    with pytest.raises(DiscoZooError, match="backbone changed"):
        probe(Counting(), protocol="disco", epochs=1)


def test_progress_counts_every_image_once():
    seen = []
    probe(protocol="compress", epochs=2, progress=lambda *state: seen.append(state))
    assert {total for _, total in seen} == {12 + 24 + 2 * 24}
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 84
    assert len(set(counts)) == len(counts)


def test_swav_takes_its_own_imagenet_std():
    imagenet = (0.229, 0.224, 0.225)
    assert probe(protocol="swav", epochs=1, std=imagenet).settings["std"] == (0.228, 0.224, 0.225)
    assert probe(protocol="disco", epochs=1, std=imagenet).settings["std"] == imagenet
    assert probe(protocol="swav", epochs=1).settings["std"] == (0.5,) * 3


def test_divergence_names_epoch_and_rate():
    class Huge(MeanColor):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 1e25

    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 1 at lr 0\.09375\."):
        probe(Huge(), protocol="disco", epochs=2)


def test_bad_labels_are_refused_before_any_work():
    class Untouchable(MeanColor):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("worked before checking")

    backbone = Untouchable()
    with pytest.raises(BadData, match="two classes, the training images have 1: red"):
        probe(backbone, train=ColorSource("train", [0, 0], ["red"]), test=ColorSource("test", [0], ["red"]))
    with pytest.raises(BadData, match=r"without training images: 2\."):
        probe(backbone, train=ColorSource("train", [0, 1]))
    with pytest.raises(BadData, match="needs labels"):
        probe(backbone, train=ColorSource("train", [-1, -1]))
    with pytest.raises(UnknownName, match="Did you mean 'disco'"):
        probe(backbone, protocol="disko")
    with pytest.raises(DiscoZooError, match="Leave epochs out"):
        probe(backbone, protocol="fast", epochs=3)


def test_a_width_that_is_not_the_announced_one_is_refused():
    with pytest.raises(DiscoZooError, match="gives 3 features, not 4"):
        linear_probe(MeanColor(), 4, TRAIN, TEST, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_check_classes_counts_to_the_largest_label():
    assert check_classes(torch.tensor([0, 4, 2]), torch.tensor([2, 0, 4, 4])) == 5
