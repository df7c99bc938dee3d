"""Learning rates at points where they are known, and what the optimisers are given."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import timm
import torch
from tiny import TinyNet, optim_section

from disco_zoo.training.optim import build_optimizer, lr_at, restore_optimizer


def rates(num_steps: int, **changes) -> list[float]:
    section = optim_section(**changes)
    return [lr_at(step, peak_lr=0.06, steps_per_epoch=10, optim=section) for step in range(num_steps)]


def test_cosine_epoch_is_constant_within_an_epoch_and_the_papers_curve_over_epochs() -> None:
    found = rates(100, schedule="cosine_epoch", epochs=10)
    for epoch in range(10):
        expected = 0.06 * 0.5 * (1 + math.cos(math.pi * epoch / 10))
        assert found[epoch * 10 : epoch * 10 + 10] == [pytest.approx(expected, rel=1e-12)] * 10
    assert found[50] == pytest.approx(0.03)


def test_cosine_step_follows_the_same_curve_step_by_step() -> None:
    found = rates(101, schedule="cosine_step", epochs=10)
    for step, share in (
        (0, 1.0),
        (25, 0.5 + 0.5 * math.sqrt(0.5)),
        (50, 0.5),
        (75, 0.5 - 0.5 * math.sqrt(0.5)),
        (100, 0),
    ):
        assert found[step] == pytest.approx(0.06 * share, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(found))


def test_warm_up_is_linear_and_its_length_is_taken_off_the_cosine() -> None:
    found = rates(101, schedule="cosine_step", epochs=10, warmup_epochs=2.0)
    assert found[:20] == pytest.approx([0.06 * (step + 1) / 20 for step in range(20)])
    assert found[20] == pytest.approx(0.06)
    assert found[60] == pytest.approx(0.03)
    assert found[100] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0.01, 0.15, 0.25, 1.56])
def test_warm_up_of_a_fraction_of_steps_never_exceeds_the_peak(warmup_epochs: float) -> None:
    found = rates(30, warmup_epochs=warmup_epochs)
    assert max(found) == 0.06
    assert found[math.ceil(warmup_epochs * 10) :] == [0.06] * (30 - math.ceil(warmup_epochs * 10))
    assert all(a <= b for a, b in itertools.pairwise(found))


def test_constant_stays() -> None:
    assert rates(100) == [0.06] * 100


def test_warm_up_can_start_at_a_share_of_the_peak_as_swavs_does() -> None:
    """SwAV's teacher: 0.3 to 4.8 over 10 epochs, both ends included, then a cosine down to 0.0048 (spec 2.9)."""
    section = optim_section(
        schedule="cosine_step", epochs=800, warmup_epochs=10.0, warmup_start_fraction=0.3 / 4.8, final_lr_fraction=1e-3
    )
    found = [lr_at(step, peak_lr=4.8, steps_per_epoch=7, optim=section) for step in range(800 * 7 + 1)]
    assert found[:70] == pytest.approx(torch.linspace(0.3, 4.8, 70, dtype=torch.float64).tolist(), rel=1e-12)
    assert found[70] == 4.8
    assert found[70 + 395 * 7] == pytest.approx((4.8 + 0.0048) / 2, rel=1e-12)
    assert found[-1] == pytest.approx(0.0048, rel=1e-12)


@pytest.mark.parametrize(("warmup_epochs", "expected"), [(0.05, [0.3, 1.0]), (0.1, [0.3, 1.0]), (0.15, [0.3, 1.0])])
def test_warm_up_of_hardly_a_step_starts_at_its_share_too(warmup_epochs: float, expected: list[float]) -> None:
    section = optim_section(warmup_epochs=warmup_epochs, warmup_start_fraction=0.3)
    assert [lr_at(step, peak_lr=1.0, steps_per_epoch=10, optim=section) for step in range(2)] == expected


