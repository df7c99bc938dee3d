"""From a checkpoint's name to a verified local file, before timm sees it.

timm checks no hash and loads loosely as soon as the number of classes differs, so the sha256 is checked here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from disco_zoo.catalog import Catalog, Checkpoint, load_catalog
from disco_zoo.errors import Damaged, NotPublished, WeightsError

BUNDLED_FOLDER = Path(__file__).parent / "assets" / "weights"
SOURCE_FIELDS = ("state_dict", "file", "url", "hf_hub_id", "hf_hub_filename", "source")


def bundled_path(file: str) -> Path:
    """Where the wheel keeps the weights file `file`."""
    return BUNDLED_FOLDER / file


def sha256_of(path: Path | str) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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
    checkpoint = catalog.checkpoints.get(name)
    if checkpoint is None or not checkpoint.weights.loadable or checkpoint.variant:
        raise NotPublished(_not_published(catalog, arch, checkpoint))
    path = _bundled(checkpoint) if checkpoint.weights.source == "bundled" else _from_hub(checkpoint, cache_dir)
    return replace(cfg, file=str(path))


def _bundled(checkpoint: Checkpoint) -> Path:
    path = bundled_path(checkpoint.weights.file or "")
    again = "Type: pip install --force-reinstall --no-deps disco-zoo"
    if not path.is_file():
        raise WeightsError(f"The weights of {checkpoint.name} are missing from this installation: {path}. {again}")
    if sha256_of(path) != checkpoint.weights.sha256:
        raise Damaged(f"The weights of {checkpoint.name} are damaged: {path} has another sha256. {again}")
    return path


def _from_hub(checkpoint: Checkpoint, cache_dir: str | Path | None) -> Path:
    try:
        path = _download(checkpoint, cache_dir, force=False)
    except Exception as error:  # the client's errors have no common base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"Could not download {checkpoint.name} from {checkpoint.weights.repo}: {reason}"
            " Try again later, or set cache_dir= or HF_HOME to a folder that has it."
        ) from error
    if sha256_of(path) == checkpoint.weights.sha256:
        return path
    # A bad file stays in the Hub cache and would fail again each time: fetch it anew once.
    damaged = f"The weights of {checkpoint.name} are damaged: {path} has another sha256."
    try:
        path = _download(checkpoint, cache_dir, force=True)
    except Exception as error:
        raise Damaged(f"{damaged} The Hub cannot be reached for a new copy; try again when it can.") from error
    if sha256_of(path) != checkpoint.weights.sha256:
        raise Damaged(f"{damaged} A new copy has it too. Type: pip install --upgrade disco-zoo")
    return path


def _download(checkpoint: Checkpoint, cache_dir: str | Path | None, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    weights = checkpoint.weights
    path = hf_hub_download(
        repo_id=weights.repo or "",
        filename=weights.file or "",
        revision=weights.revision,  # a full commit: once cached, no request at all
        cache_dir=cache_dir,
        force_download=force,
        library_name="disco-zoo",
    )
    return Path(path)


def _not_published(catalog: Catalog, arch: str, checkpoint: Checkpoint | None) -> str:
    name = checkpoint.name if checkpoint else arch
    message = f"The weights of {name} are not published."
    if checkpoint and checkpoint.weights.source == "official":
        message = f"The weights of {name} are the authors' file {checkpoint.weights.file}, not yet converted."
    if checkpoint and checkpoint.variant:
        message += f" They need the variant {checkpoint.variant}, which is not registered yet."
    ready = [row.name for row in catalog.of_architecture(arch) if row.weights.loadable]
    if ready:
        message += f" Published: {', '.join(ready)}."
    if checkpoint and checkpoint.reproduce_command:
        return f"{message} To train them, type: {checkpoint.reproduce_command}"
    return message if ready else f"{message} Use pretrained=False, or type: disco-zoo list"
