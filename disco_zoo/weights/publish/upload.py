"""One upload to the Hub: a repository, one commit, and the proof that the Hub holds what was sent."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from disco_zoo.errors import PublishError
from disco_zoo.weights.hub_errors import endpoint_name, printable_cause, without_secrets
from disco_zoo.weights.publish.folder import CARD, PublishedFile

# The client waits without end for an answer; between two pieces of one, this is long enough.
ANSWER_SECONDS = 60.0
AGAIN = "Then type the command again"
# Suffixes that may run code when they are loaded. We upload none; a repository may hold one from before.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")


@dataclass(frozen=True)
class Uploaded:
    """`revision` is the 40-hex commit to pin; `notes` are remarks to print."""

    revision: str
    url: str
    notes: tuple[str, ...]


def repo_url(repo: str) -> str:
    """The repository's page."""
    return f"{endpoint_name()}/{repo}"


def upload(folder: Path, files: Sequence[PublishedFile], repo: str, *, private: bool, tag: str | None) -> Uploaded:
    """Upload `files` of `folder` as one commit, and compare what the Hub then lists with them.

    Unchanged files make no commit: the old one comes back. (`HfApi.upload_folder` is not used: with hf_xet it is a
    pipeline of several commits, and it takes whatever lies in the folder.)

    Args:
        folder: kept, whatever happens.
        files: what to upload.
        repo: `organisation/name`, created if it does not exist.
        private: whether to create it for the organisation alone.
        tag: a name for the commit, None for none.

    Raises:
        PublishError: no rights, another commit in the meantime, a card that the Hub does not take, no connection,
            or other bytes on the Hub than were sent.
    """
    api = HfApi(library_name="disco-zoo")
    with _one_line(repo, folder), _bounded_waiting(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _check_card(folder / CARD)
        api.create_repo(repo, private=private or None, exist_ok=True)
        before = api.model_info(repo)
        if private and before.private is False:
            raise PublishError(
                f"{repo} exists and is public; --private cannot hide it. Make it private on {repo_url(repo)}/settings "
                "first, or leave --private out"
            )
        # One explicit commit on top of the state just seen: a commit by somebody else in between is refused (412).
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(file.name, folder / file.name) for file in files],
            commit_message=f"Publish {repo.split('/')[1]} with disco-zoo",
            parent_commit=before.sha,
        )
        revision = commit.oid
        others = _compare(api, repo, revision, folder, files)
        if tag:
            _tag(api, repo, revision, tag)
    notes = [str(item.message).splitlines()[-1] for item in caught if item.category is UserWarning]
    if before.private and not private:
        notes.append(f"{repo} is private: only its members can load it")
    if pickles := [name for name in others if name.endswith(PICKLES)]:
        notes.append(f"{repo} also holds {', '.join(pickles)} from elsewhere; loading such files can run code")
    return Uploaded(revision, repo_url(repo), tuple(notes))


