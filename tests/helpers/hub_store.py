"""What the test Hub keeps: repositories of immutable commits, LFS objects, users and their rights."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass, field

LFS_PATTERNS = ("*.safetensors", "*.npz", "*.bin", "*.pth", "*.pt", "*.tar")
POINTER_BYTES = 134  # an LFS pointer file with a size of nine digits


class HubError(Exception):
    """An answer that refuses: status, `X-Error-Code` and `X-Error-Message` as the Hub sends them."""

    def __init__(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message or code or str(status))
        self.status = status
        self.headers = dict(headers or {})
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message


def is_lfs(path: str) -> bool:
    """Whether the Hub keeps this file as an LFS object."""
    return any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in LFS_PATTERNS)


def object_id(path: str, data: bytes) -> str:
    """The ETag of a file: its sha256 if it is an LFS object, else its git blob sha1."""
    if is_lfs(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class User:
    """A token's owner. `writes_to`: organisations whose repositories this token may change."""

    name: str
    writes_to: tuple[str, ...] = ()
    role: str = "write"

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.writes_to)


@dataclass
class Repo:
    """One model repository."""

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> bytes
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)  # users who accepted the terms of a gated repository
    card: dict[str, object] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Record a new state of all files, move the branch and return the commit."""
        digest = hashlib.sha1(f"{self.name} {branch} {len(self.commits)}".encode())
        for path in sorted(files):
            digest.update(path.encode() + b"\0" + object_id(path, files[path]).encode())
        oid = digest.hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str:
        """The commit that a branch, a tag or a full commit names."""
        for table in (self.branches, self.tags):
            if revision in table:
                return table[revision]
        if revision in self.commits:
            return revision
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def entry(path: str, data: bytes) -> dict[str, object]:
    """A file as the tree and paths-info endpoints describe it."""
    described: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": object_id(path, data)}
    if is_lfs(path):
        described["lfs"] = {"oid": object_id(path, data), "size": len(data), "pointerSize": POINTER_BYTES}
    return described


def sibling(path: str, data: bytes, blobs: bool) -> dict[str, object]:
    """A file as model_info lists it; sizes and hashes only when `blobs` are asked for."""
    listed: dict[str, object] = {"rfilename": path}
    if blobs:
        listed |= {"size": len(data), "blobId": object_id(path, data)}
        if is_lfs(path):
            listed["lfs"] = {"size": len(data), "sha256": object_id(path, data), "pointerSize": POINTER_BYTES}
    return listed


class HubStore:
    """All repositories, and who may do what."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.users: dict[str, User] = {}  # token -> user
        self.lfs: dict[str, bytes] = {}  # uploaded objects by the sha256 that the client claims

    def add_user(self, token: str, name: str, *writes_to: str, role: str = "write") -> User:
        """Make `token` valid. `writes_to`: organisations it may write to, besides its own name."""
        self.users[token] = User(name, writes_to, role)
        return self.users[token]

    def add_repo(
        self, name: str, files: dict[str, bytes] | None = None, private: bool = False, gated: bool = False
    ) -> str:
        """Create a repository with one commit and return that commit."""
        self.repos[name] = Repo(name, private, gated)
        return self.repos[name].commit({".gitattributes": b"", **(files or {})})

    def user_of(self, authorization: str | None) -> User | None:
        """The user of an Authorization header; None for nobody.

        Raises:
            HubError: 401 for a token that does not exist.
        """
        if not authorization:
            return None
        user = self.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise HubError(401, message="Invalid credentials in Authorization header")
        return user

    def readable(self, name: str, user: User | None) -> Repo:
        """The repository if `user` may know that it exists.

        Raises:
            HubError: 404, or 401 for nobody: the Hub does not tell a private repository from a missing one.
        """
        repo = self.repos.get(name)
        if repo is None or (repo.private and not (user and user.owns(name))):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        return repo

    def downloadable(self, name: str, user: User | None) -> Repo:
        """The repository if `user` may download from it."""
        repo = self.readable(name, user)
        if repo.gated and not (user and (user.owns(name) or user.name in repo.accepted)):
            raise HubError(403 if user else 401, "GatedRepo", f"Access to model {name} is restricted.")
        return repo

    def writable(self, name: str, user: User | None) -> Repo:
        """The repository if `user` may change it."""
        repo = self.readable(name, user)
        self.check_writer(name, user)
        return repo

    def check_writer(self, name: str, user: User | None) -> None:
        if user is None:
            raise HubError(401, message="Invalid username or password.")
        if user.role != "write" or not user.owns(name):
            namespace = name.split("/")[0]
            raise HubError(403, message=f'You don\'t have the rights to write under the namespace "{namespace}".')
