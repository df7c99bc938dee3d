"""A classifier as a folder in timm's Hub format: what timm loads and `hf upload` publishes, and nothing that can run.

README.md            how to load it, its classes and figures
config.json          architecture, label_names and input for timm; our facts under a root key that timm ignores
model.safetensors    all tensors, the head's included
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from disco_zoo.core.files import failed_writes_as, read_fault, scratch_folder
from disco_zoo.errors import BadCheckpoint, BadRunFolder, DiscoZooError, counted, shown
from disco_zoo.models.encoder import frozen

CARD, CONFIG, WEIGHTS = "README.md", "config.json", "model.safetensors"
MODEL_FOLDER = "model"  # of a run folder
_CFG_KEYS = set(PretrainedCfg.__dataclass_fields__)


@dataclass(frozen=True)
class Classifier:
    """A network with a head, and how it wants its input.

    Attributes:
        network: maps normalised images (B, 3, S, S) to scores (B, K); a timm model.
        label_names: K names in the order of the scores; numbers where the folder has none.
        mean, std: of the input, for RGB in 0..1.
        image_size, resize_size: crop and shorter side before it, in pixels.
    """

    network: nn.Module
    label_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    resize_size: int


def find_classifier_folder(path: Path) -> Path | None:
    """The folder itself, or the one of a fine-tuning's run folder; None for anything else, also without a head."""
    folder = _timm_folder(path)
    return None if folder is None or _is_headless(folder) else folder


def find_backbone_folder(path: Path) -> Path | None:
    """A folder in timm's Hub format without a head, as `disco-zoo publish` writes it; None for anything else."""
    folder = _timm_folder(path)
    return folder if folder is not None and _is_headless(folder) else None


def _timm_folder(path: Path) -> Path | None:
    for folder in (path / MODEL_FOLDER, path):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    return None