def git_blob_id(data: bytes) -> str:
    """The name that git gives to a file's content; the Hub's for files that are no LFS objects."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _check_card(path: Path) -> None:
    """Before anything exists on the Hub: it would refuse a bad card only after the repository is made."""
    try:
        ModelCard(path.read_text(encoding="utf-8")).validate()
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, (json.JSONDecodeError, HfHubHTTPError)):
            raise
        raise PublishError(
            f"The Hub does not take the model card {path}: {_first_message(str(error))}. Correct the row in the "
            "catalog and type the command again"
        ) from error


def _first_message(text: str) -> str:
    """The Hub lists its objections to a card as JSON."""
    try:
        return _first_line(json.loads(text)["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return _first_line(text)


def _compare(api: HfApi, repo: str, revision: str, folder: Path, files: Sequence[PublishedFile]) -> list[str]:
    """Names of files that are on the Hub but not ours.

    Raises:
        PublishError: the Hub lists another size or hash than the local file has, or no such file.
    """
    listed = {
        item.rfilename: item for item in api.model_info(repo, revision=revision, files_metadata=True).siblings or []
    }
    wrong = []
    for file in files:
        item = listed.pop(file.name, None)
        if item is None:
            wrong.append(f"{file.name} is missing")
        elif item.lfs is not None:
            if (item.lfs.sha256, item.lfs.size) != (file.sha256, file.size_bytes):
                wrong.append(f"{file.name} has sha256 {item.lfs.sha256[:12]}…, not {file.sha256[:12]}…")
        elif (item.blob_id, item.size) != (git_blob_id((folder / file.name).read_bytes()), file.size_bytes):
            wrong.append(f"{file.name} has other bytes")
    if wrong:
        raise PublishError(
            f"{repo} at commit {revision[:12]} does not hold what was sent: {'; '.join(wrong)}. The catalog is "
            f"unchanged and {folder} is kept; delete that commit's files on {repo_url(repo)} and type the command again"
        )
    return list(listed)


def _tag(api: HfApi, repo: str, revision: str, tag: str) -> None:
    """Raises PublishError where the tag exists at another commit: tags that move prove nothing."""
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    if tag not in tags:
        api.create_tag(repo, tag=tag, revision=revision)
    elif tags[tag] != revision:
        raise PublishError(
            f"The files are published as commit {revision}, but the tag {tag} of {repo} already names commit "
            f"{tags[tag][:12]}. Choose another --tag and type the command again"
        )


@contextmanager
def _bounded_waiting() -> Iterator[None]:
    """Let the client give up on a Hub that has stopped answering."""
    session: Any = get_session()
    if not hasattr(session, "timeout"):  # huggingface_hub < 1.0 is built on requests, which has no such setting
        yield
        return
    former = session.timeout
    session.timeout = ANSWER_SECONDS
    try:
        yield
    finally:
        session.timeout = former


@contextmanager
def _one_line(repo: str, folder: Path) -> Iterator[None]:
    """Turn what the client raises into one line; its errors have no common base, so they are told apart here."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:
        reason = _reason(error, repo)
        if reason is None:
            raise
        raise PublishError(f"{reason}. {AGAIN}: {folder} is kept and the catalog unchanged") from printable_cause(error)


def _reason(error: Exception, repo: str) -> str | None:
    """What is wrong and what to do first; None for an error that is no failed request."""
    organization = repo.split("/")[0]
    if type(error) is RuntimeError and isinstance(error.__cause__, Exception):  # from a thread that uploads one file
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "Offline mode is on, nothing can be published. Type: unset HF_HUB_OFFLINE"
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and not get_token()):
        return "The Hub does not know who you are (401). Type: hf auth login, or set HF_TOKEN to a token that may write"
    if status == 401:
        return "The Hub refuses your token (401): expired or mistyped. Type: hf auth login"
    if status == 403:
        return f"Your token may not write to {organization} (403). Give it write access there, or choose another --to"
    if status == 404:
        return f"Your token cannot see {repo} (404). Give it access to {organization}, or choose another --to"
    if status == 412:
        return f"Somebody else committed to {repo} meanwhile (412); their commit stands. Look at {repo_url(repo)}"
    if status == 429:
        return "The Hub wants fewer requests (429). Wait some minutes"
    if status is not None:
        said = _first_line(getattr(error, "server_message", None) or "")
        return f"The Hub at {endpoint_name()} refused (HTTP {status}){f': {said}' if said else ''}. Try later"
    if isinstance(error, json.JSONDecodeError):
        return f"What answers at {endpoint_name()} is no Hub. Correct HF_ENDPOINT"
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore"):
        said = _first_line(str(error)) or type(error).__name__
        return f"The Hub at {endpoint_name()} cannot be reached: {said}. Check the connection"
    return None


def _first_line(text: str) -> str:
    """Of a message of several lines the first that says something, without secrets and a trailing stop."""
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    return without_secrets(lines[0]).rstrip(".")[:200] if lines else ""
