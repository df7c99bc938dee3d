"""One file of a Hub repository at one commit, and where the Hub cache keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from disco_zoo.core.files import sha256_of, user_path


@dataclass(frozen=True)
class HubFile:
    """One file at one commit, and the checkpoint it is for."""

    name: str
    repo: str
    revision: str
    file: str
    sha256: str
    cache: Path

    def cached(self) -> Path | None:
        return cached_file(repo=self.repo, revision=self.revision, file=self.file, cache_dir=self.cache)

    def verified(self) -> Path | None:
        """The cached file, if its sha256 is right."""
        path = self.cached()
        return path if path is not None and sha256_of(path) == self.sha256 else None


def cached_file(*, repo: str, revision: str, file: str, cache_dir: str | Path | None = None) -> Path | None:
    """Where the Hub cache holds this file, whatever its bytes; None if it does not. No request is made."""
    found = try_to_load_from_cache(repo, file, cache_dir=cache_folder(cache_dir), revision=revision)
    return Path(found) if isinstance(found, str) else None


def cache_folder(cache_dir: str | Path | None) -> Path:
    """The cache that the caller names, else the usual one."""
    return user_path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE)
