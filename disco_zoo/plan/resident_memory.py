"""Peak memory of one process: of its tensors, counted, and on a CPU of the whole process, predicted."""

from __future__ import annotations

from dataclasses import dataclass

from disco_zoo.plan.live_memory import GRADIENTS, SAVED, TEMPORARY
from disco_zoo.plan.step_cost import StepCost

# The resident peak above the interpreter over the tensors' peak, on Linux with glibc: eleven trainings of ResNets,
# EfficientNet-B0, MobileNetV3 and ViT-Tiny had these factors (benchmarks/plan_memory.py). All but 1.03 to 1.10 of it is
# what malloc keeps between blocks that are in use; the rest are the scratch buffers and compiled kernels of oneDNN.
CPU_ALLOCATOR_FACTOR, MEASURED_FACTORS = 1.2, (1.07, 1.44)
KINDS = {
    "student": "student, with its buffers",
    "twin": "EMA twin",
    "teacher": "teacher",
    GRADIENTS: "gradients",
    "optimiser": "optimiser state",
    "method": "queues, memories, adapters",
    "views": "views of one batch",
    SAVED: "activations saved for backward",
    TEMPORARY: "temporary",
    "buckets": "buckets of gradients (DDP)",
}


@dataclass(frozen=True)
class PredictedMemory:
    """Of one process.

    Attributes:
        parts_bytes: at the peak, by kind (`KINDS`).
        tensors_bytes: their sum: what a GPU's allocator is asked for, without cuDNN's workspace.
        resident_bytes: of a process on a CPU, above what the interpreter with all imports has.
    """

    parts_bytes: dict[str, int]
    tensors_bytes: int
    resident_bytes: float


def predict_memory(cost: StepCost, devices: int) -> PredictedMemory:
    """From the counted peak; DDP keeps a copy of all gradients in its buckets."""
    parts = {kind: cost.peak_bytes[kind] for kind in KINDS if cost.peak_bytes[kind]}
    if devices > 1:
        parts["buckets"] = 4 * (cost.parameters.student + cost.parameters.other)
    total = sum(parts.values())
    return PredictedMemory(parts, total, CPU_ALLOCATOR_FACTOR * total)
