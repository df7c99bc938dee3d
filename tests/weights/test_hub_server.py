"""The test Hub answers the real client as the Hub does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hub_faults import corrupt, replace, truncate
from hub_server import TestHub
from huggingface_hub import HfApi, create_repo, hf_hub_download, model_info, snapshot_download, upload_folder
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

pytest_plugins = ("hub_fixtures",)

CARD = "---\nlicense: mit\n---\n\n# A model\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository to upload: a card, a config, weights and a file in a folder."""
    root = tmp_path / "folder"
    (root / "more").mkdir(parents=True)
    (root / "README.md").write_text(CARD)
    (root / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (root / "more" / "x.txt").write_text("x")
    return root


def test_a_published_folder_comes_back_whole(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    hub.store.add_user("hf_writer", "ann", "org")
    assert create_repo("org/b0", token="hf_writer", private=True).repo_id == "org/b0"
    commit = upload_folder(repo_id="org/b0", folder_path=folder, token="hf_writer", commit_message="all")
    assert hub.store.repos["org/b0"].private
    info = model_info("org/b0", revision=commit.oid, files_metadata=True, token="hf_writer")
    weights = next(file for file in info.siblings or [] if file.rfilename == "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(data).hexdigest()
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    path = hf_hub_download("org/b0", "model.safetensors", revision=commit.oid, token="hf_writer")
    assert Path(path).read_bytes() == data
    copy = Path(snapshot_download("org/b0", revision=commit.oid, token="hf_writer"))
    assert (copy / "more" / "x.txt").read_text() == "x"


def test_publishing_again_changes_nothing(hub: TestHub, folder: Path) -> None:
    hub.store.add_user("hf_writer", "ann")
    create_repo("ann/b0", token="hf_writer")
    first = upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer")
    create_repo("ann/b0", token="hf_writer", exist_ok=True)
    again = upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer")
    assert first.oid == again.oid
    assert hub.count("PUT") == 1


def test_a_stale_parent_is_refused(hub: TestHub, folder: Path) -> None:
    hub.store.add_user("hf_writer", "ann")
    start = hub.store.add_repo("ann/b0")
    upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer", parent_commit=start)
    (folder / "config.json").write_text('{"a": 1}')
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer", parent_commit=start)
    assert caught.value.response.status_code == 412


def test_tags_refs_and_whoami(hub: TestHub) -> None:
    hub.store.add_user("hf_writer", "ann", "org")
    commit = hub.store.add_repo("org/b0", {"a.txt": b"a"})
    api = HfApi(token="hf_writer")
    api.create_tag("org/b0", tag="v1", revision=commit)
    assert api.list_repo_refs("org/b0").tags[0].target_commit == commit
    with pytest.raises(HfHubHTTPError, match="exists already"):
        api.create_tag("org/b0", tag="v1")
    assert api.whoami()["orgs"][0]["name"] == "org"
    assert api.get_paths_info("org/b0", ["a.txt"], revision="v1")[0].path == "a.txt"


def test_writers_are_checked(hub: TestHub, folder: Path) -> None:
    hub.store.add_user("hf_writer", "ann")
    hub.store.add_user("hf_reader", "ann", role="read")
    hub.store.add_repo("ann/b0")
    for token, status in (("hf_reader", 403), ("hf_unknown", 401)):
        with pytest.raises(HfHubHTTPError) as caught:
            upload_folder(repo_id="ann/b0", folder_path=folder, token=token)
        assert caught.value.response.status_code == status
    with pytest.raises(HfHubHTTPError) as caught:
        create_repo("other/b0", token="hf_writer")
    assert caught.value.response.status_code == 403


def test_bad_metadata_is_refused_before_any_upload(hub: TestHub, folder: Path) -> None:
    hub.store.add_user("hf_writer", "ann")
    hub.store.add_repo("ann/b0")
    (folder / "README.md").write_text("---\nlicense: [1, 2\n---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer")
    assert hub.count("PUT") == 0


def test_a_damaged_upload_shows_in_the_listed_hash(hub: TestHub, folder: Path) -> None:
    hub.store.add_user("hf_writer", "ann")
    hub.store.add_repo("ann/b0")
    hub.fail(corrupt(), method="PUT")
    commit = upload_folder(repo_id="ann/b0", folder_path=folder, token="hf_writer")
    info = model_info("ann/b0", revision=commit.oid, files_metadata=True)
    listed = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs}
    assert listed["model.safetensors"] != hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_refusals_are_told_apart(hub: TestHub) -> None:
    hub.store.add_user("hf_other", "bob")
    commit = hub.store.add_repo("org/b0", {"a.txt": b"a"})
    hub.store.add_repo("org/gated", {"a.txt": b"a"}, gated=True)
    hub.store.add_repo("org/private", {"a.txt": b"a"}, private=True)
    cases = [
        ("org/none", "a.txt", "main", RepositoryNotFoundError),
        ("org/private", "a.txt", "main", RepositoryNotFoundError),
        ("org/gated", "a.txt", "main", GatedRepoError),
        ("org/b0", "b.txt", commit, RemoteEntryNotFoundError),
        ("org/b0", "a.txt", "0" * 40, RevisionNotFoundError),
    ]
    for token in (None, "hf_other"):
        for repo, file, revision, error in cases:
            with pytest.raises(error):
                hf_hub_download(repo, file, revision=revision, token=token)


def test_the_token_does_not_follow_to_the_file_store(hub: TestHub) -> None:
    hub.store.add_user("hf_reader", "ann")
    hub.store.add_repo("ann/b0", {"model.safetensors": b"w" * 999}, private=True)
    hub.redirect = True
    path = hf_hub_download("ann/b0", "model.safetensors", token="hf_reader")
    assert Path(path).read_bytes() == b"w" * 999
    assert all(request.has_authorization for request in hub.requests)
    assert [request.has_authorization for request in hub.file_requests] == [False]


def test_a_cut_body_is_resumed_with_range(hub: TestHub, no_waiting: list[float]) -> None:
    data = bytes(range(256)) * (11 << 12)  # 11 MiB: the client keeps what it has in steps of 10 MiB
    hub.store.add_repo("org/b0", {"model.safetensors": data})
    hub.fail(truncate(at=10_500_000), method="GET", times=1)
    assert Path(hf_hub_download("org/b0", "model.safetensors")).read_bytes() == data
    assert [request.range for request in hub.requests if request.method == "GET"] == [None, "bytes=10485760-"]


def test_wrong_bytes_of_the_right_length_pass_the_client(hub: TestHub) -> None:
    hub.store.add_repo("org/b0", {"model.safetensors": b"weights"})
    hub.fail(corrupt(), method="GET")
    assert Path(hf_hub_download("org/b0", "model.safetensors")).read_bytes() == b"weightr"


def test_another_length_is_noticed_by_the_client(hub: TestHub) -> None:
    hub.store.add_repo("org/b0", {"model.safetensors": b"weights"})
    hub.fail(replace(b"<html>please log in</html>"), method="GET")
    with pytest.raises(OSError, match="Consistency check failed"):
        hf_hub_download("org/b0", "model.safetensors")


def test_down_cuts_kept_alive_connections(hub: TestHub) -> None:
    hub.store.add_repo("org/b0", {"a.txt": b"a"})
    assert HfApi().model_info("org/b0").id == "org/b0"
    hub.down()
    with pytest.raises(Exception, match=r"refused|disconnected|reset"):
        HfApi().model_info("org/b0")
    hub.up()
    assert HfApi().model_info("org/b0").id == "org/b0"
