"""`disco-zoo publish` as typed: what it shows, what it asks for, and what it refuses before any request."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import TestHub
from publish_helpers import NAME, own_catalog, random_weights, run_facts

from disco_zoo.cli import main
from disco_zoo.weights import store
from disco_zoo.weights.resolve import local_weights
from disco_zoo.zoo.catalog import load_catalog

pytest_plugins = ("hub_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread")

TOKEN = "hf_secret_of_ann"
RECIPE_ONLY = "disco_effb0.disco_lite0_fmnist"  # with figures of three seeds, without weights
OFFICIAL = "disco_effb0.disco_mocov2_r50_in1k"  # not on this machine, licence unknown
Refused = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a catalog of its own, and a Hub on which Ann may write to org."""
    folder = tmp_path / "here"
    folder.mkdir()
    hub.store.add_user(TOKEN, "ann", "org")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(own_catalog(tmp_path)))
    monkeypatch.delenv("DISCO_ZOO_ORG", raising=False)
    return folder


@pytest.fixture
def refused(here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail before any request and write nothing; its one line."""

    def run(*arguments: object) -> str:
        before = sorted(here.rglob("*"))
        assert main(["publish", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")
        assert printed.out == ""
        assert hub.requests == []
        assert sorted(here.rglob("*")) == before
        return lines[0]

    return run


def run_folder(path: Path, name: str = NAME, row: str = NAME, **student: Any) -> Path:
    """A finished run of `row` with the bundled weights as its student."""
    found = local_weights(NAME)
    assert found is not None
    path.mkdir()
    shutil.copyfile(found.path, path / "student.safetensors")
    facts = run_facts(row, **{"file": "student.safetensors", "sha256": found.sha256, **student})
    (path / "run.json").write_text(json.dumps({**facts, "name": name, "ended": "2026-01-02T03:04:05+00:00"}))
    return path


def change_facts(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, **changes}))


def test_a_dry_run_shows_the_folder_and_asks_nobody(
    here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = load_catalog()
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org", "--dry-run"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == f"runs/{NAME}-hub/ -> {hub.url}/org/{NAME} (public)"
    assert [re.sub(r" +", " ", line).split(" sha256")[0] for line in lines[1:]][-1] == "└── model.safetensors 8.1 MB"
    assert "sha256 4b47cccf74e1d8a7…" in lines[-1]
    assert "Nothing was uploaded" in printed.err
    assert sorted(path.name for path in (here / "runs" / f"{NAME}-hub").iterdir()) == [
        "README.md",
        "config.json",
        "golden.safetensors",
        "model.safetensors",
    ]
    assert hub.requests == []
    assert load_catalog() == catalog
    assert TOKEN not in printed.out + printed.err


def test_publishing_tells_the_commit_and_what_to_type_next(
    here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_ZOO_ORG", "org")
    assert main(["publish", "effb0.disco_lite0_cifar10", "--yes", "--tag", "v1"]) == 0
    printed = capsys.readouterr()
    revision = hub.store.repos[f"org/{NAME}"].branches["main"]
    assert f"{hub.url}/org/{NAME} is at commit {revision}" in printed.out
    assert "Now type: disco-zoo card --all" in printed.err
    assert load_catalog().checkpoints[NAME].weights.revision == revision
    assert TOKEN not in printed.out + printed.err


def test_json_is_all_that_is_on_stdout(here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "publish",
        "effb0.disco_lite0_cifar10",
        "--to",
        "org",
        "--json",
        "--yes",
        "--private",
        "--out",
        "folder",
    ]
    assert main([*arguments, "--dry-run"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert (dry["revision"], dry["weights"]["revision"], dry["catalog_file"]) == (None, None, None)
    assert main(arguments) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["files"] == dry["files"]
    assert (done["repo"], done["private"], done["folder"]) == (f"org/{NAME}", True, "folder")
    assert done["revision"] == done["weights"]["revision"] == hub.store.repos[f"org/{NAME}"].branches["main"]
    assert done["files"]["model.safetensors"]["sha256"] == done["weights"]["sha256"]


def test_without_a_catalog_to_rewrite_the_block_is_printed(
    here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISCO_ZOO_CATALOG")
    monkeypatch.setattr("disco_zoo.weights.publish.job.PACKAGE_DIR", here / "site-packages" / "disco_zoo")
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org", "--yes"]) == 0
    printed = capsys.readouterr()
    assert f"checkpoints:\n  {NAME}:\n    weights:\n      {{source: hub, repo: org/{NAME}," in printed.out
    assert "put this into your catalog" in printed.err


def test_nobody_to_ask_means_no_upload(here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(("answer", "code"), [("n", 130), ("y", 0)])
def test_whoever_is_there_is_asked(
    answer: str, code: int, here: Path, hub: TestHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org"]) == code
    assert (f"org/{NAME}" in hub.store.repos) == (answer == "y")


@pytest.mark.parametrize(
    "org", ["../x", "a/b/c", "a/b", "", "-x", "x-", "a b", "ä", "a--b", "a..b", "x" * 97, "$(id)", ".", "~"]
)
def test_odd_organisations(org: str, refused: Refused) -> None:
    message = refused("effb0.disco_lite0_cifar10", "--to", org, "--dry-run")
    assert "--to" in message


def test_no_organisation(refused: Refused) -> None:
    assert "Type --to ORG" in refused("effb0.disco_lite0_cifar10", "--dry-run")
    assert "DISCO_ZOO_ORG" in refused("effb0.disco_lite0_cifar10")


@pytest.mark.parametrize("name", ["../x", "efb0", "a/b", "disco_effb0.../../x", "", "ä\n", "-x", "x" * 200])
def test_odd_names(name: str, refused: Refused) -> None:
    assert re.search(r"no model|no name of a model", refused("--to", "org", "--", name))


def test_a_row_whose_name_is_a_path(here: Path, tmp_path: Path, refused: Refused) -> None:
    catalog = tmp_path / "own.yaml"
    text = catalog.read_text(encoding="utf-8").replace(f"  {NAME}:", "  disco_effb0.a/b:")
    catalog.write_text(text.replace("default: feature_lite2_photos}", "default: a/b}", 1), encoding="utf-8")
    assert "is no name of a model" in refused("disco_effb0.a/b", "--to", "org", "--dry-run")
    assert "'disco_effb0.a/b' cannot name a repository" in refused("effb0", "--to", "org", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mocov2_r50",), "is a teacher"),
        (("effb0.disco_lite0_cifar10", "--tag", "../v1"), "cannot name a commit"),
        ((OFFICIAL,), "you may not have the right to publish them. If you have it, add --accept-unknown-licence"),
        ((OFFICIAL, "--accept-unknown-licence"), f"not on this machine. .*disco-zoo download {OFFICIAL}"),
        (("disco_effb0.mocov2_cifar10",), "not on this machine. Add --weights"),
        (("effb0.disco_lite0_cifar10", "--weights", "nowhere"), "There is no nowhere"),
    ],
)
def test_what_there_is_no_right_or_nothing_to_publish(arguments: tuple[str, ...], words: str, refused: Refused) -> None:
    assert re.search(words, refused(*arguments, "--to", "org", "--dry-run"))


def test_weights_of_a_run(here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(here / "run")
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org", "--yes", "--weights", "run", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    config = json.loads((here / "runs" / f"{NAME}-hub" / "config.json").read_text())
    assert config["disco_zoo"]["source"] == {
        "layout": "run",
        "source_file": "student.safetensors",
        "source_sha256": done["weights"]["sha256"],
        "date": "2026-01-02",
    }


def test_converted_weights_keep_their_provenance(
    here: Path, hub: TestHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, network = "disco_effb0.seed_swav_r50w2_in1k", "disco_effb0_pad224"
    monkeypatch.setenv("DISCO_ZOO_HOME", str(here / "home"))
    facts = {"layout": "seed", "source_file": "b0.pth.tar", "source_sha256": "a" * 64, "date": "2026-01-02"}
    found = store.install(name, network, lambda path: random_weights(path, network) and None, facts, Path.touch)
    found.golden.unlink()
    options = ["--to", "org", "--yes", "--accept-unknown-licence"]
    assert main(["publish", name, *options]) == 0
    stored = hub.store.repos[f"org/{name}"]
    files = stored.commits[stored.branches["main"]]
    assert files["model.safetensors"] == found.path.read_bytes()
    config = json.loads(files["config.json"])
    assert (config["architecture"], config["disco_zoo"]["source"]) == (network, facts)
    row = load_catalog().checkpoints[name]
    assert (row.weights.source, row.weights.sha256) == ("hub", found.sha256)
    capsys.readouterr()


def test_runs_that_do_not_fit_are_refused(here: Path, refused: Refused) -> None:
    options = ("effb0.disco_lite0_cifar10", "--to", "org", "--dry-run", "--weights")
    (here / "empty").mkdir()
    assert "does not describe weights" in refused(*options, "empty")
    run_folder(here / "other", name="disco_effb0.mocov2_cifar10")
    assert f"is of disco_effb0.mocov2_cifar10, not of {NAME}" in refused(*options, "other")
    run_folder(here / "altered", sha256="0" * 64)
    assert "is not the file that altered describes" in refused(*options, "altered")
    run_folder(here / "outside", file="../../student.safetensors")
    (here / "outside" / "student.safetensors").unlink()
    assert "is not the file that outside describes" in refused(*options, "outside")
    run_folder(here / "odd")
    (here / "odd" / "run.json").write_text('{"name": "x", "student": "y"}')
    assert "does not describe weights" in refused(*options, "odd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 5}, "run was trained for 5 of 600 steps. Repeat its command with --resume"),
        ({"data": {"images": 500}}, f"run differs from the catalog's {NAME}: 500 images (CIFAR-10 has 50000). Train"),
        ({"student": {"image_size": 96}}, "image_size 96 (there 64)"),
        ({"student": {"resize_size": None}}, "resize_size 73 (there 64)"),
        ({"student": {"std": [0.229, 0.224, 0.225]}}, "std [0.229, 0.224, 0.225] (there [0.5, 0.5, 0.5])"),
    ],
)
def test_a_run_of_something_else_is_not_published(
    changes: dict[str, Any], words: str, here: Path, refused: Refused
) -> None:
    run_folder(here / "run")
    student = {**json.loads((here / "run" / "run.json").read_text())["student"], **changes.pop("student", {})}
    change_facts(here / "run", student=student, **changes)
    assert words in refused("effb0.disco_lite0_cifar10", "--to", "org", "--dry-run", "--weights", "run")


def test_a_run_vouches_for_the_catalogs_figures_by_its_own(
    here: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = random_weights(here / "mine.safetensors", "efficientnet_b0")
    run_folder(here / "run", RECIPE_ONLY, RECIPE_ONLY, sha256=mine.sha256)
    mine.path.replace(here / "run" / "student.safetensors")
    options = ("effb0.disco_lite0_fmnist", "--to", "org", "--dry-run", "--weights", "run")
    message = refused(*options)
    assert f"figures of {RECIPE_ONLY} are not those of run/student.safetensors: it states none of its own." in message
    assert f"train it again: disco-zoo reproduce {RECIPE_ONLY}" in message
    change_facts(here / "run", figures={"knn20_top1": 61.0, "linear_top1": 87.0})
    assert "its knn20_top1 is 61.00, the catalog's 84.42." in refused(*options)
    change_facts(here / "run", figures={"knn20_top1": 84.0})
    assert main(["publish", *options]) == 0
    change_facts(here / "run", figures=None)
    (here / "run" / "results.json").write_text('{"figures": {"student": {"linear_top1": 87.0}}}')
    assert main(["publish", *options]) == 0
    capsys.readouterr()


def test_an_installed_run_vouches_for_no_figures(here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(here / "home"))
    facts = {"layout": "run", "source_file": "student.safetensors"}

    def write(path: Path) -> None:
        random_weights(path, "efficientnet_b0")

    store.install(RECIPE_ONLY, "efficientnet_b0", write, facts, Path.touch)
    assert "nothing says that" in refused("effb0.disco_lite0_fmnist", "--to", "org", "--dry-run")


def test_figures_of_other_weights_are_not_published(here: Path, refused: Refused) -> None:
    random_weights(here / "mine.safetensors", "efficientnet_b0")
    message = refused("effb0.disco_lite0_cifar10", "--to", "org", "--dry-run", "--weights", "mine.safetensors")
    assert "figures of disco_effb0.disco_lite0_cifar10 were measured with weights 4b47cccf74e1…" in message


@pytest.mark.parametrize(
    ("licence", "options", "note"),
    [
        (
            "unknown",
            ["--accept-unknown-licence"],
            "Nobody stated a licence for these weights; they are published on your word.",
        ),
        ("CC-BY-NC-4.0", [], "Non-commercial terms, which the card states, too (weights: CC-BY-NC-4.0)."),
        ("MIT", [], ""),
    ],
)
def test_licences_are_spoken_of(
    licence: str,
    options: list[str],
    note: str,
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = f"{{code: MIT, weights: {licence}, teacher: MIT, data: MIT}}"
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(own_catalog(tmp_path, licence=value)))
    assert main(["publish", "effb0.disco_lite0_cifar10", "--to", "org", "--dry-run", *options]) == 0
    error = capsys.readouterr().err
    assert note in error if note else "Note" not in error
    card = (here / "runs" / f"{NAME}-hub" / "README.md").read_text(encoding="utf-8")
    assert f"- Weights: {licence}" in card
