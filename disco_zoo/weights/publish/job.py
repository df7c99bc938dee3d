"""From a checkpoint of the catalog to a repository on the Hub, and back into the catalog as a pinned commit.

`prepare` builds the folder and asks nobody; `send` uploads it as one commit, compares hashes, and rewrites the row.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disco_zoo.core.files import PACKAGE_DIR, user_path, write_whole
from disco_zoo.errors import BadCatalog, PublishError, UnknownName
from disco_zoo.weights.publish.folder import GOLDEN, MODEL, PublishedFile, WeightsFile, build_folder, files_of
from disco_zoo.weights.publish.source import given_file, local_file
from disco_zoo.weights.publish.upload import repo_url, upload
from disco_zoo.weights.run_fit import figures_fault
from disco_zoo.zoo.catalog import CATALOG_PATH, CATALOG_VARIABLE, Catalog, Checkpoint, load_catalog
from disco_zoo.zoo.edit import rewrite_weights, weights_block

ORG_VARIABLE = "DISCO_ZOO_ORG"
# Names as the Hub has them: letters, digits, and single dashes, dots and underscores inside; 96 characters at most.
PLAIN = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_NON_COMMERCIAL = re.compile(r"-NC\b|non-?commercial", re.IGNORECASE)
NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Publication:
    """A checkpoint on its way to the Hub, or there.

    Attributes:
        name: the checkpoint.
        repo: `organisation/name`.
        url: the repository's page.
        private: whether it was to be for the organisation alone.
        folder: what is, or was, uploaded.
        files: the folder's files.
        weights: the row's entry in the catalog; its `revision` is None before the upload.
        tag: a name for the commit, None for none.
        catalog_file: the catalog that was rewritten; None if none was.
        notes: remarks to print.
    """

    name: str
    repo: str
    url: str
    private: bool
    folder: Path
    files: tuple[PublishedFile, ...]
    weights: dict[str, Any]
    tag: str | None = None
    catalog_file: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def revision(self) -> str | None:
        """The pinned commit, 40 hexadecimal digits; None before the upload."""
        return self.weights["revision"]

    @property
    def weights_yaml(self) -> str:
        """The row's new entry, to paste into a catalog that cannot be rewritten from here."""
        return weights_block(self.name, self.weights)


def publish_weights(
    name: str,
    org: str | None = None,
    *,
    private: bool = False,
    dry_run: bool = False,
    out: Path | str | None = None,
    weights: Path | str | None = None,
    tag: str | None = None,
    accept_unknown_licence: bool = False,
) -> Publication:
    """Publish a checkpoint's local weights on the Hub; with `dry_run` only build the folder. See `prepare`, `send`."""
    prepared = prepare(
        name, org, private=private, out=out, weights=weights, tag=tag, accept_unknown_licence=accept_unknown_licence
    )
    return prepared if dry_run else send(prepared)


def prepare(
    name: str,
    org: str | None = None,
    *,
    private: bool = False,
    out: Path | str | None = None,
    weights: Path | str | None = None,
    tag: str | None = None,
    accept_unknown_licence: bool = False,
) -> Publication:
    """Build the folder to publish; no request to anywhere.

    Args:
        name: a checkpoint, as `Catalog.resolve` takes it.
        org: user or organisation on the Hub; None for $DISCO_ZOO_ORG.
        private: create the repository for its members alone.
        out: the folder; None for `runs/NAME-hub`.
        weights: a safetensors file, a run folder or a published one; None for the installed or bundled weights.
        tag: a name for the commit, e.g. `v1`.
        accept_unknown_licence: publish although nobody stated a licence.

    Raises:
        UnknownName: there is no such checkpoint.
        PublishError: no right to publish, nothing to publish, or a folder that cannot be written.
        BadCheckpoint: the file is no safetensors file, or of another network.
        WeightsError: the local weights are damaged.
        BadCatalog: the row could not be rewritten afterwards.
    """
    catalog = load_catalog()
    namespace = _namespace(org)
    row = _row(catalog, name)
    repo = f"{namespace}/{row.name}"
    if tag is not None and not PLAIN.fullmatch(tag):
        raise PublishError(f"{tag!r} cannot name a commit. Type for example: --tag v1")
    notes = _licence_notes(row, accept_unknown_licence)
    folder = user_path(out) if out else Path("runs") / f"{row.name}-hub"
    file = given_file(user_path(weights), row, catalog) if weights else local_file(row, catalog, folder)
    _check_figures(row, file, catalog)
    entry = _entry(repo, file)
    if path := _catalog_to_rewrite():
        rewrite_weights(_read(path), row.name, entry | {"revision": NO_COMMIT})  # fails now rather than afterwards
    files = build_folder(folder, row, catalog, file, repo)
    entry["golden_sha256"] = next(file.sha256 for file in files if file.name == GOLDEN)
    return Publication(row.name, repo, repo_url(repo), private, folder, files, entry, tag=tag, notes=notes)


