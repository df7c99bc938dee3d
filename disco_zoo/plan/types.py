"""The options and the figures of a plan, with the peak memory of one process among them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from disco_zoo.config.recipe import Recipe
from disco_zoo.plan.calibration import StepSeconds
from disco_zoo.plan.counters import GRADIENTS, SAVED, TEMPORARY, Flops
from disco_zoo.plan.data_facts import DataFacts, ViewCost
from disco_zoo.plan.device_speeds import DEFAULT_UTILIZATION
from disco_zoo.plan.hours import (
    CachePlan,
    RunHours,
    Work,
    break_even_epochs,
)
from disco_zoo.plan.step_cost import Parameters, StepCost

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


@dataclass(frozen=True)
class PlanOptions:
    """A user's options beside the recipe.

    Attributes:
        calibrate_steps: time so many steps; None for none.
        device_tflops: a number or a name of `DEVICE_SPEEDS`; None for no hours from it.
        cores: that draw views; None for as many as it takes.
        device: where to calibrate.
    """

    data: str | None = None
    images: int | None = None
    devices: int = 1
    calibrate_steps: int | None = None
    device_tflops: str | None = None
    utilisation: float = DEFAULT_UTILIZATION
    cores: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Plan:
    """All figures of a plan; sizes in bytes, times in seconds.

    Attributes:
        flops: of a step over all devices.
        cache: None without a teacher whose targets could be cached.
        hours, cached_hours: None without a calibration or a device's speed.
        assumptions: what the figures rest on, a sentence each.
    """

    recipe: Recipe
    options: PlanOptions
    facts: DataFacts
    work: Work
    parameters: Parameters
    flops: Flops
    memory: PredictedMemory
    target_width: int
    cache: CachePlan | None
    packed_bytes_per_image: float
    view_cost: ViewCost
    calibration: StepSeconds | None = None
    hours: RunHours | None = None
    cached_hours: RunHours | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def cores(self) -> tuple[float | None, float | None]:
        """That loaders need for no network to wait, without and with the cache."""
        return self._cores(self.hours), self._cores(self.cached_hours)

    @property
    def break_even_epochs(self) -> float | None:
        """Until a cache has saved what its build took; None where it never does, and without `cached_hours`."""
        if self.hours is None or self.cached_hours is None:
            return None
        return break_even_epochs(self.work, self.hours, self.cached_hours)

    @property
    def cache_pays(self) -> bool:
        """Whether that is before the run's end."""
        epochs = self.break_even_epochs
        return epochs is not None and epochs <= self.recipe.optim.epochs * (1 + 1e-9)

    def _cores(self, run: RunHours | None) -> float | None:
        if run is None:
            return None
        return run.wanted_images_per_s(self.work.batch_size) * self.view_cost.seconds_per_image

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        # Not `dataclasses.asdict` of all: it would copy the recipe and the data.
        shown = {key: value for key, value in vars(self).items() if key not in ("recipe", "facts")}
        figures = {
            key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for key, value in shown.items()
        }
        without, cached = self.cores
        return {
            "recipe": self.recipe.name,
            "images": self.facts.images,
            "distinct_images": self.facts.distinct_images,
            "images_said_by": self.facts.said_by,
            "data_is_real": self.facts.is_real,
            "flops_total": self.flops.total * self.work.steps,
            "packed_bytes": self.packed_bytes_per_image * self.facts.distinct_images,
            "loader_cores": without,
            "loader_cores_cached": cached,
            "break_even_epochs": self.break_even_epochs,
            **figures,
        }
