"""Publishing through the real client to the test Hub: one commit, compared and pinned, or one line why not."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_faults import Fault, corrupt, drop, silent, status
from hub_faults import replace as replaced_by
from hub_server import TestHub
from hub_store import Repo
from huggingface_hub import HfApi, constants
from publish_helpers import NAME, WITHOUT_DISCO_ZOO, own_catalog, run_python

from disco_zoo.errors import PublishError
from disco_zoo.weights.official import download_weights
from disco_zoo.weights.publish import job, upload
from disco_zoo.weights.publish.folder import files_of
from disco_zoo.weights.publish.job import Publication, prepare, publish_weights, send
from disco_zoo.weights.verify import verify_all, verify_weights
from disco_zoo.zoo.catalog import CATALOG_PATH, load_catalog

pytest_plugins = ("hub_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread")

TOKEN = "hf_secret_of_ann"
REPO = f"org/{NAME}"
FILES = ["README.md", "config.json", "golden.safetensors", "model.safetensors"]
LOAD_FROM_THE_HUB = (
    WITHOUT_DISCO_ZOO
    + """
import json, sys, timm
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
repo = sys.argv[1]
model = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
golden = load_file(hf_hub_download(repo, "golden.safetensors"))
difference = (model(golden["input"]) - golden["features"]).abs().max().item()
size = list(timm.data.resolve_model_data_config(model)["input_size"])
print(json.dumps({"difference": difference, "size": size, "ours": "disco_zoo" in sys.modules}))
"""
)
LOAD_BY_NAME = """
import json, sys, timm, disco_zoo
from safetensors.torch import load_file
name, folder = sys.argv[1:]
golden = load_file(f"{folder}/golden.safetensors")
model = timm.create_model(name, pretrained=True).eval()
print(json.dumps({"difference": (model(golden["input"]) - golden["features"]).abs().max().item()}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    """The bundled weights, prepared for the organisation `org`."""
    return prepare(NAME, "org", out=tmp_path_factory.mktemp("built") / "folder")


@pytest.fixture
def catalog_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of the user's own, which publishing may rewrite."""
    path = own_catalog(tmp_path)
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(path))
    return path


@pytest.fixture
def online(hub: TestHub, catalog_file: Path, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> TestHub:
    """A Hub on which Ann may write to org."""
    hub.store.add_user(TOKEN, "ann", "org")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def fails(prepared: Publication) -> str:
    """Send what must fail; the message, which is one line, keeps the secret, and names the folder that is kept."""
    with pytest.raises(PublishError) as caught:
        send(prepared)
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    assert prepared.folder.is_dir()
    return message


def test_one_commit_with_the_local_bytes(online: TestHub, built: Publication, catalog_file: Path) -> None:
    done = send(built)
    repo = online.store.repos[REPO]
    assert repo.branches["main"] == done.revision
    assert len(repo.commits) == 2  # the repository's own first one, and ours
    stored = repo.commits[done.revision or ""]
    assert sorted(stored) == [".gitattributes", *FILES]
    for file in built.files:
        assert hashlib.sha256(stored[file.name]).hexdigest() == file.sha256
        assert stored[file.name] == (built.folder / file.name).read_bytes()
    assert online.count("POST", "/commit/") == 1
    assert not repo.private
    assert (done.url, done.catalog_file, done.notes) == (f"{online.url}/{REPO}", catalog_file, ())


def test_the_row_is_pinned_and_nothing_else_changes(online: TestHub, built: Publication, catalog_file: Path) -> None:
    before, text = load_catalog(), catalog_file.read_text(encoding="utf-8")
    done = send(built)
    after = load_catalog()
    weights = after.checkpoints[NAME].weights
    assert (weights.source, weights.repo, weights.revision, weights.file) == (
        "hub",
        REPO,
        done.revision,
        "model.safetensors",
    )
    assert (weights.sha256, weights.size_bytes) == (built.weights["sha256"], built.weights["size_bytes"])
    rest = {name: row for name, row in after.checkpoints.items() if name != NAME}
    assert rest == {name: row for name, row in before.checkpoints.items() if name != NAME}
    assert after.checkpoints[NAME].measured == before.checkpoints[NAME].measured
    changed = set(catalog_file.read_text(encoding="utf-8").splitlines()) - set(text.splitlines())
    assert len(changed) == 3  # the entry's lines


def test_again_it_is_the_same_commit(
    online: TestHub, built: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = send(built)
    uploads = online.count("PUT")
    assert send(built).revision == first.revision
    # And from the beginning, the catalog now naming the Hub: in the folder of the first time, or with it.
    shutil.copytree(built.folder, tmp_path / "folder")
    assert publish_weights(NAME, "org", out=tmp_path / "folder").revision == first.revision
    again = publish_weights(NAME, "org", out=tmp_path / "again", weights=built.folder)
    assert (again.revision, again.files) == (first.revision, first.files)
    monkeypatch.setattr("disco_zoo.weights.bundled.BUNDLED_FOLDER", tmp_path)
    with pytest.raises(PublishError, match=f"published already, as {REPO}. .*hf download {REPO} --local-dir FOLDER"):
        publish_weights(NAME, "org", out=tmp_path / "elsewhere")
    assert online.count("PUT") == uploads
    assert online.count("POST", "/commit/") == 1


def test_others_load_it_without_disco_zoo(
    online: TestHub, built: Publication, tmp_path: Path, hub_environment: dict[str, str]
) -> None:
    send(built)
    found = run_python(LOAD_FROM_THE_HUB, tmp_path, hub_environment, REPO)
    assert found["difference"] <= 1e-5
    assert (found["size"], found["ours"]) == ([3, 64, 64], False)


@pytest.mark.slow
def test_we_load_it_by_name_in_another_process(
    online: TestHub, built: Publication, catalog_file: Path, tmp_path: Path, hub_environment: dict[str, str]
) -> None:
    send(built)
    ours = hub_environment | {"DISCO_ZOO_CATALOG": str(catalog_file)}
    assert run_python(LOAD_BY_NAME, tmp_path, ours, NAME, str(built.folder))["difference"] <= 1e-5


def test_private_stays_private(online: TestHub, built: Publication) -> None:
    send(replace(built, private=True))
    assert online.store.repos[REPO].private
    assert send(built).notes == (f"{REPO} is private: only its members can load it",)


def test_private_is_refused_where_all_can_see_it(online: TestHub, built: Publication) -> None:
    online.store.add_repo(REPO)
    assert "exists and is public; --private cannot hide it" in fails(replace(built, private=True))
    assert online.count("PUT") == 0
    assert online.count("POST", "/commit/") == 0


def test_a_tag_names_the_commit_and_never_moves(online: TestHub, built: Publication) -> None:
    done = send(replace(built, tag="v1"))
    assert online.store.repos[REPO].tags == {"v1": done.revision}
    assert send(replace(built, tag="v1")).revision == done.revision
    other = online.store.repos[REPO].commit({"README.md": b"other"})
    online.store.repos[REPO].tags["v2"] = other
    assert "the tag v2 of" in fails(replace(built, tag="v2"))
    assert online.store.repos[REPO].tags["v2"] == other


def test_a_pickle_that_was_there_before_is_pointed_out(online: TestHub, built: Publication) -> None:
    online.store.add_repo(REPO, {"pytorch_model.bin": b"x"})
    assert "also holds pytorch_model.bin from elsewhere" in send(built).notes[0]


# --- the Hub then holds other bytes than were sent ---------------------------------------------------------------


def test_flipped_bits_in_the_weights_are_noticed(online: TestHub, built: Publication, catalog_file: Path) -> None:
    text = catalog_file.read_text(encoding="utf-8")
    online.fail(corrupt(), method="PUT", times=1)
    message = fails(built)
    assert re.search(
        r"does not hold what was sent: (golden|model)\.safetensors has sha256 \w{12}…, not \w{12}…", message
    )
    assert catalog_file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("fault", ["other bytes", "missing"])
def test_other_config_bytes_are_noticed(
    fault: str, online: TestHub, built: Publication, catalog_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = catalog_file.read_text(encoding="utf-8")
    honest = Repo.commit

    def dishonest(self: Repo, files: dict[str, bytes], branch: str = "main") -> str:
        if "config.json" in files and fault == "missing":
            del files["config.json"]
        elif "config.json" in files:
            files["config.json"] = files["config.json"].replace(b"1280", b"1281")
        return honest(self, files, branch)

    monkeypatch.setattr(Repo, "commit", dishonest)
    assert f"config.json {'is missing' if fault == 'missing' else 'has other bytes'}" in fails(built)
    assert catalog_file.read_text(encoding="utf-8") == text


# --- the upload fails ---------------------------------------------------------------------------------------------


def no_token(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("HF_TOKEN")


def mistyped_token(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    hub.store.users.clear()


def foreign_organisation(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    hub.store.add_user(TOKEN, "ann", "elsewhere")


def foreign_repository(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    """Public, so that only the upload itself is refused."""
    hub.store.add_repo(REPO)
    foreign_organisation(hub, patch)


def token_that_only_reads(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    hub.store.add_user(TOKEN, "ann", "org", role="read")


def race(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    create_commit = HfApi.create_commit

    def somebody_is_faster(self: HfApi, *args: Any, **options: Any) -> Any:
        hub.store.repos[REPO].commit({"README.md": b"theirs"})
        return create_commit(self, *args, **options)

    patch.setattr(HfApi, "create_commit", somebody_is_faster)


def down(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    hub.down()


def offline(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_answer(hub: TestHub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(upload, "ANSWER_SECONDS", 0.2)
    hub.fail(silent(), path="*/repos/create")


def fault(what: Fault, **where: str) -> Callable[[TestHub, pytest.MonkeyPatch], None]:
    return lambda hub, patch: hub.fail(what, **where) and None


COMMIT, CREATE = {"path": "*/commit/*"}, {"path": "*/repos/create"}
FAULTS: dict[str, tuple[Callable[[TestHub, pytest.MonkeyPatch], Any], str]] = {
    "no token": (no_token, "does not know who you are (401). Type: hf auth login"),
    "mistyped token": (mistyped_token, "refuses your token (401)"),
    "foreign organisation": (foreign_organisation, "may not write to org (403)"),
    "foreign repository": (foreign_repository, "may not write to org (403)"),
    "token that only reads": (token_that_only_reads, "may not write to org (403)"),
    "race": (race, "Somebody else committed to org/"),
    "rate limit": (fault(status(429), **CREATE), "wants fewer requests (429)"),
    "error at creation": (fault(status(500), **CREATE), "refused (HTTP 500)"),
    "error at upload": (fault(status(403), method="PUT"), "may not write to org (403)"),
    "error at commit": (fault(status(503), **COMMIT), "refused (HTTP 503)"),
    "cut at commit": (fault(drop(), **COMMIT), "cannot be reached"),
    "down": (down, "cannot be reached"),
    "no answer": (no_answer, "cannot be reached"),
    "no Hub": (fault(replaced_by(b"<html>Please log in</html>"), **CREATE), "is no Hub. Correct HF_ENDPOINT"),
    "offline": (offline, "unset HF_HUB_OFFLINE"),
}


@pytest.mark.parametrize(("inject", "words"), FAULTS.values(), ids=FAULTS)
def test_a_failed_upload_is_one_line(
    inject: Callable[[TestHub, pytest.MonkeyPatch], Any],
    words: str,
    online: TestHub,
    built: Publication,
    catalog_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = catalog_file.read_text(encoding="utf-8")
    inject(online, monkeypatch)
    message = fails(built)
    assert words in message
    assert f"Then type the command again: {built.folder} is kept and the catalog unchanged" in message
    assert catalog_file.read_text(encoding="utf-8") == text
    for repo in online.store.repos.values():  # all or nothing
        assert all("model.safetensors" not in files for files in repo.commits.values())


@pytest.mark.parametrize(
    ("inject", "words"),
    [
        (fault(status(412)), "Look at {}/org/"),
        (fault(status(500)), "The Hub at {} refused"),
        (fault(status(500, X_Error_Message="see http://u:opaque@x.org")), "see http://***@x.org"),
        (fault(status(200)), "What answers at {} is no Hub"),
        (down, "The Hub at {} cannot be reached"),
    ],
)
def test_the_password_of_an_endpoint_is_not_shown(
    inject: Callable[[TestHub, pytest.MonkeyPatch], Any],
    words: str,
    online: TestHub,
    built: Publication,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", online.url.replace("http://", "http://user:opaque@"))
    inject(online, monkeypatch)
    with pytest.raises(PublishError) as caught:
        send(built)
    assert words.format(online.url.replace("http://", "http://***@")) in str(caught.value)
    assert "opaque" not in "".join(traceback.format_exception(caught.value))


def test_a_dry_run_does_not_show_the_password_of_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://user:opaque@hub.example")
    assert publish_weights(NAME, "org", dry_run=True, out=tmp_path / "folder").url == f"https://***@hub.example/{REPO}"


def test_after_a_fault_the_same_command_succeeds(online: TestHub, built: Publication) -> None:
    online.fail(status(503), times=1, **COMMIT)
    fails(built)
    assert send(built).catalog_file is not None


@pytest.mark.parametrize(
    ("front", "words"),
    [
        ("license: [mit", "bad YAML|while parsing"),
        ("license: 3", '"license" must be a string'),
        ("- a list", "mapping|dict"),
    ],
)
def test_a_bad_card_is_refused_before_anything_is_made(
    front: str, words: str, online: TestHub, built: Publication, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    prepared = prepare(NAME, "org", out=folder)
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# A model\n")
    with pytest.raises(PublishError, match=words) as caught:
        send(replace(prepared, files=files_of(folder)))
    assert "does not take the model card" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert online.store.repos == {}


def test_a_folder_edited_by_hand_is_not_sent(online: TestHub, tmp_path: Path) -> None:
    prepared = prepare(NAME, "org", out=tmp_path / "folder")
    (prepared.folder / "config.json").write_text("{}")
    assert "was changed since it was built" in fails(prepared)
    shutil.rmtree(prepared.folder)
    with pytest.raises(PublishError, match="was changed since it was built"):
        send(prepared)
    assert online.requests == []


# --- the catalog cannot be rewritten ------------------------------------------------------------------------------


def test_a_linked_catalog_stays_a_link(
    online: TestHub, built: Publication, catalog_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(catalog_file)
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(link))
    assert send(built).catalog_file == catalog_file
    assert link.is_symlink()
    assert load_catalog().checkpoints[NAME].weights.source == "hub"


def test_a_catalog_that_cannot_be_written_leaves_the_block(
    online: TestHub, built: Publication, catalog_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("disco_zoo.weights.publish.job.write_whole", full)
    done = send(built)
    assert done.catalog_file is None
    assert "could not be rewritten: No space left on device" in done.notes[-1]
    assert f"revision: {done.revision}" in done.weights_yaml.replace("'", "")
    assert json.dumps(done.weights["sha256"]).strip('"') in done.weights_yaml


def test_an_installed_package_is_not_rewritten(
    online: TestHub, built: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISCO_ZOO_CATALOG")
    monkeypatch.setattr("disco_zoo.weights.publish.job.PACKAGE_DIR", tmp_path / "site-packages" / "disco_zoo")
    done = send(built)
    assert done.catalog_file is None
    assert "set DISCO_ZOO_CATALOG to a catalog of your own" in done.notes[-1]


def test_a_checkouts_own_catalog_is_the_one_to_rewrite(
    online: TestHub, built: Publication, catalog_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISCO_ZOO_CATALOG")
    assert job._catalog_to_rewrite() == CATALOG_PATH  # as it lies in this checkout; a copy is rewritten
    monkeypatch.setattr(job, "CATALOG_PATH", catalog_file)
    assert send(built).catalog_file == catalog_file
    assert load_catalog(catalog_file).checkpoints[NAME].weights.source == "hub"


def test_a_row_that_cannot_be_rewritten_is_refused_before_the_upload(
    online: TestHub, catalog_file: Path, tmp_path: Path
) -> None:
    text = catalog_file.read_text(encoding="utf-8")
    at = text.index("    weights:", text.index(f"  {NAME}:\n"))
    text = text[:at] + text[at:].replace("    weights:", "    weights: &shared", 1)
    catalog_file.write_text(
        text + "  disco_r18.like:\n    <<: *disco_official\n    teacher: mocov2_r50\n"
        "    summary: S\n    weights: *shared\n",
        encoding="utf-8",
    )
    with pytest.raises(Exception, match="cannot be rewritten"):
        publish_weights(NAME, "org", out=tmp_path / "out")
    assert online.requests == []
    assert not (tmp_path / "out").exists()


def test_what_is_published_downloads_and_verifies_down_to_its_features(
    online: TestHub, built: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(built)
    monkeypatch.setattr(
        "disco_zoo.weights.bundled.BUNDLED_FOLDER", Path("nowhere")
    )  # as after an upgrade to a lighter wheel
    # Nothing of it is here yet, and nothing is fetched to verify.
    assert NAME not in {found.name for found in verify_all()}
    path = download_weights(NAME)
    assert "hub" in path.parts
    verified = verify_weights(NAME)
    assert (verified.source, verified.ok) == ("hub", True)
    assert [check.passed for check in verified.checks] == [True] * 4
    asked = len(online.requests)
    assert download_weights(NAME) == path
    assert verified in verify_all()
    assert len(online.requests) == asked
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (broken,) = [found for found in verify_all() if found.name == NAME]
    assert not broken.ok
    assert len(online.requests) == asked
