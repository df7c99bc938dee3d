"""What one step of a recipe costs: the training step itself, run on shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.plan.counters import GRADIENTS, Flops, LiveMemory, StepFlops
from disco_zoo.plan.stand_ins import build_weightless, drop_numbers, shapes_only
from disco_zoo.training.build import Parts, count_parameters
from disco_zoo.training.calibration import take_step
from disco_zoo.training.optim import build_optimizer
from disco_zoo.training.step_settings import autocast, checkpoint_gradients, recipes_by_size
from disco_zoo.transforms.view_dataset import small_size_of


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; `other` is what the method trains beside the student: adapters, prototypes."""

    student: int
    twin: int
    teacher: int
    other: int


@dataclass(frozen=True)
class StepCost:
    """Of one micro-batch of one process, forward and backward, and the optimiser's step after it.

    Attributes:
        peak_bytes: of tensors by kind, at the moment at which their sum is largest.
        teacher_views: views of an image that go through the teacher.
        target_width: width of the teacher's embedding of a view.
        student_is_depthwise, teacher_is_depthwise: whether there are depthwise convolutions, which GPUs are slow at.
    """

    flops: Flops
    parameters: Parameters
    peak_bytes: Counter[str]
    teacher_views: float
    target_width: int
    student_is_depthwise: bool
    teacher_is_depthwise: bool


def mean_step_cost(recipe: Recipe, source: ImageSource, images: int) -> StepCost:
    """What `step_cost` counts, as a mean over the run where the student's image size changes; memory is the largest."""
    costs = [(step_cost(one, source, images), share) for one, share in recipes_by_size(recipe, len(source))]
    largest = max((cost for cost, _ in costs), key=lambda cost: sum(cost.peak_bytes.values()))
    return replace(largest, flops=sum((cost.flops.times(share) for cost, share in costs), Flops()))


def step_cost(recipe: Recipe, source: ImageSource, images: int) -> StepCost:
    """Build the recipe's networks without weights and take a step on shapes, as every one after the first is.

    Args:
        recipe: from `without_weights`.
        source: only its length matters, for memories with a row an image.
        images: of the forward: one process's share of a micro-batch.
    """
    parts = build_weightless(recipe, source, "meta")
    teacher = parts.teacher.encoder if parts.teacher else None
    twins = twins_of(parts.method)
    if recipe.student.gradient_checkpointing:
        checkpoint_gradients(parts.student.backbone, recipe.student.model)
    with shapes_only():
        drop_numbers(parts.method, *([teacher] if teacher else []))
        batch = empty_batch(recipe, parts, images)
        optimizer = build_optimizer(parts.method.parameters(), recipe.optim, recipe.lr)
        _make_state(optimizer)
        memory = LiveMemory()
        if recipe.optim.accumulation_steps > 1:  # micro-batches after the first meet the gradients of those before
            memory.own(GRADIENTS, (parameter.grad for parameter in parts.method.parameters()))
        else:
            optimizer.zero_grad()
        _name_what_stays(memory, parts, twins, optimizer, batch)
        with memory.of(parts.method), StepFlops(parts.student, twins, teacher) as counted:
            take_step(parts.method, optimizer, [batch], precision=autocast(recipe, "cpu"))
        flops = counted.result()
    memory.peak["teacher"] += _folded_bytes(parts.teacher) if parts.teacher else 0
    return StepCost(
        flops,
        _parameters(parts, twins),
        memory.peak,
        counted.teacher_rows / images,
        parts.teacher.embed_dim if parts.teacher else 0,
        _is_depthwise(parts.student),
        teacher is not None and _is_depthwise(teacher),
    )


def _folded_bytes(teacher: Teacher) -> int:
    """Of the weights that a frozen teacher has twice, as loaded and with BatchNorm folded into them.

    Which layers precede a BatchNorm shows in a forward of numbers; here all convolutions of a network that has one
    are taken to.
    """
    modules = list(teacher.encoder.modules())
    if teacher.bn_mode == "train" or not any(isinstance(module, _BatchNorm) for module in modules):
        return 0
    return sum(module.weight.nbytes for module in modules if isinstance(module, nn.Conv2d))


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """Momenta and the like, which the first step makes, and gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def empty_batch(recipe: Recipe, parts: Parts, images: int) -> Batch:
    """Black views of so many images."""
    sides = [recipe.view_size] * parts.method.num_views
    sides += [small_size_of(recipe.views, recipe.view_size)] * recipe.views["small_views"]
    sides *= 2 if parts.method.takes_companions else 1
    views = [torch.zeros(images, 3, side, side, dtype=torch.uint8) for side in sides]
    return Batch(views, torch.arange(images))


def twins_of(method: Method) -> list[Encoder]:
    """Encoders of the method that are not its student: EMA copies."""
    return [module for module in method.modules() if isinstance(module, Encoder) and module is not method.student]


def _is_depthwise(network: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in network.modules())


def _parameters(parts: Parts, twins: Iterable[Encoder]) -> Parameters:
    student, twin = count_parameters(parts.student), sum(map(count_parameters, twins))
    teacher = count_parameters(parts.teacher.encoder) if parts.teacher else 0
    return Parameters(student, twin, teacher, count_parameters(parts.method) - student - twin)


def _name_what_stays(
    memory: LiveMemory, parts: Parts, twins: Iterable[Encoder], optimizer: torch.optim.Optimizer, batch: Batch
) -> None:
    """Name what is alive when a step begins."""
    memory.own("student", _tensors(parts.student))
    for twin in twins:
        memory.own("twin", _tensors(twin))
    if parts.teacher is not None:
        memory.own("teacher", _tensors(parts.teacher.encoder))
    memory.own("method", _tensors(parts.method))
    memory.own(
        "optimiser",
        (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)),
    )
    memory.own("views", batch.views)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
