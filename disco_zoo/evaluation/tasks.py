"""The four evaluations that `disco-zoo evaluate` offers, each from a subject to its figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from disco_zoo.core.console import StepProgress
from disco_zoo.errors import BadRunFolder, DiscoZooError, UnknownName, did_you_mean
from disco_zoo.evaluation.evaluation import Evaluation
from disco_zoo.evaluation.few_labels import few_labels, listed
from disco_zoo.evaluation.knn import knn_accuracies
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.finetune_sgd import check_finetuning, finetune_probe
from disco_zoo.evaluation.probes.linear import check_probe_options, linear_probe
from disco_zoo.evaluation.probes.logistic import check_can_hold_out
from disco_zoo.evaluation.probes.settings import LinearResult
from disco_zoo.evaluation.subject import Subject
from disco_zoo.protocols.finetune import (
    SEMI_FINETUNE_PROTOCOLS,
    TRANSFER_FINETUNE_PROTOCOLS,
    FinetuneProtocol,
    finetune_protocol,
)
from disco_zoo.protocols.knn import KnnProtocol
from disco_zoo.protocols.linear import (
    DEFAULT_BATCH_SIZE,
    LINEAR_PROTOCOLS,
    SEMI_PROTOCOLS,
    TRANSFER_PROTOCOLS,
    LinearProtocol,
    bingo_protocol,
    linear_protocol,
)

Mode = Literal["frozen", "finetune"]
Protocol = LinearProtocol | FinetuneProtocol

_FINETUNE: Mapping[str, Mapping[str, FinetuneProtocol]] = {
    "linear": {},
    "semi": SEMI_FINETUNE_PROTOCOLS,
    "transfer": TRANSFER_FINETUNE_PROTOCOLS,
}
_FROZEN: Mapping[str, Mapping[str, LinearProtocol]] = {
    "linear": LINEAR_PROTOCOLS,
    "semi": SEMI_PROTOCOLS,
    "transfer": TRANSFER_PROTOCOLS,
}


@dataclass(frozen=True)
class ProbeOptions:
    """A user's options of a probe besides its protocol.

    Attributes:
        epochs, lrs, batch_size: instead of the protocol's; of several rates the best is reported.
        checkpoint: where a long probe keeps its state.
        crops: of SGD on a frozen backbone: views of each image, whose features are kept; None for new ones each epoch.
    """

    epochs: int | None = None
    lrs: tuple[float, ...] = ()
    batch_size: int = DEFAULT_BATCH_SIZE
    seed: int = 0
    checkpoint: ProbeCheckpoint | None = None
    crops: int | None = None


def choose_protocol(task: str, name: str | None, mode: Mode | None) -> Protocol:
    """The preset of a task; a name that exists in one mode alone decides the mode.

    Raises:
        UnknownName: there is none of this name.
        DiscoZooError: it does not exist in this mode.
    """
    frozen, finetune = _FROZEN[task], _FINETUNE[task]
    if name is None:
        name = next(iter(finetune)) if mode == "finetune" else "fast"
    if mode == "finetune" and name in frozen and name not in finetune:
        raise DiscoZooError(f"The protocol {name} keeps the backbone frozen. To fine-tune: {', '.join(finetune)}.")
    if mode == "frozen" and name in finetune and name not in frozen:
        raise DiscoZooError(f"The protocol {name} fine-tunes. With a frozen backbone: {', '.join(frozen)}.")
    if mode == "finetune" or (name in finetune and name not in frozen):
        return finetune_protocol(name, finetune)
    if name not in frozen:
        known = dict.fromkeys([*frozen, *finetune])
        raise UnknownName(f"No such protocol: '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return frozen[name]


def measure_knn(subject: Subject, protocol: KnnProtocol, seed: int = 0) -> Evaluation:
    """kNN for all k of the protocol, in one pass over the features."""
    started = time.perf_counter()
    train, test = subject.features(subject.bench.train), subject.features(subject.bench.test)
    with StepProgress("neighbours", len(test)) as progress:
        found = knn_accuracies(
            train.features, train.truth, test.features, test.truth, protocol=protocol, progress=progress.update
        )
    details: dict[str, Any] = {"source": protocol.source, "metric": protocol.metric, "vote": protocol.vote}
    details |= {"temperature": protocol.temperature, "ks": list(protocol.ks), "engine": train.engine}
    shown = {f"knn{k}": scores for k, scores in found.items()}
    if protocol.best_of_ks:
        best = max(found, key=lambda k: (found[k][0], -k))
        shown = {"knn_best": found[best]}
        details |= {"best_k": best, "top1_by_k": {str(k): top1 for k, (top1, _) in found.items()}}
    figures = {f"{name}_top1": top1 for name, (top1, _) in shown.items()}
    figures |= {f"{name}_top5": top5 for name, (_, top5) in shown.items() if top5 is not None}
    return Evaluation(
        "knn",
        protocol.name,
        f"{protocol.label()}, {_sizes(subject)}",
        subject,
        figures,
        len(test),
        seed,
        time.perf_counter() - started,
        details,
        train.unreadable + test.unreadable,
    )


def measure_linear(subject: Subject, name: str, options: ProbeOptions) -> Evaluation:
    """A linear probe by a protocol of `LINEAR_PROTOCOLS`; `bingo` is the one of BINGO's two for this network."""
    protocol = linear_protocol(bingo_protocol(subject.backbone) if name == "bingo" else name)
    return _measure(subject, protocol, options, "linear", "linear probe", "linear", 1.0)


