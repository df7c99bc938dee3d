"""FLOPs of a step by torch's counter, for student, EMA twin, teacher and loss apart. One multiply-add is two FLOPs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from disco_zoo.models.encoder import Encoder

aten = torch.ops.aten


@dataclass(frozen=True)
class Flops:
    """FLOPs of one step; the loss has the remainder: logits against queues, prototypes, adapters."""

    student_forward: int = 0
    student_backward: int = 0
    twin: int = 0
    teacher: int = 0
    loss: int = 0

    @property
    def total(self) -> int:
        return self.student_forward + self.student_backward + self.twin + self.teacher + self.loss

    def times(self, factor: float) -> Flops:
        return Flops(**{name: round(value * factor) for name, value in vars(self).items()})

    def __add__(self, other: Flops) -> Flops:
        return Flops(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def _convolution_backward(
    grad_shape: list[int], x_shape: list[int], w_shape: list[int], *args: Any, out_shape: Any, **kwargs: Any
) -> int:
    """A forward's FLOPs for each gradient that is wanted, that of the input and that of the weight.

    torch's own formula leaves out the groups: it counts a depthwise layer's backward as many times too dear as the
    layer has channels.
    """
    transposed, output_mask = args[4], args[7]
    positions = prod((x_shape if transposed else grad_shape)[2:])
    return 2 * grad_shape[0] * positions * prod(w_shape) * sum(output_mask[:2])


def _attention(q: list[int], k: list[int], v: list[int], *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(
    grad: list[int], q: list[int], k: list[int], v: list[int], *args: Any, out_shape: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


CORRECTIONS = {
    aten.convolution_backward: _convolution_backward,
    # The CPU's attention kernel, which the counter does not know.
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class StepFlops:
    """Counts while it is entered: what runs inside an encoder is that encoder's, all else the loss's.

    The student's backward begins where the first gradient reaches one of its embeddings: autograd works backwards,
    and the loss comes after the embeddings.
    """

    def __init__(self, student: Encoder, twins: Iterable[Encoder], teacher: Encoder | None) -> None:
        self.counter = FlopCounterMode(display=False, custom_mapping=CORRECTIONS)
        self.found = {"student": 0, "twin": 0, "teacher": 0}
        self.teacher_rows = 0  # images that went through the teacher
        self._student_backward_from: int | None = None
        self._hooks: list[Any] = []
        self._entered: list[int] = []
        for name, encoders in (("student", [student]), ("twin", [*twins]), ("teacher", [teacher] if teacher else [])):
            for encoder in encoders:
                for part in (encoder.backbone, encoder.head):
                    self._watch(name, part)
        if teacher is not None:
            self._hooks.append(teacher.backbone.register_forward_pre_hook(self._count_rows))
        self._hooks.append(student.head.register_forward_hook(self._watch_gradient))

    def __enter__(self) -> StepFlops:
        self.counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.counter.__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def result(self) -> Flops:
        total = self.counter.get_total_flops()
        backward = 0 if self._student_backward_from is None else total - self._student_backward_from
        parts = self.found["student"], backward, self.found["twin"], self.found["teacher"]
        return Flops(*parts, loss=total - sum(parts))

    def _watch(self, name: str, part: nn.Module) -> None:
        def enter(*_: Any) -> None:
            self._entered.append(self.counter.get_total_flops())

        def leave(*_: Any) -> None:
            self.found[name] += self.counter.get_total_flops() - self._entered.pop()

        self._hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]

    def _count_rows(self, _: nn.Module, images: tuple[Tensor, ...]) -> None:
        self.teacher_rows += len(images[0])

    def _watch_gradient(self, _: nn.Module, __: Any, embeddings: Tensor) -> None:
        if embeddings.requires_grad:
            embeddings.register_hook(self._arrived)

    def _arrived(self, _: Tensor) -> None:
        if self._student_backward_from is None:
            self._student_backward_from = self.counter.get_total_flops()
