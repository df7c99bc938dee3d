"""A model measured on labelled images by a protocol of the papers: `disco_zoo.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from disco_zoo.core.launcher import chosen_device, default_workers
from disco_zoo.errors import DiscoZooError, UnknownName, did_you_mean
from disco_zoo.evaluation.evaluation import Evaluation
from disco_zoo.evaluation.subject import load_subject
from disco_zoo.evaluation.tasks import (
    ProbeOptions,
    check_options,
    choose_protocol,
    measure_knn,
    measure_linear,
    measure_semi,
    measure_transfer,
    transfer_sizes,
)
from disco_zoo.models.engine import EngineName
from disco_zoo.protocols.knn import knn_protocol
from disco_zoo.protocols.linear import DEFAULT_BATCH_SIZE, linear_protocol

Task = Literal["knn", "linear", "semi", "transfer"]
TASKS = ("knn", "linear", "semi", "transfer")
# Options that only some tasks have.
TASKS_OF_OPTION = {
    "mode": ("semi", "transfer"),
    "fraction": ("semi",),
    "ks": ("knn",),
    **dict.fromkeys(("epochs", "lrs", "batch_size", "crops"), ("linear", "semi", "transfer")),
}
DEFAULT_FRACTION = 0.01


def evaluate(
    model: str,
    data: str,
    task: Task = "knn",
    protocol: str | None = None,
    *,
    eval_data: str | None = None,
    mode: Literal["frozen", "finetune"] | None = None,
    fraction: float | None = None,
    ks: Sequence[int] = (),
    epochs: int | None = None,
    lrs: Sequence[float] = (),
    batch_size: int | None = None,
    crops: int | None = None,
    image_size: int | None = None,
    resize_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    engine: EngineName = "torch",
) -> Evaluation:
    """Measure a model on labelled images.

    Args:
        model: a zoo or timm name, a run folder, a teacher, or an authors' file.
        data: labelled images; `eval_data` has the test images, None for the test split beside `data`.
        task: "knn", "linear" (a probe), "semi" (few labels) or "transfer" (other data).
        protocol: a preset of the task; None for "default" of knn, else "fast".
        mode: of semi and transfer: a frozen backbone, or fine-tuning; None for what the protocol does.
        fraction: of semi: share of the labels, classes in turn; None for 0.01.
        ks: of knn: numbers of neighbors; () for the protocol's.
        epochs, lrs: of probes, instead of the protocol's; several rates are a sweep.
        batch_size: of probes; None for 256.
        crops: of probes by SGD on a frozen backbone: views of each image; None for new ones in each epoch.
        image_size, resize_size: crop and shorter side before it, in pixels; None for the model's.
        engine: of knn and fast: what computes the features: "torch", "onnxruntime", "openvino", or "auto".

    Returns:
        Figures in percent by metric, with 95 % intervals and all that fixes the protocol.

    Raises:
        DiscoZooError: the task has no such option; its children say what is wrong with model, data or options.
    """
    if task not in TASKS:
        raise UnknownName(f"No such task: '{task}'.{did_you_mean(task, TASKS)} Known: {', '.join(TASKS)}.")
    given = {"mode": mode, "fraction": fraction, "ks": ks, "epochs": epochs, "lrs": lrs, "batch_size": batch_size}
    given |= {"crops": crops}
    _require_fitting(task, given)
    fraction = DEFAULT_FRACTION if fraction is None else fraction
    batch_size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    options = ProbeOptions(epochs, tuple(dict.fromkeys(lrs)), batch_size, seed, crops=crops)
    nearest = knn_protocol(protocol or "default", ks=tuple(ks), temperature=None) if task == "knn" else None
    probe = choose_protocol(task, protocol, mode) if task in ("semi", "transfer") else None
    if task == "linear" and protocol not in (None, "bingo"):
        linear_protocol(protocol)  # reports an unknown one before anything is loaded
    if probe is not None:
        check_options(probe, options, fraction if task == "semi" else 1.0)
        if task == "transfer":
            image_size, resize_size = transfer_sizes(probe, image_size, resize_size)
    subject = load_subject(
        model=model,
        data=data,
        eval_data=eval_data,
        ks=nearest.ks if nearest else (),
        seed=seed,
        image_size=image_size,
        resize_size=resize_size,
        device=chosen_device(device),
        workers=default_workers() if workers is None else workers,
        engine=engine,
    )
    if nearest is not None:
        return measure_knn(subject, nearest, seed)
    if probe is None:
        return measure_linear(subject, protocol or "fast", options)
    if task == "semi":
        return measure_semi(subject, probe, options, fraction=fraction, list_file=None)
    return measure_transfer(subject, probe, options)


def _require_fitting(task: Task, given: Mapping[str, Any]) -> None:
    """Refuse an option that the task would ignore.

    Raises:
        DiscoZooError: names the option and the tasks that have it.
    """
    for name, value in given.items():
        if value not in (None, (), []) and task not in TASKS_OF_OPTION[name]:
            tasks = " or ".join(f'"{other}"' for other in TASKS_OF_OPTION[name])
            raise DiscoZooError(f'{name} belongs to task={tasks}, not "{task}". Leave {name} out, or change the task.')