def measure_semi(
    subject: Subject, protocol: Protocol, options: ProbeOptions, *, fraction: float, list_file: Path | None
) -> Evaluation:
    """A frozen or fine-tuned backbone with part of the labels; the two are never one protocol.

    Args:
        fraction: share of the labels, classes in turn, drawn by the seed.
        list_file: names of the images instead.
    """
    everything = subject.bench.train
    train = listed(everything, list_file) if list_file else few_labels(everything, fraction, options.seed)
    share = len(train) / len(everything)
    percent = f"{100 * share if list_file else 100 * fraction:.3g}"
    part = f"{len(train)} labels of {list_file.name}" if list_file else f"{percent} % of the labels, class-balanced"
    mode = _mode(protocol)
    return _measure(
        subject.with_train(train),
        protocol,
        options,
        "semi",
        f"semi-supervised {mode}, {part}",
        f"semi{percent.replace('.', '_')}_{mode}",
        share,
    )


def measure_transfer(subject: Subject, protocol: Protocol, options: ProbeOptions) -> Evaluation:
    """A linear or a fine-tuned classifier on data that the backbone was not pretrained on."""
    mode = _mode(protocol)
    return _measure(subject, protocol, options, "transfer", f"transfer {mode}", f"transfer_{mode}", 1.0)


def _measure(
    subject: Subject,
    protocol: Protocol,
    options: ProbeOptions,
    task: str,
    title: str,
    metric: str,
    share: float,
) -> Evaluation:
    started = time.perf_counter()
    check_options(protocol, options, share)
    _check_engine(subject, protocol)
    subject.bench.check(ks=())  # a part of the labels may lack a class
    if isinstance(protocol, LinearProtocol) and protocol.solver == "lbfgs":
        check_can_hold_out(subject.bench.train.labels or [], subject.bench.train.class_names)
    if subject.is_look and options.epochs is None and protocol.epochs:
        options = replace(options, epochs=1)
    with StepProgress(title, 1) as progress:
        result = _probe(subject, protocol, options, share, progress)
    num_scored = len(subject.bench.test) - len(result.unreadable)
    details: dict[str, Any] = {"source": protocol.source, "mode": _mode(protocol), "best_epoch": result.best_epoch}
    details |= {"top1_per_epoch": result.top1_per_epoch, "top1_per_epoch_by_lr": result.top1_per_epoch_by_lr}
    return Evaluation(
        task,
        result.protocol,
        f"{title}: {result.protocol}, {_sizes(subject)}",
        replace(subject, std=tuple(result.settings["std"])),  # SwAV's protocol rounds ImageNet's
        _figures(result, metric),
        num_scored,
        options.seed,
        time.perf_counter() - started,
        details | {"settings": result.settings},
        result.unreadable,
    )


