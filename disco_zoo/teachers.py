"""The frozen teacher, in one place.

A `Teacher` is deliberately not an `nn.Module`: the method that holds it cannot put it into train mode, move
it into a checkpoint, hand it to DDP or to the optimiser. DisCo's and BINGO's code did the first of these by
accident (`methods.md`, Q1).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from disco_zoo import lite0
from disco_zoo.encoder import Encoder, feature_dim_of
from disco_zoo.errors import BadTeacher, UnknownName, did_you_mean
from disco_zoo.official_checkpoints import load_moco_checkpoint
from disco_zoo.weights import sha256_of

BatchNormMode = Literal["eval", "train"]
# What run.json must say of a student that is to teach.
RUN_FACTS = {"model", "architecture", "sha256", "mean", "std", "image_size", "resize_size"}


@dataclass(frozen=True)
class LoadedTeacher:
    """What a source delivers: networks and where they come from.

    Attributes:
        title: for people, e.g. "EfficientNet-Lite0 (supervised, ImageNet)".
        supervised: whether labels trained it; None where a timm model does not say.
        sha256: of the weights file, None for a random or hub-cached timm model.
        queue: rows (K, D) of an official checkpoint's queue, None elsewhere.
        image_size, resize_size: in pixels, that a run folder's student was evaluated at; None elsewhere.
    """

    title: str
    backbone: nn.Module
    head: nn.Module
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    supervised: bool | None
    sha256: str | None = None
    queue: Tensor | None = None
    image_size: int | None = None
    resize_size: int | None = None


class Teacher:
    """A frozen network that turns shared views into targets.

    Args:
        loaded: networks from `load_teacher_source`.
        image_size: side in pixels the teacher looks at; may differ from the student's.
        features: "head" for the SSL embedding, "backbone" for pooled features; without a head, the same.
        bn_mode: "eval", or "train" to repeat the official code: targets then depend on the batch.
    """

    def __init__(
        self,
        loaded: LoadedTeacher,
        *,
        image_size: int,
        features: Literal["head", "backbone"] = "head",
        bn_mode: BatchNormMode = "eval",
        device: torch.device | str = "cpu",
    ) -> None:
        self.loaded, self.bn_mode = loaded, bn_mode
        head = loaded.head if features == "head" else nn.Identity()
        self.embed_dim = loaded.embed_dim if features == "head" else feature_dim_of(loaded.backbone)
        self.encoder = Encoder(
            loaded.backbone, head, image_size=image_size, mean=loaded.mean, std=loaded.std
        ).requires_grad_(False)
        self.encoder.train(bn_mode == "train").to(device)

    @property
    def title(self) -> str:
        return self.loaded.title

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """Un-normalised embeddings (b, D) of uint8 views (b, 3, S, S), without gradient."""
        return self.encoder.head(self.encoder.features(views)).detach()


def load_teacher_source(source: str, *, pretrained: bool = True) -> LoadedTeacher:
    """Load a teacher by what its source looks like.

    Args:
        source: `lite0`, a run folder of ours, a checkpoint file in MoCo's layout, or a timm name, also `hf-hub:`.
        pretrained: for a timm name only; False gives random weights.

    Raises:
        BadTeacher: the file or folder is missing, damaged or something else.
        UnknownName: no such timm model.
    """
    if source == "lite0":
        return _load_lite0()
    path = Path(source).expanduser()
    if path.is_dir():
        return _load_run_folder(path)
    if path.suffix in {".pth", ".tar", ".pt"} or path.is_file():
        return _load_moco(path)
    return _load_timm(source, pretrained)


def _load_lite0() -> LoadedTeacher:
    model = timm.create_model(lite0.TIMM_NAME)
    model.load_state_dict(lite0.timm_state_dict(), strict=True)
    model.reset_classifier(0)
    return LoadedTeacher(
        "EfficientNet-Lite0 (supervised, ImageNet)", model, nn.Identity(), feature_dim_of(model),
        lite0.MEAN, lite0.STD, supervised=True, sha256=lite0.SHA256,
    )  # fmt: skip


def _load_moco(path: Path) -> LoadedTeacher:
    official = load_moco_checkpoint(path)
    model = timm.create_model(official.architecture, num_classes=0)
    _load_strict(model, official.backbone, path.name)
    width, taken = feature_dim_of(model), official.head[0].in_features
    if width != taken:
        raise BadTeacher(f"{path.name}: its head takes {taken} features, {official.architecture} has {width}")
    return LoadedTeacher(
        f"{official.architecture} (MoCo-v2, {path.name})", model, official.head, official.embed_dim,
        timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD,
        supervised=False, sha256=sha256_of(path), queue=official.queue,
    )  # fmt: skip


def _load_run_folder(folder: Path) -> LoadedTeacher:
    """A student of ours as teacher: its backbone's features are the targets."""
    weights, facts = folder / "student.safetensors", folder / "run.json"
    if not weights.is_file() or not facts.is_file():
        raise BadTeacher(f"{folder} is no finished run folder: it needs run.json and student.safetensors")
    try:
        student: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))["student"]
        missing = RUN_FACTS - set(student)
    except (ValueError, LookupError, TypeError) as error:
        raise BadTeacher(f"{facts} does not describe a student. Repeat the run that wrote it") from error
    if missing:
        raise BadTeacher(f"{facts} does not say the student's {', '.join(sorted(missing))}")
    if sha256_of(weights) != student["sha256"]:
        raise BadTeacher(f"{weights} is not the file its run.json describes (sha256 differs)")
    model = _create(student["architecture"], pretrained=False)
    _load_strict(model, load_file(weights), str(weights))
    return LoadedTeacher(
        f"{student['model']} ({folder.name})", model, nn.Identity(), feature_dim_of(model),
        tuple(student["mean"]), tuple(student["std"]), supervised=False, sha256=student["sha256"],
        image_size=student["image_size"], resize_size=student["resize_size"],
    )  # fmt: skip


def _load_timm(name: str, pretrained: bool) -> LoadedTeacher:
    import disco_zoo.disco_students  # noqa: F401  our own students can teach, too

    if not name.startswith("hf-hub:") and not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], ["lite0", *timm.list_models()])
        raise UnknownName(f"teacher.source '{name}' is no file, run folder or timm model.{hint}")
    model = _create(name, pretrained=pretrained)
    cfg = model.pretrained_cfg
    weights = "pretrained" if pretrained else "random weights"
    return LoadedTeacher(
        f"{name} ({weights})", model, nn.Identity(), feature_dim_of(model),
        tuple(cfg["mean"]), tuple(cfg["std"]), supervised=None if pretrained else False,
    )  # fmt: skip


def _create(name: str, *, pretrained: bool) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (RuntimeError, OSError) as error:  # no such tag, no weights, or no network
        reason = " ".join(str(error).split())[:300]
        hint = " For random weights: --set teacher.pretrained=false" if pretrained else ""
        raise BadTeacher(f"teacher {name} cannot be loaded: {reason}{hint}") from error


def _load_strict(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        faults = " ".join(str(error).split())
        raise BadTeacher(f"{origin} does not fit {type(model).__name__}: {faults[:400]}") from error
