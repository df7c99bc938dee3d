"""Licences as SPDX identifiers, and the filters of `list` that ask for them."""

from __future__ import annotations

import json

import pytest

from disco_zoo.cli import main
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.licences import COMMERCIAL, is_commercial, spdx, spdx_of


@pytest.mark.parametrize(
    ("licence", "identifier"),
    [
        ("Apache-2.0", "Apache-2.0"),
        ("apache-2.0", "Apache-2.0"),
        ("CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("unknown", "NOASSERTION"),
        ("unknown (its authors exclude commercial use)", "NOASSERTION"),
        ("ImageNet terms (non-commercial research)", "LicenseRef-ImageNet-terms"),
        ("Our lab's terms", "LicenseRef-Our-lab-s-terms"),
    ],
)
def test_a_licence_as_spdx_writes_it(licence: str, identifier: str) -> None:
    assert spdx(licence) == identifier


def test_commercial_needs_weights_code_and_teacher() -> None:
    row = load_catalog().checkpoints["disco_effb0.disco_lite0_fmnist"]
    assert is_commercial(row)
    for part in ("code", "weights", "teacher"):
        for licence in ("unknown", "CC-BY-NC-4.0", "GPL-3.0-only", "Something"):
            other = row.licence.model_copy(update={part: licence})
            assert not is_commercial(row.model_copy(update={"licence": other}))
    no_matter = row.licence.model_copy(update={"data": "unknown"})
    assert is_commercial(row.model_copy(update={"licence": no_matter}))


def test_list_filters_by_licence(capsys: pytest.CaptureFixture[str]) -> None:
    rows = load_catalog().checkpoints.values()
    assert main(["list", "--license", "APACHE-2.0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == [row.name for row in rows if row.licence.weights == "Apache-2.0"]
    assert all(row["spdx"]["weights"] == "Apache-2.0" for row in found)
    assert main(["list", "--license", "noassertion", "--json"]) == 0
    assert all(row["spdx"]["weights"] == "NOASSERTION" for row in json.loads(capsys.readouterr().out))


def test_list_commercial_says_what_it_does_not_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--commercial", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found
    assert all({row["spdx"][part] for part in ("code", "weights", "teacher")} <= COMMERCIAL for row in found)
    assert all(row["commercial"] for row in found)
    assert "data's own terms" in captured.err
    assert main(["list", "--teachers", "--commercial", "--json"]) == 0
    assert {"lite0", "lite1", "lite2"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_an_unknown_licence_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--license", "apache2"]) == 2
    assert "Did you mean 'apache-2.0'?" in capsys.readouterr().err


def test_json_and_cards_carry_spdx(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "disco_effb0.disco_mocov2_r50_in1k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spdx"] == {
        "code": "CC-BY-NC-4.0",
        "weights": "NOASSERTION",
        "teacher": "NOASSERTION",
        "data": "LicenseRef-ImageNet-terms",
    }
    assert main(["card", "disco_effb0.disco_lite0_cifar10"]) == 0
    assert (
        "- SPDX: code Apache-2.0, weights Apache-2.0, teacher Apache-2.0, data NOASSERTION" in capsys.readouterr().out
    )
    assert spdx_of(load_catalog().teachers["lite0"]) == {"weights": "Apache-2.0"}