def _check_engine(subject: Subject, protocol: Protocol) -> None:
    if subject.engine in ("auto", "torch") or (isinstance(protocol, LinearProtocol) and protocol.solver == "lbfgs"):
        return
    raise DiscoZooError(
        f"--engine {subject.engine} computes features once, and {protocol.name} asks the network at each step. "
        "Leave --engine out, or type: --protocol fast"
    )


def transfer_sizes(
    protocol: Protocol, image_size: int | None, resize_size: int | None
) -> tuple[int | None, int | None]:
    """Crop and shorter side in pixels: the papers bring the whole image to the crop's size; None for the model's."""
    if protocol.image_size is None:
        return image_size, resize_size
    image_size = image_size or protocol.image_size
    return image_size, resize_size or image_size


def check_options(protocol: Protocol, options: ProbeOptions, share: float = 1.0) -> None:
    """Refuse what a protocol cannot do.

    Raises:
        DiscoZooError: see `check_probe_options` and `check_finetuning`; or several rates for fine-tuning.
    """
    if options.batch_size < 2:
        raise DiscoZooError(
            f"A step needs two images, not {options.batch_size}. Leave the batch size out for {DEFAULT_BATCH_SIZE}."
        )
    if isinstance(protocol, LinearProtocol):
        if protocol.solver == "lbfgs" and options.checkpoint is not None and options.checkpoint.resume:
            raise BadRunFolder(
                f"{options.checkpoint.path} is of a probe that was stopped, and the protocol {protocol.name} goes on "
                "with none. Choose another --out, or name that probe's --protocol"
            )
        check_probe_options(protocol, options.epochs, options.lrs, options.crops)
        return
    if options.crops is not None:
        raise DiscoZooError("Fine-tuning changes the backbone, so no features can be kept. Leave --crops out.")
    if len(options.lrs) > 1:
        raise DiscoZooError("Fine-tuning runs with one --lr at a time. Repeat the command for the others.")
    check_finetuning(protocol, share, next(iter(options.lrs), None), options.epochs)


def _probe(
    subject: Subject, protocol: Protocol, options: ProbeOptions, share: float, progress: StepProgress
) -> LinearResult:
    bench = subject.bench
    common: dict[str, Any] = {
        "image_size": bench.image_size,
        "resize_size": subject.resize_size,
        "mean": subject.mean,
        "std": subject.std,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "seed": options.seed,
        "device": bench.device,
        "workers": bench.workers,
        "progress": progress.update,
        "checkpoint": options.checkpoint,
    }
    parts = (subject.backbone, subject.feature_dim, bench.train, bench.test)
    if isinstance(protocol, LinearProtocol):
        common |= {"engine": subject.engine, "crops": options.crops}
        return linear_probe(*parts, protocol=protocol, base_lrs=options.lrs, **common)
    return finetune_probe(*parts, protocol=protocol, share=share, lr=next(iter(options.lrs), None), **common)


def _figures(result: LinearResult, metric: str) -> dict[str, float]:
    """Best and last epoch apart, where there are epochs."""
    found = {"top1": result.top1, "top5": result.top5}
    if result.best_epoch is not None:
        found |= {"last_top1": result.last_top1, "last_top5": result.last_top5}
    return {f"{metric}_{name}": value for name, value in found.items() if value is not None}


def _mode(protocol: Protocol) -> Mode:
    return "frozen" if isinstance(protocol, LinearProtocol) else "finetune"


def _sizes(subject: Subject) -> str:
    return f"{subject.bench.image_size} px of {subject.resize_size}"