def _is_headless(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return bool(config.get("num_classes", config["pretrained_cfg"].get("num_classes")) == 0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # who reads it says what is wrong
        return False


def write_classifier(
    folder: Path, classifier: Classifier, *, facts: Mapping[str, Any], card: str, description: str
) -> None:
    """Write the folder, replacing a former one, once a network built from it alone gives the same scores.

    Raises:
        BadRunFolder: no room or no permission.
        RuntimeError: the folder does not give the same scores: a bug of ours or of timm's, not the user's.
    """
    config = _config(classifier, facts, description)
    with (
        failed_writes_as(BadRunFolder, f"cannot write {folder}", "Make room, then add --resume"),
        scratch_folder(folder.parent, folder.name) as scratch,
    ):
        partial = scratch / folder.name
        partial.mkdir()
        tensors = {key: value.detach().cpu().contiguous() for key, value in classifier.network.state_dict().items()}
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
        (partial / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / CARD).write_text(card, encoding="utf-8")
        _require_same_scores(partial, classifier)
        if folder.exists():  # out of the way by a rename: at no moment is half a folder there
            folder.rename(scratch / "former")
        partial.rename(folder)


def read_classifier(folder: Path, *, headless: bool = False) -> Classifier:
    """Load a classifier from a folder in timm's Hub format, strictly; what a newer timm wrote into it is passed over.

    Args:
        headless: the folder may be without a head; then there are no names.

    Raises:
        BadCheckpoint: config.json or the weights are damaged, or do not belong together.
    """
    name = shown(str(folder))
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        cfg, architecture = dict(config["pretrained_cfg"]), str(config["architecture"])
        num_classes = int(config.get("num_classes", cfg.get("num_classes", 0)))
        labels = config.get("label_names") or cfg.get("label_names") or range(num_classes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{name}/{CONFIG} does not describe a timm model") from error
    if not timm.is_model(architecture):
        raise BadCheckpoint(f"{name} is of the network {shown(architecture)}, which timm does not have")
    if num_classes < (0 if headless else 1) or len(labels) != num_classes:
        raise BadCheckpoint(f"{name}/{CONFIG} says {counted(num_classes, 'class')} and names {len(labels)}")
    cfg = {key: value for key, value in cfg.items() if key in _CFG_KEYS}
    cfg |= {"num_classes": num_classes, "architecture": architecture}
    network = _build(architecture, cfg, config.get("model_args") or {}, name)
    _load_strictly(network, folder / WEIGHTS)
    data = timm.data.resolve_model_data_config(network)
    size = int(data["input_size"][-1])
    return Classifier(
        network,
        tuple(map(str, labels.values() if isinstance(labels, dict) else labels)),
        tuple(data["mean"]),
        tuple(data["std"]),
        size,
        math.floor(size / data["crop_pct"]),
    )


def _build(architecture: str, cfg: Mapping[str, Any], model_args: Mapping[str, Any], name: str) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(
            architecture, pretrained=False, pretrained_cfg=dict(cfg), num_classes=cfg["num_classes"], **model_args
        )
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise BadCheckpoint(
            f"{name}/{CONFIG} does not fit {architecture}: {' '.join(str(error).split())[:200]}"
        ) from error
    return network


def _load_strictly(network: nn.Module, path: Path) -> None:
    name = shown(str(path))
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        raise BadCheckpoint(f"{name} {read_fault(error, 'is damaged, or no safetensors file')}") from error
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise BadCheckpoint(f"{name} does not fit its {CONFIG}: {' '.join(str(error).split())[:200]}") from error
    bad = next(
        (key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()), None
    )
    if bad is not None:
        raise BadCheckpoint(f"{name}: {shown(bad)} holds NaN or infinity")


def _config(classifier: Classifier, facts: Mapping[str, Any], description: str) -> dict[str, Any]:
    """timm's part of config.json, and ours under `disco_zoo`."""
    network: Any = classifier.network
    former, size = network.pretrained_cfg, classifier.image_size
    cfg = PretrainedCfg(
        num_classes=len(classifier.label_names),
        input_size=(3, size, size),
        fixed_input_size=bool(former.get("fixed_input_size")) and not getattr(network, "dynamic_img_size", False),
        interpolation="bilinear",
        crop_pct=crop_share(size, classifier.resize_size),
        mean=classifier.mean,
        std=classifier.std,
        first_conv=former.get("first_conv"),
        classifier=former.get("classifier"),
        description=description,
    )
    config: dict[str, Any] = {
        "architecture": former["architecture"],
        "num_classes": len(classifier.label_names),
        "num_features": network.num_features,
        "label_names": list(classifier.label_names),
        "pretrained_cfg": cfg.to_dict(remove_source=True),
        "disco_zoo": dict(facts),
    }
    if model_args := _model_args(network):
        config["model_args"] = model_args
    return config


def _model_args(network: Any) -> dict[str, Any]:
    """The arguments that rebuild a network whose tensors depend on its input size."""
    arguments: dict[str, Any] = {"dynamic_img_size": True} if getattr(network, "dynamic_img_size", False) else {}
    grid = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if grid is not None and network.pretrained_cfg.get("fixed_input_size"):
        arguments["img_size"] = grid[0] if grid[0] == grid[1] else list(grid)
    return arguments


def crop_share(size: int, resize_size: int) -> float:
    """The shortest decimal c for which timm's resize, floor(size / c), is `resize_size` pixels."""
    for digits in range(1, 17):
        share = round(size / (resize_size + 0.5 * (resize_size != size)), digits)
        if share > 0 and math.floor(size / share) == resize_size:
            return share
    raise ValueError(f"no crop share for {size} of {resize_size} pixels")


def _require_same_scores(folder: Path, classifier: Classifier) -> None:
    copy = read_classifier(folder)
    wanted, found = (_trial_scores(network, classifier.image_size) for network in (classifier.network, copy.network))
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        raise RuntimeError(f"{folder} does not give the scores of the network it was written from")
    if (copy.image_size, copy.resize_size) != (classifier.image_size, classifier.resize_size):
        raise RuntimeError(f"{folder} asks for images of {copy.image_size} of {copy.resize_size} pixels")


@torch.no_grad()
def _trial_scores(network: nn.Module, size: int) -> Tensor:
    """Scores of noise on the CPU. In one memory layout: in two, a network that has hardly been trained rounds to 0.2 %
    other scores, and that is no fault of the folder.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with frozen(network.to(memory_format=torch.channels_last), "cpu"):
        scores: Tensor = network(images.to(memory_format=torch.channels_last))
    return scores


def require_storable(folder: Path, classifier: Classifier, title: str) -> None:
    """Find before the training what would fail after it: one writing into `folder`, without a trace.

    Raises:
        BadRunFolder: no room or no permission.
        DiscoZooError: timm cannot rebuild the network from such a folder.
    """
    try:
        with scratch_folder(folder, "try") as trial:
            write_classifier(trial / MODEL_FOLDER, classifier, facts={}, card="", description="")
    except OSError as error:
        raise BadRunFolder(f"cannot write to {folder}: {error.strerror}. Choose another folder with --out") from error
    except (BadCheckpoint, RuntimeError) as error:
        reason = str(error).rpartition("does not fit ")[2][:200]
        raise DiscoZooError(
            f"{title} at {classifier.image_size} px cannot be stored so that timm builds it again ({reason}). "
            "Take another --image-size, or another model"
        ) from error


def label_list(names: Sequence[str], shown_names: int = 20) -> str:
    """The names as one line, the first `shown_names` of them and how many more there are."""
    rest = len(names) - shown_names
    return ", ".join(names[:shown_names]) + (f" and {rest} more" if rest > 0 else "")


def backbone_of(folder: Path) -> tuple[nn.Module, Classifier]:
    """A folder's network without its head, for commands that want features; and the folder's facts."""
    classifier = read_classifier(folder, headless=True)
    network: Any = classifier.network
    network.reset_classifier(0)
    return network, classifier
