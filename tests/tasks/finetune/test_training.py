"""The training of a classifier: against a plain loop, what learns in it, and which epoch it keeps."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_makers import make_trainer, run_finetune, task_of, tensors_of, toy_data, toy_settings, train
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from tiny_runs import differences
from torch.nn import functional as F
from torchvision.transforms import v2

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadData, TrainingDiverged
from disco_zoo.tasks.finetune.run import LabeledData, finetune_into
from disco_zoo.tasks.finetune.start import build_optimizer, build_start, set_modes
from disco_zoo.tasks.finetune.task import FinetuneTask
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run import RunOptions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabeledData:
    return toy_data(tmp_path_factory.mktemp("toy"))


# --- against a plain loop ---


def plain_rates(network: Any, decay: float) -> dict[str, float]:
    """Each parameter's share of the rate, counted by hand: stem, blocks (conv_head is of the last), head."""
    blocks = [name for name, _ in network.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    depth = len(blocks) + 1
    shares = {}
    for name, _ in network.named_parameters():
        block = next((number for number, prefix in enumerate(blocks) if name.startswith(prefix + ".")), None)
        stem, last = name.startswith(("conv_stem", "bn1")), name.startswith(("conv_head", "bn2"))
        layer = 0 if stem else depth - 1 if last else depth if block is None else block + 1
        shares[name] = decay ** (depth - layer)
    return shares


def plain_training(settings: Any, data: LabeledData) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same training in plain PyTorch, written from the description alone."""
    network = build_start(settings, data.names).classifier.network
    shares = plain_rates(network, settings.layer_decay)
    groups = [
        {"params": [p], "weight_decay": settings.weight_decay if p.ndim > 1 else 0.0, "share": shares[name]}
        for name, p in network.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    look = v2.Compose([v2.Resize(37, antialias=True), v2.CenterCrop(32), v2.PILToTensor()])
    labels = torch.tensor(data.train.labels)
    weights = torch.tensor([len(labels) / (3 * int((labels == k).sum())) for k in range(3)])
    losses, per_epoch, total = [], 4, 8
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(26, generator=stream_generator("order", settings.seed, epoch))
        rows = torch.tensor_split(order, per_epoch)[place]
        images = torch.stack([look(data.train.image(int(i))) for i in rows]) / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        logs = F.log_softmax(network.train()((images - mean) / std), dim=1)
        smooth = torch.eye(3)[labels[rows]] * (1 - settings.label_smoothing) + settings.label_smoothing / 3
        loss = -(smooth * weights * logs).sum() / len(rows)
        warm = 0.25 * per_epoch * 2
        share = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * share * group["share"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network.state_dict(), losses


def test_training_equals_a_plain_loop(data: LabeledData, tmp_path: Path) -> None:
    settings = toy_settings(
        augment="none", layer_decay=0.5, class_weights="balanced", label_smoothing=0.2, lr=0.003, warmup=0.25
    )
    trainer = make_trainer(settings, data, tmp_path)
    begun = tensors_of(task_of(trainer).classifier)
    trainer.train()
    expected, losses = plain_training(settings, data)
    logged = [row["train_loss"] for row in read_metrics(tmp_path)]
    assert logged == pytest.approx(losses, rel=1e-4)
    found = tensors_of(task_of(trainer).classifier)
    assert found.keys() == expected.keys()
    # Not all tensors: Adam turns the rounding noise of gradients that are nearly zero into whole steps.
    for key in ("conv_stem.weight", "blocks.0.0.bn1.running_var", "conv_head.weight", "classifier.weight"):
        moved = (expected[key] - begun[key]).norm()
        assert (found[key] - expected[key]).norm() < 0.02 * moved, key


# --- which parameters learn, and how fast ---


@pytest.mark.parametrize("model", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_layer_decay_gives_the_head_the_full_rate_and_the_stem_the_least(model: str, data: LabeledData) -> None:
    settings = toy_settings(model, layer_decay=0.5).resolved(26)
    network: Any = build_start(settings, data.names).classifier.network
    optimizer = build_optimizer(network, settings)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert len(scale) == len([*network.parameters()])
    assert scale[id(network.get_classifier().weight)] == 1.0
    first = next(p for name, p in network.named_parameters() if p.ndim == 4)
    assert scale[id(first)] == min(scale.values()) < 0.1
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decay[id(p)] == 0 for p in network.parameters() if p.ndim <= 1)
    assert decay[id(network.get_classifier().weight)] == settings.weight_decay


@pytest.fixture(scope="module")
def classifier_folder(data: LabeledData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    run_finetune(toy_settings(), data, folder)
    return folder


def test_head_only_leaves_every_other_tensor_as_it_was(
    data: LabeledData, classifier_folder: Path, tmp_path: Path
) -> None:
    settings = toy_settings(str(classifier_folder), untrained=False, head_only=True, new_head=True)
    trainer = make_trainer(settings, data, tmp_path)
    before = tensors_of(task_of(trainer).classifier)
    trainer.train()
    after = tensors_of(task_of(trainer).classifier)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_batch_norm_eval_keeps_its_statistics_while_its_weights_learn(data: LabeledData, tmp_path: Path) -> None:
    trainer = make_trainer(toy_settings(batch_norm="eval"), data, tmp_path)
    before = tensors_of(task_of(trainer).classifier)
    trainer.train()
    after = tensors_of(task_of(trainer).classifier)
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert {key for key in before if "running" in key or "num_batches" in key} == same


def test_modes_are_set_again_after_an_evaluation(data: LabeledData) -> None:
    network: Any = build_start(toy_settings(), data.names).classifier.network
    network.eval()
    set_modes(network, toy_settings())
    assert all(module.training for module in network.modules())


def test_random_starts_and_heads_come_from_the_seed_alone(data: LabeledData) -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        return tensors_of(build_start(toy_settings(seed=seed), data.names).classifier)

    first = start(0)
    torch.manual_seed(77)
    assert differences(first, start(0)) == []
    other = start(1)
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert first["classifier.weight"].std().item() == pytest.approx(0.01, rel=0.15)
    assert first["classifier.bias"].abs().max() == 0


# --- learning ---


def test_it_learns_and_the_report_says_how_well(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "data", num_train=60, num_test=30)
    facts = run_finetune(toy_settings(epochs=6, lr=0.01), data, tmp_path / "run")
    assert facts["figures"]["top1"] > 80  # 33 by chance
    low, high = facts["figures"]["top1_interval"]
    assert low < facts["figures"]["top1"] <= high + 1e-9
    assert facts["measured_on"] == "test"
    matrix = torch.tensor(json.loads((tmp_path / "run/confusion.json").read_text())["rows_are_true"])
    assert matrix.sum() == 30
    assert 100 * matrix.trace().item() / 30 == pytest.approx(facts["figures"]["top1"])
    report = (tmp_path / "run/report.md").read_text()
    assert f"top-1 {facts['figures']['top1']:.2f} %" in report
    assert "60 training images, 3 classes by the column label, modes RGB 60" in report
    assert facts["look"]["train"]["images"] == 60
    assert {path.name for path in (tmp_path / "run/figures").iterdir()} == {"curves.png", "confusion.png"}


# --- which epoch is kept ---


class Told:
    """Scores that a test tells, instead of held-out images."""

    def __init__(self, top1: list[float]) -> None:
        self.top1, self.calls = top1, 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        from disco_zoo.tasks.finetune.scoring import Scores

        value = self.top1[self.calls]
        self.calls += 1
        return Scores(value, None, (0.0, 100.0), value, 1.0, torch.eye(3))


def test_best_epoch_is_kept_and_patience_stops(
    data: LabeledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told([10, 60, 50, 60, 40, 99])
    monkeypatch.setattr("disco_zoo.tasks.finetune.task.score", told)
    trainer = make_trainer(toy_settings(epochs=6, val_fraction=0.2, patience=3), data, tmp_path)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    judge = FinetuneTask._judge

    def note(self: FinetuneTask, held_out: Any) -> None:
        kept[told.calls + 1] = tensors_of(self.classifier)
        judge(self, held_out)

    monkeypatch.setattr(FinetuneTask, "_judge", note)
    trainer.train()
    assert task_of(trainer).position.stopped
    assert (task_of(trainer).position.best_epoch, told.calls) == (2, 5)  # an equal epoch is no better one
    assert differences(tensors_of(task_of(trainer).classifier), kept[2]) == []
    assert differences(tensors_of(task_of(trainer).classifier), kept[5]) != []


def test_test_images_choose_nothing(tmp_path: Path) -> None:
    """Without test images the same weights come out, and the figure says that it is optimistic."""
    data = toy_data(tmp_path / "data", num_train=40)
    settings = toy_settings(val_fraction=0.25)
    trained = train(settings, data, tmp_path / "with")
    run_finetune(settings, LabeledData(data.train, None, data.names), tmp_path / "without")
    assert (
        differences(load_file(tmp_path / "without/model/model.safetensors"), tensors_of(task_of(trained).classifier))
        == []
    )
    facts = json.loads((tmp_path / "without/run.json").read_text())
    assert facts["measured_on"] == "held-out"
    assert "optimistic" in (tmp_path / "without/report.md").read_text()


# --- what can go wrong ---


def test_diverged_loss_is_told_with_a_smaller_rate(data: LabeledData, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"--set lr=[0-9.e+]+ and another --out"):
        train(toy_settings(lr=1e30, warmup=0.0, epochs=5), data, tmp_path)


def test_unreadable_images_are_replaced_counted_and_listed(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "data", broken=(3, 7))
    facts = run_finetune(toy_settings(), data, tmp_path / "run")
    assert facts["unreadable_images"] == 2
    assert len((tmp_path / "run/unreadable_images.txt").read_text().splitlines()) == 2
    assert "2 training images could not be read" in (tmp_path / "run/report.md").read_text()


def test_unreadable_held_out_images_are_told(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "data")
    broken = toy_data(tmp_path / "broken", num_train=12, broken=(2,)).train
    facts = run_finetune(toy_settings(), LabeledData(data.train, broken, data.names), tmp_path / "run")
    assert facts["figures"]["num_images"] == 11
    assert "left out as unreadable: 1 test image" in (tmp_path / "run/report.md").read_text()


def test_too_many_unreadable_images_stop_the_run(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "data", broken=tuple(range(14)))
    with pytest.raises(
        BadData, match=r"1\d images are unreadable, 10 are tolerated. The list is in .*unreadable_images.txt"
    ):
        train(toy_settings(), data, tmp_path / "run")


def test_one_image_a_class_cannot_be_held_out_from(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "data", num_train=3)
    with pytest.raises(BadData, match="--set val_fraction=0"):
        finetune_into(toy_settings(val_fraction=0.5), data, tmp_path / "run", RunOptions())
