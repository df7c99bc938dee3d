"""Weights that the user installed: where they are, and how they get there whole or not at all.

    <home>/weights/<name>/<sha256>.safetensors    written first
    <home>/weights/<name>/installed.json          written last; it names the file, and without it nothing is trusted

`<home>` is $DISCO_ZOO_HOME, else $XDG_DATA_HOME/disco-zoo, else ~/.local/share/disco-zoo. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from disco_zoo.core.files import failed_writes_as, sha256_of, user_path, write_whole
from disco_zoo.errors import CacheNotWritable, Damaged, UnknownName

MANIFEST = "installed.json"
LOCK = ".lock"
GOLDEN_SUFFIX = ".golden.safetensors"
# What a folder of the store may be called: no separators, no leading dot, nothing a shell minds.
SHA256 = re.compile(r"[0-9a-f]{64}")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Installed:
    """Weights in the store. `facts` says where they came from: layout, source_file, source_sha256, source_url, date."""

    name: str
    path: Path
    sha256: str
    network: str
    facts: dict[str, Any]

    @property
    def golden(self) -> Path:
        """The stored input and its features, computed when the weights were installed."""
        return self.path.with_name(self.sha256 + GOLDEN_SUFFIX)


def home() -> Path:
    """The folder for what the user installs and downloads; it need not exist."""
    if own := os.environ.get("DISCO_ZOO_HOME"):
        return user_path(own)
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return user_path(data) / "disco-zoo"


def folder_of(name: str) -> Path:
    """The folder of one checkpoint or teacher.

    Raises:
        UnknownName: `name` is no plain name; it might lead out of the store.
    """
    if not SAFE_NAME.fullmatch(name):
        raise UnknownName(f"{name!r} is no name of the zoo. Type: disco-zoo list")
    return home() / "weights" / name


def installed_names() -> set[str]:
    """Names of everything installed."""
    return {manifest.parent.name for manifest in (home() / "weights").glob(f"*/{MANIFEST}")}


def installed(name: str) -> Installed | None:
    """What is installed under `name`, None if nothing; whether the bytes are right is for the caller to check.

    Raises:
        Damaged: there is a manifest, but it is not one of ours or its file is gone.
    """
    manifest = folder_of(name) / MANIFEST
    for _ in range(2):  # a file may be replaced between the two looks: then the manifest is new, too
        try:
            facts = json.loads(manifest.read_text(encoding="utf-8"))
            sha256, network = facts.pop("sha256"), facts.pop("network")
            if not SHA256.fullmatch(sha256):  # it becomes part of a path
                raise ValueError(sha256)
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise Damaged(f"{manifest} is damaged. {again(name)}") from error
        path = manifest.with_name(f"{sha256}.safetensors")
        if path.is_file():
            return Installed(name, path, sha256, network, facts)
    raise Damaged(f"The installed weights of {name} are gone: {path}. {again(name)}")


def writing_into(folder: Path) -> AbstractContextManager[None]:
    """A failed write into a folder of the store is told as `CacheNotWritable`."""
    remedy = "Make room, or set DISCO_ZOO_HOME to another folder"
    return failed_writes_as(CacheNotWritable, f"Cannot write to {folder}", remedy)


def install(
    name: str, network: str, write: Callable[[Path], None], facts: dict[str, Any], golden: Callable[[Path], None]
) -> Installed:
    """Put weights into the store. Whoever reads meanwhile, or is killed, finds the former state or the new one.

    Args:
        name: of the checkpoint or teacher.
        network: the timm name that the tensors fit.
        write: writes the safetensors to the path it is given.
        facts: where they come from, for `show` and `publish`.
        golden: writes the stored input and its features to the path it is given.

    Raises:
        CacheNotWritable: the folder is read-only or full.
    """
    folder = folder_of(name)
    with writing_into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):  # or two installers would clear each other's partial files away
            _replace_all(folder, {"network": network, **facts}, write, golden)
    found = installed(name)
    assert found is not None
    return found


def _replace_all(
    folder: Path, facts: dict[str, Any], write: Callable[[Path], None], golden: Callable[[Path], None]
) -> None:
    weights = write_whole(folder / "weights", write, name=lambda partial: folder / f"{sha256_of(partial)}.safetensors")
    sha256 = weights.stem
    write_whole(folder / f"{sha256}{GOLDEN_SUFFIX}", golden)
    text = json.dumps({"sha256": sha256, **facts}, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / MANIFEST, lambda partial: partial.write_text(text, encoding="utf-8"))
    for stale in folder.iterdir():  # the former weights, and what a killed process left
        if not stale.name.startswith(sha256) and stale.name not in (MANIFEST, LOCK):
            stale.unlink(missing_ok=True)


def again(name: str) -> str:
    """The command that repairs a damaged installation."""
    return f"Delete the folder {folder_of(name)} and type: disco-zoo download {name}"
