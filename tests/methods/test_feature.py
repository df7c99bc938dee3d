"""Feature distillation: running statistics, adapter, whole steps, and timm's vision transformers as teachers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64, plain_loop, raw, same_weights, taught
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn

from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.feature import FeatureDistillation, mlp
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.modules.standardize import RunningStandardizer


def make_method(**options: Any) -> FeatureDistillation:
    torch.manual_seed(9)
    return FeatureDistillation(tiny_encoder(), tiny_teacher(), EMBED_DIM, **options)


def batches_of_rows(number: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [scale * (torch.randn(6, 4, generator=generator) * 3 + step) for step in range(number)]


def test_statistics_are_those_of_all_rows_while_the_average_is_young() -> None:
    standardise, batches = RunningStandardizer(4, momentum=0.99), batches_of_rows(20)
    for batch in batches:
        standardise.update(batch)
    joint = torch.cat(batches)
    assert torch.allclose(standardise.mean, joint.mean(dim=0), atol=1e-4)
    assert torch.allclose(standardise.variance, joint.var(dim=0, unbiased=False), rtol=1e-4)
    found = standardise(joint)
    assert found.mean(dim=0).abs().max() < 1e-3
    assert (found.var(dim=0, unbiased=False) - 1).abs().max() < 1e-3


def test_statistics_are_those_of_an_exponential_mixture_afterwards() -> None:
    standardise, batches = RunningStandardizer(4, momentum=0.75), batches_of_rows(12)
    weights = torch.tensor([1.0])
    for step, batch in enumerate(batches):
        standardise.update(batch)
        new = max(1 / (step + 1), 0.25)
        weights = torch.cat([weights * (1 - new), torch.tensor([new])]) if step else weights
    rows, per_row = torch.cat(batches), (weights / 6).repeat_interleave(6)[:, None]
    mean = (per_row * rows).sum(dim=0)
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(standardise.mean, mean, atol=1e-4)
    assert torch.allclose(standardise.variance, (per_row * (rows - mean) ** 2).sum(dim=0), rtol=1e-4)


def test_dead_dimensions_stay_small_and_the_scale_of_all_does_not_matter() -> None:
    found = []
    for scale in (1e-3, 1.0, 1e3):
        batch = batches_of_rows(1, scale)[0]
        batch[:, 1] = scale * 1e-6 * torch.arange(6)
        standardise = RunningStandardizer(4, momentum=0.9)
        standardise.update(batch)
        found.append(standardise(batch))
    assert found[1][:, 1].abs().max() < 1e-3
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert torch.allclose(found[2], found[1], atol=1e-4)
    constant = RunningStandardizer(2, momentum=0.9)
    constant.update(torch.ones(3, 2))
    assert torch.equal(constant(torch.ones(3, 2)), torch.zeros(3, 2))


def test_statistics_are_saved_and_go_on_where_they_were() -> None:
    first, second = RunningStandardizer(4, momentum=0.9), RunningStandardizer(4, momentum=0.9)
    batches = batches_of_rows(4)
    for batch in batches[:3]:
        first.update(batch)
    second.load_state_dict(first.state_dict())
    for standardise in (first, second):
        standardise.update(batches[3])
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])


@pytest.mark.parametrize(("layers", "widths"), [(1, [(3, 7)]), (2, [(3, 5), (5, 7)]), (3, [(3, 5), (5, 5), (5, 7)])])
def test_adapter(layers: int, widths: list[tuple[int, int]]) -> None:
    adapter = mlp(3, 5, 7, layers)
    linear = [part for part in adapter if isinstance(part, nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linear] == widths
    assert len(adapter) == 2 * layers - 1
    assert isinstance(adapter[-1], nn.Linear)
    rows = torch.randn(2, 3)
    expected = rows
    for number, part in enumerate(linear):
        expected = nn.functional.gelu(expected) if number else expected
        expected = expected @ part.weight.T + part.bias
    assert torch.allclose(adapter(rows), expected, atol=1e-6)


def test_five_training_steps_equal_an_independent_loop() -> None:
    method = in_float64(make_method(adapter_hidden_dim=5, standardise_momentum=0.6))
    batches, seen = [views[:1] for views in view_batches(5)], []
    encoder = method.teacher.encoder
    before = backbone_fingerprint(encoder)

    def loss_of(query: nn.ModuleList, views: list[Tensor]) -> Tensor:
        targets = taught(encoder, views[0], unit=False)
        seen.append(targets)
        weights = [1.0]
        for step in range(1, len(seen)):
            new = max(1 / (step + 1), 0.4)
            weights = [w * (1 - new) for w in weights] + [new]
        mean = sum(w * rows.mean(dim=0) for w, rows in zip(weights, seen, strict=True))
        variance = sum(w * ((rows - mean) ** 2).mean(dim=0) for w, rows in zip(weights, seen, strict=True))
        wanted = (targets - mean) / (variance + 1e-4 * variance.mean()).sqrt()
        own = query[2](raw(query[0], query[1], views[0]))
        cosines = [(s @ t) / (s.norm() * t.norm()) for s, t in zip(own, wanted, strict=True)]
        return 1 - sum(cosines) / len(cosines)

    parts = [method.student.backbone, method.student.head, method.adapter]
    losses, query = plain_loop(parts, batches, loss_of)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-9)
    assert same_weights(parts, query, atol=1e-9)
    assert backbone_fingerprint(encoder) == before
    assert not any(module.training for module in encoder.modules())


def test_every_trained_parameter_has_a_gradient_and_the_teacher_is_not_among_them() -> None:
    method = make_method()
    method.train()(Batch([view_batches(1)[0][0]], torch.arange(4)))["loss"].backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert {key.split(".")[0] for key in method.state_dict()} == {"student", "adapter", "standardise"}


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_a_vision_transformer_teaches_a_small_network(name: str) -> None:
    torch.manual_seed(0)
    teacher = Teacher(load_teacher_source(name, pretrained=False), image_size=160)
    method = FeatureDistillation(tiny_encoder(), teacher, EMBED_DIM)
    assert method.adapter[-1].out_features == teacher.embed_dim == 64
    view = torch.zeros(4, 3, 160, 160, dtype=torch.uint8)
    for number in range(3):  # red, green, blue and black
        view[number, number] = 255
    losses = [record["loss"] for record in train(method, [[view]] * 40)]
    assert losses[0] > 0.8
    assert losses[-1] < 0.4


def test_no_teacher_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        FeatureDistillation(tiny_encoder(), None, EMBED_DIM)
