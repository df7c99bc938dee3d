"""Fine-tuning as a measurement: SGD step by step, rates, resumption, and that the backbone stays."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from colour_probes import ColorSource, FingerprintedSource, Stop
from tiny import TinyNet
from torch import nn
from torch.nn import functional as F

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadData, BadRunFolder, DiscoZooError, TrainingDiverged, UnknownName
from disco_zoo.evaluation.probes import batches as probe_batches
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.finetune_sgd import finetune_probe
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.protocols.finetune import (
    SEMI_FINETUNE_PROTOCOLS,
    TRANSFER_FINETUNE_PROTOCOLS,
    finetune_protocol,
)
from disco_zoo.transforms.eval import eval_transform, normalize
from disco_zoo.transforms.view_recipes import OfWholeImage

pytestmark = pytest.mark.usefixtures("one_thread")

SWAV = SEMI_FINETUNE_PROTOCOLS["swav"]
TRAIN, TEST = FingerprintedSource("train", [0, 1, 2] * 8), FingerprintedSource("test", [0, 1, 2] * 4)


def network(seed: int = 0) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet()


class Dropping(TinyNet):
    """Draws random numbers while it learns."""

    def forward(self, images):
        return F.dropout(super().forward(images), 0.3, self.training)


def tune(backbone: nn.Module | None = None, train=TRAIN, test=TEST, **options):
    inputs = {"image_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3, "batch_size": 8, "protocol": SWAV, "share": 1.0}
    return finetune_probe(backbone or network(), 8, train, test, **{**inputs, **options})


def test_it_equals_a_plain_torch_loop(monkeypatch):
    monkeypatch.setattr(probe_batches, "probe_view", lambda size, *_: OfWholeImage(eval_transform(size)))
    result = tune(epochs=3, share=0.01, batch_size=10, seed=5)

    backbone, layer = network(), nn.Linear(8, 3)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.01, generator=stream_generator("linear_layer", 5))
    groups = [
        {"params": backbone.parameters(), "lr": 0.02 * 10 / 256},
        {"params": layer.parameters(), "lr": 5 * 10 / 256},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)

    def images(source):
        pixels = torch.stack([eval_transform(16)(source.image(i)) for i in range(len(source))])
        return normalize(pixels, (0.5,) * 3, (0.5,) * 3)

    train, test, expected = images(TRAIN), images(TEST), []
    for epoch in range(3):
        if epoch == 2:  # milestones 12 and 16 of 20 epochs are 1.8 and 2.4 of 3
            for group in optimizer.param_groups:
                group["lr"] *= 0.2
        backbone.train()
        for batch in torch.randperm(24, generator=stream_generator("linear_order", 5, epoch)).split(10):
            optimizer.zero_grad()
            F.cross_entropy(layer(backbone(train[batch])), torch.tensor(TRAIN.labels)[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            scores = layer(backbone.eval()(test))
        expected.append(100 * (scores.argmax(1) == torch.tensor(TEST.labels)).float().mean().item())
    assert result.top1_per_epoch == pytest.approx(expected)
    assert max(expected) > 34
    assert result.settings["rates"] == [0.02, 5.0]


def test_the_network_learns_and_the_given_one_stays():
    backbone = network().train()
    backbone.conv.eval()
    before, modes = backbone_fingerprint(backbone), [module.training for module in backbone.modules()]
    result = tune(backbone, epochs=20)
    assert result.protocol == "swav@batch8"
    assert result.top1 == 100.0
    assert (len(result.top1_per_epoch), result.top1_per_epoch[result.best_epoch - 1]) == (20, result.top1)
    assert backbone_fingerprint(backbone) == before
    assert [module.training for module in backbone.modules()] == modes
    assert all(parameter.grad is None for parameter in backbone.parameters())
    json.dumps(dataclasses.asdict(result))


def test_a_frozen_parameter_learns_too():
    assert tune(network().requires_grad_(False), epochs=2) == tune(network(), epochs=2)


def test_few_labels_have_rates_of_their_own():
    assert SWAV.start_rates(0.01, None) == (0.02, 5.0)
    assert SWAV.start_rates(0.1, None) == (0.01, 0.2)
    assert SWAV.start_rates(0.01, 0.3) == (0.3, 0.3)
    assert [round(SWAV.decay(epoch, 20), 6) for epoch in (0, 11, 12, 15, 16, 19)] == [1, 1, 0.2, 0.2, 0.04, 0.04]
    assert SWAV.imagenet_std[0] == 0.228
    small = TRANSFER_FINETUNE_PROTOCOLS["ssl_small"]
    assert (small.epochs, small.crop_scale, small.image_size, small.unit_features) == (100, (0.2, 1.0), 224, True)
    with pytest.raises(DiscoZooError, match=r"states no rate for fine-tuning\. Give one, e\.g\. --lr 0\.01"):
        small.start_rates(1.0, None)
    assert tune(epochs=1, lr=0.5).protocol == "swav@1ep@batch8@lr0.5"
    with pytest.raises(UnknownName, match="Did you mean 'swav'"):
        finetune_protocol("swaw", SEMI_FINETUNE_PROTOCOLS)


def test_the_seed_alone_decides():
    backbone = Dropping()
    torch.manual_seed(1)
    first = tune(backbone, epochs=2, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = tune(backbone, epochs=2, seed=3, workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert dataclasses.replace(first, settings={}) == dataclasses.replace(second, settings={})


def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path: Path):
    torch.manual_seed(0)
    backbone = Dropping()
    whole = tune(copy.deepcopy(backbone), epochs=6)
    file = tmp_path / "state.pt"

    def cut(done: int, total: int) -> None:
        assert total == 6 * 36
        if done > 3 * 36 + 10:
            raise Stop

    with pytest.raises(Stop):
        tune(backbone, epochs=6, progress=cut, checkpoint=ProbeCheckpoint(file, resume=False))
    seen: list[int] = []
    again = tune(
        backbone, epochs=6, progress=lambda done, _: seen.append(done), checkpoint=ProbeCheckpoint(file, resume=True)
    )
    assert again == whole
    assert min(seen) > 3 * 36
    with pytest.raises(BadRunFolder, match=r"another probe \(seed differ\)"):
        tune(backbone, epochs=6, seed=1, checkpoint=ProbeCheckpoint(file, resume=True))


def test_a_single_image_left_over_is_skipped():
    train = ColorSource("train", [0, 1, 2] * 3)  # 9 = 8 + 1
    assert len(tune(train=train, epochs=2).top1_per_epoch) == 2


def test_bad_input_is_refused_before_any_work():
    class Untouchable(TinyNet):
        def forward(self, images):
            raise AssertionError("worked before checking")

    with pytest.raises(BadData, match="needs two classes"):
        tune(Untouchable(), train=ColorSource("train", [0, 0]), test=ColorSource("test", [0]))
    with pytest.raises(DiscoZooError, match="positive --lr"):
        tune(Untouchable(), lr=-1.0)


def test_divergence_names_the_epoch():
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 1\. Type a smaller --lr"):
        tune(lr=1e30, epochs=2)