def send(prepared: Publication) -> Publication:
    """Upload a prepared folder as one commit, compare hashes, and rewrite the catalog's row.

    Where the catalog is not a file of the user's (an installed wheel, a read-only one), the row is left to him:
    `catalog_file` is then None and `weights_yaml` is what to paste.

    Raises:
        PublishError: see `hub_upload.upload`; the folder is kept and the catalog unchanged.
    """
    _require_unchanged(prepared)
    uploaded = upload(prepared.folder, prepared.files, prepared.repo, private=prepared.private, tag=prepared.tag)
    entry = prepared.weights | {"revision": uploaded.revision}
    done = replace(prepared, weights=entry, url=uploaded.url, notes=(*prepared.notes, *uploaded.notes))
    path = _catalog_to_rewrite()
    if path is None:
        why = f"The packaged catalog is not rewritten; set {CATALOG_VARIABLE} to a catalog of your own for that"
        return replace(done, notes=(*done.notes, why))
    try:
        text = rewrite_weights(_read(path), prepared.name, entry)
        write_whole(path, lambda partial: partial.write_bytes(text.encode()))
    except (OSError, BadCatalog) as error:  # the upload stands, whatever became of the file meanwhile
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        return replace(done, notes=(*done.notes, f"{path} could not be rewritten: {reason}"))
    return replace(done, catalog_file=path)


def _require_unchanged(prepared: Publication) -> None:
    try:
        unchanged = files_of(prepared.folder) == prepared.files
    except OSError:
        unchanged = False
    if not unchanged:
        raise PublishError(f"{prepared.folder} was changed since it was built. Type the command again")


def _namespace(org: str | None) -> str:
    name = org if org is not None else os.environ.get(ORG_VARIABLE)
    if not name:
        raise PublishError(f"Where to? Type --to ORG, your user or organisation on the Hub, or set {ORG_VARIABLE}")
    if not PLAIN.fullmatch(name):
        raise PublishError(f"{name!r} is no user or organisation on the Hub. Type for example: --to my-lab")
    return name


def _row(catalog: Catalog, name: str) -> Checkpoint:
    if name in catalog.teachers:
        raise PublishError(
            f"{name} is a teacher: its file also holds a projection head, which timm does not load. Publish a student"
        )
    if not PLAIN.fullmatch(name):
        hint = f"publish NAME --weights {name}" if user_path(name).exists() else "list"
        raise UnknownName(f"{name!r} is no name of a model. Type: disco-zoo {hint}")
    row = catalog.resolve(name)
    if not PLAIN.fullmatch(row.name):  # a catalog of the user's own may hold anything
        raise PublishError(
            f"{row.name!r} cannot name a repository: letters, digits, dots, dashes, underscores, at most 96"
        )
    return row


def _licence_notes(row: Checkpoint, accept_unknown: bool) -> tuple[str, ...]:
    notes = []
    if row.licence.weights.lower().startswith("unknown"):
        if not accept_unknown:
            raise PublishError(
                f"Nobody stated a licence for the weights of {row.name}: you may not have the right to publish them. "
                "If you have it, add --accept-unknown-licence"
            )
        notes.append("Nobody stated a licence for these weights; they are published on your word")
    terms = {what: licence for what, licence in row.licence.model_dump().items() if _NON_COMMERCIAL.search(licence)}
    if terms:
        listed = ", ".join(f"{what}: {licence}" for what, licence in terms.items())
        notes.append(f"Non-commercial terms, which the card states, too ({listed})")
    return tuple(notes)


def _check_figures(row: Checkpoint, file: WeightsFile, catalog: Catalog) -> None:
    """Figures belong to weights: a card must not show those of other ones."""
    others = (entry.name for entry in catalog.entries if entry.weights.sha256 == file.sha256)
    owner = None if row.weights.sha256 == file.sha256 else next(others, None)
    if owner:
        raise PublishError(
            f"{file.path} holds the weights of {owner}, not of {row.name}. Type: disco-zoo publish {owner}"
        )
    if not row.measured:
        return
    known = row.weights.sha256 if row.weights.loadable else None
    if known and known != file.sha256:
        raise PublishError(
            f"The catalog's figures of {row.name} were measured with weights {known[:12]}…, not with {file.path} "
            f"({file.sha256[:12]}…). Measure these and change its row first"
        )
    if not known and file.source == "run" and (fault := figures_fault(file.figures, row)):
        raise PublishError(
            f"The catalog's figures of {row.name} are not those of {file.path}: {fault}. Measure it and change its row "
            f"first, or train it again: {row.reproduce_command or 'disco-zoo reproduce'}"
        )
    if not known and file.source not in ("run", "published"):
        raise PublishError(
            f"The catalog has figures of {row.name}, and nothing says that {file.path} gave them. Publish the run's "
            "folder: --weights RUN_FOLDER"
        )


def _entry(repo: str, file: WeightsFile) -> dict[str, Any]:
    size = file.path.stat().st_size
    return {"source": "hub", "repo": repo, "file": MODEL, "size_bytes": size, "revision": None, "sha256": file.sha256}


def _catalog_to_rewrite() -> Path | None:
    """The user's own catalog, or that of a checkout; an installed wheel's would be lost with the next upgrade."""
    if own := os.environ.get(CATALOG_VARIABLE):
        return user_path(own).resolve()  # a link stays one
    return CATALOG_PATH if (PACKAGE_DIR.parent / "pyproject.toml").is_file() else None


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")  # line ends as they are