def test_cosine_can_end_above_zero() -> None:
    """SwAV's students: 0.6 to 6e-4, by steps; with whole epochs the curve is the same at each epoch's start."""
    found = rates(101, schedule="cosine_step", epochs=10, final_lr_fraction=1e-3)
    for step in (0, 17, 50, 100):
        expected = 6e-5 + 0.5 * (0.06 - 6e-5) * (1 + math.cos(math.pi * step / 100))
        assert found[step] == pytest.approx(expected, rel=1e-12)
    by_epoch = rates(100, schedule="cosine_epoch", epochs=10, final_lr_fraction=1e-3)
    assert by_epoch == pytest.approx([found[step // 10 * 10] for step in range(100)], rel=1e-12)


def test_cosines_restart_at_their_share_and_end_at_the_same_floor() -> None:
    """Until the first restart as a run that ends there; after it half a cosine from its share (SGDR, equation 5)."""
    whole = {"schedule": "cosine_step", "warmup_epochs": 1.0, "final_lr_fraction": 0.01}
    found = rates(80, epochs=8, restarts={4: 0.5, 6: 0.25}, **whole)
    assert found[:40] == rates(40, epochs=4, **whole)
    for first, length, share in ((40, 20, 0.5), (60, 20, 0.25)):
        for step in range(length):
            cosine = 0.5 * (1 + math.cos(math.pi * step / length))
            assert found[first + step] == pytest.approx(0.06 * (0.01 + (share - 0.01) * cosine), rel=1e-12)
    by_epoch = rates(80, epochs=8, restarts={4: 0.5, 6: 0.25}, **whole | {"schedule": "cosine_epoch"})
    assert by_epoch[10:] == pytest.approx([found[step // 10 * 10] for step in range(10, 80)], rel=1e-12)


def test_multistep_multiplies_once_for_each_milestone_passed() -> None:
    """CompRess: x 0.2 after 90 and 120 finished epochs (spec 1.4)."""
    section = optim_section(schedule="multistep", epochs=130, milestones_epochs=(90, 120), gamma=0.2)
    found = [lr_at(step, peak_lr=0.01, steps_per_epoch=3, optim=section) for step in range(130 * 3)]
    assert found == pytest.approx([0.01] * 270 + [0.002] * 90 + [0.0004] * 30, rel=1e-12)


def test_multistep_counts_epochs_from_the_start_and_not_from_the_warm_up() -> None:
    found = rates(40, schedule="multistep", epochs=4, milestones_epochs=(2, 3), gamma=0.1, warmup_epochs=1.0)
    assert found[9] == found[19] == pytest.approx(0.06)
    assert [found[20], found[30]] == pytest.approx([0.006, 0.0006])


@pytest.mark.parametrize("batch_size", [16, 256, 512])
def test_seeds_official_schedule_is_quirk_q10(batch_size: int) -> None:
    """From the unscaled rate in five steps of an epoch, then the cosine of the absolute epoch (spec 5)."""
    section = optim_section(schedule="seed_official", base_lr=0.03, batch_size=batch_size, epochs=200)
    scaled = 0.03 * batch_size / 256
    found = [lr_at(step, peak_lr=scaled, steps_per_epoch=2, optim=section) for step in range(400)]
    for step, rate in enumerate(found):
        epoch = step // 2
        expected = (
            0.03 + (0.03 * batch_size / 256 - 0.03) / 5 * epoch
            if epoch < 5
            else 0.5 * scaled * (1 + math.cos(math.pi * epoch / 200))
        )
        assert rate == pytest.approx(expected, rel=1e-12), step
    assert found[0] == 0.03
    assert (found[0] > scaled) == (batch_size < 256)


def test_sgd_is_the_papers_update_on_every_trainable_parameter() -> None:
    torch.manual_seed(0)
    net = TinyNet()
    net.bn.bias.requires_grad_(False)
    section = optim_section(momentum=0.9, weight_decay=0.1)
    optimizer = build_optimizer(net.parameters(), section, 0.5)
    assert len(optimizer.param_groups[0]["params"]) == 2
    expected, velocity = net.conv.weight.detach().clone(), torch.zeros_like(net.conv.weight)
    for _ in range(3):
        optimizer.zero_grad()
        (net.conv.weight**2).sum().backward()
        velocity = 0.9 * velocity + 2 * expected + 0.1 * expected
        expected = expected - 0.5 * velocity
        optimizer.step()
    assert torch.allclose(net.conv.weight, expected, rtol=1e-5)


def channels_last_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_efficientnet", num_classes=0).to(memory_format=torch.channels_last).train()


def gradients_of_a_step(net: torch.nn.Module, step: int) -> None:
    """A real backward pass, which decides how gradients lie in memory."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
    net(images).square().mean().backward()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_fused_step_is_the_plain_one_for_channels_last_networks(name: str) -> None:
    """The fused kernels walk through memory: with gradients laid out otherwise they would be far off."""
    net = channels_last_net()
    copies = [parameter.detach().clone().requires_grad_() for parameter in net.parameters()]
    section = optim_section(optimizer=name, weight_decay=0.1)
    optimizer = build_optimizer(net.parameters(), section, 0.01)
    assert optimizer.param_groups[0]["fused"]
    options = {"lr": 0.01, "weight_decay": 0.1, "foreach": False}
    plain = torch.optim.AdamW(copies, **options)
    if name == "sgd":
        plain = torch.optim.SGD(copies, momentum=0.9, **options)
    for step in range(3):
        optimizer.zero_grad()
        gradients_of_a_step(net, step)
        for parameter, kept in zip(net.parameters(), copies, strict=True):
            kept.grad = parameter.grad.clone()
        optimizer.step()
        plain.step()
        for parameter, kept in zip(net.parameters(), copies, strict=True):
            torch.testing.assert_close(parameter, kept, rtol=1e-5, atol=1e-7)


def test_mixed_precision_that_skips_steps_is_not_fused() -> None:
    for name in ("sgd", "adamw"):
        optimizer = build_optimizer(TinyNet().parameters(), optim_section(optimizer=name, precision="fp16"), 0.1)
        assert not optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_tensor_may_get_its_first_gradient_late(name: str) -> None:
    """As SwAV's prototypes; it then starts as it would have on its own."""
    first, late, alone = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    section = optim_section(optimizer=name, weight_decay=0.1)
    optimizer, other = build_optimizer([first, late], section, 0.1), build_optimizer([alone], section, 0.1)
    for step in range(4):
        first.grad = torch.full((3,), 1.0 + step)
        late.grad = None if step < 2 else torch.full((3,), 2.0 + step)
        optimizer.step()
        if step == 1:
            assert torch.equal(late, torch.ones(3))
        if step >= 2:
            alone.grad = late.grad.clone()
            other.step()
    torch.testing.assert_close(late, alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_goes_on_in_a_network_of_another_memory_format(name: str) -> None:
    """The rule for channels-last depends on the device; a checkpoint does not."""
    section = optim_section(optimizer=name, weight_decay=0.1)
    before = channels_last_net()
    optimizer = build_optimizer(before.parameters(), section, 0.01)
    gradients_of_a_step(before, 0)
    optimizer.step()
    after = copy.deepcopy(before).to(memory_format=torch.contiguous_format)
    resumed = build_optimizer(after.parameters(), section, 0.01)
    restore_optimizer(resumed, copy.deepcopy(optimizer.state_dict()))
    optimizer.zero_grad()
    gradients_of_a_step(before, 1)
    for expected, parameter in zip(before.parameters(), after.parameters(), strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(expected.grad)
    optimizer.step()
    resumed.step()
    for expected, parameter in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-8)


def test_a_checkpoint_of_an_unfused_run_goes_on_unfused() -> None:
    net = TinyNet()
    old = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer = build_optimizer(net.parameters(), optim_section(), 0.1)
    restore_optimizer(optimizer, old.state_dict())
    assert not optimizer.param_groups[0]["fused"]
    net(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()


def test_adamw_takes_rate_and_decay_from_the_recipe() -> None:
    optimizer = build_optimizer(TinyNet().parameters(), optim_section(optimizer="adamw", weight_decay=0.1), 0.5)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.1)


class Reference:
    """LARC or LARS of single tensors, written from the formulas in `build_optimizer`'s documentation."""

    def __init__(
        self, tensors: list[torch.Tensor], *, momentum: float, weight_decay: float, spare_vectors: bool
    ) -> None:
        self.tensors = [tensor.detach().clone() for tensor in tensors]
        self.velocities = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.momentum, self.weight_decay, self.spare_vectors = momentum, weight_decay, spare_vectors

    def step(self, gradients: list[torch.Tensor], lr: float) -> None:
        for number, gradient in enumerate(gradients):
            tensor = self.tensors[number]
            if not (self.spare_vectors and tensor.ndim <= 1):
                size, slope = tensor.pow(2).sum().sqrt().item(), gradient.pow(2).sum().sqrt().item()
                trust = 1e-3 * size / (slope + self.weight_decay * size + 1e-8) if size > 0 and slope > 0 else 1.0
                gradient = trust * (gradient + self.weight_decay * tensor)
            self.velocities[number] = self.momentum * self.velocities[number] + gradient
            self.tensors[number] = tensor - lr * self.velocities[number]


def tensors_of_every_kind() -> list[torch.nn.Parameter]:
    """A convolution, a matrix, a bias of zeros (whose norm is 0 at first), a scale and a temperature, in fp64."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 3, 3, 3), (5, 4)]
    matrices = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    vectors = [torch.zeros(4), torch.ones(4), torch.tensor(2.0)]
    return [torch.nn.Parameter(tensor.double()) for tensor in [*matrices, *vectors]]


def large_and_small_gradients(tensors: list[torch.nn.Parameter], step: int) -> list[torch.Tensor]:
    """Small enough for a trust ratio above the rate (which clipping would cut), and large ones."""
    generator = torch.Generator().manual_seed(step)
    scale = 1e-4 if step % 2 else 30.0
    return [scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in tensors]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "spare_vectors"), [("larc", False), ("lars", True)])
def test_larc_and_lars_are_their_formulas(name: str, spare_vectors: bool, weight_decay: float) -> None:
    tensors = tensors_of_every_kind()
    section = optim_section(optimizer=name, momentum=0.9, weight_decay=weight_decay)
    reference = Reference(tensors, momentum=0.9, weight_decay=weight_decay, spare_vectors=spare_vectors)
    optimizer = build_optimizer(tensors, section, 0.6)
    for step in range(6):
        lr = 0.6 / (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients = large_and_small_gradients(tensors, step)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient.clone()
        reference.step(gradients, lr)
        optimizer.step()
        for tensor, expected in zip(tensors, reference.tensors, strict=True):
            assert torch.allclose(tensor, expected, rtol=1e-10, atol=1e-14), (step, tensor.shape)


def test_larc_adapts_every_tensor_and_lars_only_those_of_two_dimensions_and_more() -> None:
    tensors = tensors_of_every_kind()
    tensors[1].requires_grad_(False)
    (larc,) = build_optimizer(tensors, optim_section(optimizer="larc", weight_decay=0.1), 0.6).param_groups
    assert [p.ndim for p in larc["params"]] == [4, 1, 1, 0]
    adapted, plain = build_optimizer(tensors, optim_section(optimizer="lars", weight_decay=0.1), 0.6).param_groups
    assert [p.ndim for p in adapted["params"]] == [4]
    assert [p.ndim for p in plain["params"]] == [1, 1, 0]
    assert (adapted["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    (only,) = build_optimizer(tensors[2:], optim_section(optimizer="lars"), 0.6).param_groups
    assert len(only["params"]) == 3


def test_larc_leaves_a_tensor_without_a_gradient_alone() -> None:
    """As SwAV's prototypes while they are frozen: neither decay nor momentum moves them."""
    tensors = tensors_of_every_kind()
    optimizer = build_optimizer(tensors, optim_section(optimizer="larc", momentum=0.9, weight_decay=0.1), 0.6)
    for step in range(2):
        for tensor, gradient in zip(tensors, large_and_small_gradients(tensors, step), strict=True):
            tensor.grad = gradient
        if step:
            before, tensors[0].grad = tensors[0].detach().clone(), None
        optimizer.step()
    assert torch.equal(tensors[0], before)


@pytest.mark.parametrize("name", ["larc", "lars"])
def test_a_resumed_lars_goes_on_to_the_bit(name: str) -> None:
    section = optim_section(optimizer=name, momentum=0.9, weight_decay=0.1)
    straight, resumed = tensors_of_every_kind(), tensors_of_every_kind()
    first = build_optimizer(straight, section, 0.6)
    second = build_optimizer(resumed, section, 0.6)
    for step in range(4):
        if step == 2:
            state, second = second.state_dict(), build_optimizer(resumed, section, 0.1)
            restore_optimizer(second, state)
        for tensors, optimizer in ((straight, first), (resumed, second)):
            for tensor, gradient in zip(tensors, large_and_small_gradients(tensors, step), strict=True):
                tensor.grad = gradient
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
