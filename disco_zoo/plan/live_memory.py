"""Bytes of all live tensors by purpose, and the peak of their sum."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
