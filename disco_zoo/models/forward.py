"""The forward of a frozen backbone: a chunk of images a thread on a CPU, by PyTorch or an engine that agrees with it.

A few images at a time are one thread's, and as many such chunks are computed at once as PyTorch has threads: features
do not depend on the number of threads, and threads wait neither for each other, layer by layer, nor for what decodes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.console import console
from disco_zoo.core.process import give_back_free_memory
from disco_zoo.errors import DiscoZooError, first_line
from disco_zoo.models.encoder import pooled

Run = Callable[[Tensor], Tensor]
T = TypeVar("T")

SMALLEST_COSINE = 0.9999  # between an engine's features and PyTorch's, of the first images
LARGEST_DIFFERENCE = 1e-3  # as a share of the largest feature; ONNX Runtime's is about 1e-6
# Few images at a time keep activations in the processor's caches (benchmarks/embed_speed.py).
CHUNK_PIXELS = 4 * 224 * 224
LARGEST_CHUNK = 32  # images, however small
BATCHES_BETWEEN_RETURNS = 8  # of memory that malloc has free: 0.2 % of the time, at 64 px
CHUNKS_AHEAD = 2  # a thread, so that none waits while the next batch is read


class Forward:
    """Features float32 (B, D) of normalised images (B, 3, S, S), by an engine or by PyTorch.

    Call it inside of `frozen` of the same backbone. On a CPU, several threads call the backbone at once.

    Attributes:
        engine: what computes them, with its version: "torch", "onnxruntime 1.32.0". It becomes "torch" where the
            engine is dropped.
    """

    def __init__(self, backbone: nn.Module, image_size: int, engine: str = "torch", run: Run | None = None) -> None:
        self.backbone, self.engine, self._run = backbone, engine, run
        self._chunk = chunk_of(image_size)
        self._begun = False
        self._count = torch.get_num_threads()
        self._threads: ThreadPoolExecutor | None = None  # they start when they are needed

    @property
    def layout(self) -> torch.memory_format | None:
        """How images should lie in memory, see `transforms.eval.normalize`: engines read one channel after another."""
        return None if self._run is None else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch, on the CPU; those of the first images are compared with PyTorch's.

        Raises:
            DiscoZooError: the output is not (B, D), or not finite.
        """
        return _joined(self._begin(images))

    def stream(self, batches: Iterable[tuple[Tensor | None, T]]) -> Generator[tuple[Tensor | None, T], None, None]:
        """Features of batch after batch, on the CPU, with what comes beside it; None where there are no images.

        On a CPU the next batches are read while threads compute. Close it (`contextlib.closing`) where it may not
        be read to its end, so that no thread is at work any more when the backbone changes.

        Raises:
            DiscoZooError: the output is not (B, D), or not finite.
        """
        enough = CHUNKS_AHEAD * self._count
        waiting: deque[tuple[list[Future[Tensor]], T]] = deque()

        def first() -> tuple[Tensor | None, T]:
            parts, beside = waiting[0]
            rows = _joined(parts) if parts else None
            waiting.popleft()  # only now: who is interrupted above waits for them below
            return rows, beside

        try:
            for number, (images, beside) in enumerate(batches, 1):
                waiting.append(([] if images is None else self._begin(images), beside))
                while waiting and (_is_computed(waiting[0][0]) or _at_work(parts for parts, _ in waiting) >= enough):
                    yield first()
                if number % BATCHES_BETWEEN_RETURNS == 0:
                    give_back_free_memory()
            while waiting:
                yield first()
        finally:
            left = [part for parts, _ in waiting for part in parts]
            for part in left:
                part.cancel()
            wait(left)

    def _begin(self, images: Tensor) -> list[Future[Tensor]]:
        """The rows of each chunk of a batch, to be waited for."""
        if not self._begun and self._run is not None:
            self._compare(images[: self._chunk])
        parts = images.split(self._chunk) if self._is_split(images) else (images,)
        first = [] if self._begun else [self._submitted(parts[0])]
        wait(first)  # some networks fill caches of their own in their first forward
        self._begun = True
        return first + [self._submitted(part) for part in parts[len(first) :]]

    def _is_split(self, images: Tensor) -> bool:
        """Compiled networks and accelerators compute a batch at once."""
        compiled = self._run is None and getattr(self.backbone, "_compiled_call_impl", None) is not None
        return images.device.type == "cpu" and not compiled

    def _submitted(self, images: Tensor) -> Future[Tensor]:
        if self._count > 1 and self._is_split(images):
            if self._threads is None:
                self._threads = _threads_of_one(self._count)
            return self._threads.submit(self._rows, images)
        here: Future[Tensor] = Future()
        here.set_result(self._rows(images))
        return here

    @torch.no_grad()  # each thread has its own mode
    def _rows(self, images: Tensor) -> Tensor:
        if self._run is None:
            return pooled(self.backbone, images).cpu()
        rows = self._run(images)
        if not torch.isfinite(rows).all():
            raise DiscoZooError("The backbone's features are not finite: its weights are damaged or have diverged.")
        return rows

    def _compare(self, images: Tensor) -> None:
        assert self._run is not None
        if (fault := difference(self._run, images, pooled(self.backbone, images).cpu())) is not None:
            console.print(f"features by PyTorch: {self.engine} {fault}", soft_wrap=True)
            self.engine, self._run = "torch", None


def _threads_of_one(count: int) -> ThreadPoolExecutor:
    """Threads that compute by themselves; the number that others compute with stays."""

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread that has not asked takes the number that the process has then

    pool = ThreadPoolExecutor(count, initializer=start)
    all_there = threading.Barrier(count)
    list(pool.map(lambda _: all_there.wait(), range(count)))
    torch.set_num_threads(count)
    return pool


def _is_computed(parts: list[Future[Tensor]]) -> bool:
    return all(part.done() for part in parts)


def _at_work(batches: Iterable[list[Future[Tensor]]]) -> int:
    return sum(not part.done() for parts in batches for part in parts)


def _joined(parts: list[Future[Tensor]]) -> Tensor:
    wait(parts)  # all of them, also where one fails
    return torch.cat([part.result() for part in parts])


def chunk_of(image_size: int) -> int:
    """Images of a chunk: a power of two, so that batches split evenly."""
    return min(LARGEST_CHUNK, 1 << max(1, CHUNK_PIXELS // image_size**2).bit_length() - 1)


def difference(run: Run, images: Tensor, expected: Tensor) -> str | None:
    """How an engine's features differ from PyTorch's, in words; None where they agree."""
    try:
        rows = run(images)
    except Exception as error:  # each engine has its own
        return f"cannot run the network ({first_line(error)})"
    if rows.shape != expected.shape:
        return f"gives {tuple(rows.shape)} where PyTorch gives {tuple(expected.shape)}"
    cosine = F.cosine_similarity(rows.double(), expected.double(), eps=1e-30).min().item()
    relative = ((rows - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    both_zero = not rows.any() and not expected.any()
    if both_zero or (cosine >= SMALLEST_COSINE and relative <= LARGEST_DIFFERENCE):  # false for what is no number
        return None
    return f"differs from it (smallest cosine {cosine:.4f}, largest difference {relative:.0e} of the largest feature)"
