"""From the cost of a step to the hours of a run, with and without a teacher cache."""

from __future__ import annotations

from dataclasses import dataclass

from disco_zoo.plan.counters import Flops

CACHE_BYTES_A_NUMBER = 2  # fp16
CACHE_BYTES_A_VIEW = 4  # its checksum


@dataclass(frozen=True)
class Work:
    """The amounts of work that hours are computed from.

    Attributes:
        images: of an epoch.
        flops: of a step of all devices, the teacher's included where it takes part in steps.
        teacher_in_steps: False without a teacher, or where the method computes all targets before training.
        teacher_views: of an image that go through the teacher in a step, where it takes part.
        teacher_view_flops: one forward of the teacher.
        student_slowdown, teacher_slowdown: how many times less of a device's peak they reach than a dense network.
        views_before: teacher forwards that the method asks for before training: bags, features of its own.
        images_drawn: for each image of a step; 2 where it comes with a companion.
    """

    images: int
    steps: int
    epochs: int
    batch_size: int
    devices: int
    flops: Flops
    teacher_in_steps: bool
    teacher_views: float
    teacher_view_flops: float
    views_before: int
    images_drawn: int = 1
    student_slowdown: float = 1.0
    teacher_slowdown: float = 1.0


@dataclass(frozen=True)
class Speed:
    """Seconds of a step without and with the cache, and of a teacher's forward of one view, over all devices."""

    step_seconds: float
    cached_step_seconds: float | None
    teacher_view_seconds: float


@dataclass(frozen=True)
class CachePlan:
    """A cache of `views` big views of each image.

    Attributes:
        slots: views of each image in it, the small crops that go with the big ones included.
        epochs: that pass until each view has been seen once.
        size_bytes: on disk.
        build_flops: of the teacher's one pass over them.
        even_forwards_epochs: after so many epochs the teacher has been run as often without the cache.
    """

    views: int
    slots: int
    epochs: float
    size_bytes: int
    build_flops: float
    even_forwards_epochs: float


@dataclass(frozen=True)
class RunHours:
    """Seconds on all devices together, as the clock on the wall counts them.

    Attributes:
        network_seconds: of a step, where no network waits for data.
        step_seconds: the same, or the loaders' where they are slower.
        before_seconds: teacher forwards before the first step: those of the cache, those of the method.
    """

    network_seconds: float
    step_seconds: float
    before_seconds: float
    total_seconds: float

    def wanted_images_per_s(self, batch_size: int) -> float:
        """That loaders must deliver for no network to wait."""
        return batch_size / self.network_seconds


def cache_plan(work: Work, views: int, target_width: int, *, num_views: int, num_small: int = 0) -> CachePlan:
    """Of `views` big views of each image, of which a step takes `num_views` and, with them, `num_small` small crops."""
    epochs = views / num_views
    slots = round(views + epochs * num_small)
    size_bytes = work.images * slots * (target_width * CACHE_BYTES_A_NUMBER + CACHE_BYTES_A_VIEW)
    build_flops = work.images * slots * work.teacher_view_flops
    return CachePlan(views, slots, epochs, size_bytes, build_flops, slots / work.teacher_views)


def speed_of_device(work: Work, tflops: float, utilisation: float) -> Speed:
    """From FLOPs alone: dense networks do `utilisation` of `tflops` on each device."""
    per_second, flops = work.devices * tflops * 1e12 * utilisation, work.flops
    student = (flops.student_forward + flops.student_backward + flops.twin) * work.student_slowdown
    cached = (student + flops.loss) / per_second
    teacher = flops.teacher * work.teacher_slowdown / per_second
    return Speed(cached + teacher, cached, work.teacher_view_flops * work.teacher_slowdown / per_second)


def speed_of_steps(work: Work, plain: float, replayed: float | None) -> Speed:
    """From timed steps of one device; the others are taken to be as fast and to cost nothing to join.

    The teacher's forward is what a plain step takes longer than one that replays what it said.
    """
    if replayed is None:
        return Speed(plain, None, 0.0)
    teacher = max(0.0, plain - replayed) / (work.batch_size * work.teacher_views)
    return Speed(plain if work.teacher_in_steps else replayed, replayed, teacher)


def hours(work: Work, speed: Speed, cache: CachePlan | None = None, loader_seconds: float = 0.0) -> RunHours:
    """Of a run.

    Args:
        loader_seconds: that loaders take for an image of a step and its companion, all cores together; 0 where they
            never limit. A cache holds views of each image alone.
    """
    network = speed.step_seconds
    before = work.views_before * speed.teacher_view_seconds
    if cache is not None:
        assert speed.cached_step_seconds is not None
        network = speed.cached_step_seconds
        drawing = cache.epochs * loader_seconds / work.images_drawn
        before += work.images * max(cache.slots * speed.teacher_view_seconds, drawing)
    step = max(network, work.batch_size * loader_seconds)
    return RunHours(network, step, before, before + work.steps * step)


def break_even_epochs(work: Work, plain: RunHours, cached: RunHours) -> float | None:
    """After so many epochs a cache has saved the time that its build took; None where an epoch is no faster with it."""
    saved_seconds = (plain.step_seconds - cached.step_seconds) * work.steps / work.epochs
    return (cached.before_seconds - plain.before_seconds) / saved_seconds if saved_seconds > 0 else None
