"""Counters of a step that runs on shapes alone: operations by torch's counter, bytes of live tensors by purpose.

FLOPs are those of student, EMA twin, teacher and loss apart; one multiply-add is two FLOPs.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


TEMPORARY, SAVED, GRADIENTS = "temporary", "activations", "gradients"


class LiveMemory(TorchDispatchMode):
    """Follows each storage from the operation that makes it to its end.

    What is not named by `own` is temporary, until autograd saves it for backward or makes it a parameter's gradient.

    Attributes:
        live: bytes alive by kind.
        peak: the same at the moment at which their sum was largest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        # Storages by identity: views of one share it.
        self._kinds: weakref.WeakKeyDictionary[torch.UntypedStorage, list[str]] = weakref.WeakKeyDictionary()

    def own(self, kind: str, tensors: Iterable[Tensor | None]) -> None:
        """Name what tensors are for; the first name stays, but for temporary ones."""
        for tensor in tensors:
            if tensor is not None:
                self._note(tensor, kind)

    @contextlib.contextmanager
    def of(self, method: nn.Module) -> Iterator[None]:
        """Also name what autograd saves and the gradients of the method's parameters."""

        def name_gradient(parameter: Tensor) -> None:
            self.own(GRADIENTS, [parameter.grad])

        def name_saved(tensor: Tensor) -> Tensor:
            self.own(SAVED, [tensor])
            return tensor.detach()  # of the tensor itself, an operation's output, the graph would hold its own end

        trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
        hooks = [parameter.register_post_accumulate_grad_hook(name_gradient) for parameter in trained]
        try:
            with torch.autograd.graph.saved_tensors_hooks(name_saved, lambda tensor: tensor), self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._note(result, TEMPORARY)
        return results

    def _note(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        size_bytes = storage.nbytes()
        known = self._kinds.get(storage)
        if known is None:
            known = self._kinds[storage] = [kind]
            self.live[kind] += size_bytes
            weakref.finalize(storage, self._forget, known, size_bytes)
            if self.live.total() > self.peak.total():
                self.peak = self.live.copy()
        elif kind == GRADIENTS or known[0] == TEMPORARY:
            self.live[known[0]] -= size_bytes
            known[0] = kind
            self.live[kind] += size_bytes

    def _forget(self, kind: list[str], size_bytes: int) -> None:
        self.live[kind[0]] -= size_bytes
