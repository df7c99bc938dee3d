"""`disco-zoo cache` as a user types it."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.config.recipe import load_recipe
from disco_zoo.teacher_cache.rows import CachedRows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`cache build` but for the number of views."""
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    data, recipe = toy_parquet(tmp_path), toy_recipe_file(tmp_path, "disco")
    return ["cache", "build", str(recipe), "--data", str(data), "--workers", "0", "--device", "cpu"]


def test_build_list_verify_rm(typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list"]) == 0
    assert "There are no teacher caches" in capsys.readouterr().err
    assert main([*typed, "--views", "2"]) == 0
    built = capsys.readouterr()
    name = built.out.split(":")[0]
    assert built.out == f"{name}: 2 views of 26 images, 0.0 MB\n"
    assert "teacher's views: 52 of 52" in built.err
    assert main([*typed, "--views", "4"]) == 0
    assert "104 of 104" in capsys.readouterr().err
    assert main(["cache", "list"]) == 0
    table = capsys.readouterr().out
    assert name in table
    assert "test_resnet (random weights)" in table
    assert main(["cache", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["views"], row["slots"], row["images"], row["width"]) == (name, 4, 4, 26, 96)
    folder = tmp_path / "caches/teacher_views" / name
    assert row["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert main(["cache", "verify"]) == 0
    assert capsys.readouterr().out == f"{name}: verified (4 views)\n"
    with (folder / "rows.f16").open("rb+") as file:
        file.write(b"\x12\x34\x56")
    assert main(["cache", "verify", name[:6]]) == 1
    assert capsys.readouterr().out == f"{name}: FAILED, 1 of 2 blocks are damaged: repeat the build (2 of 4 views)\n"
    assert main(["cache", "list"]) == 0
    assert "2 of 4" in capsys.readouterr().out
    assert main(["cache", "rm", name[:6], "--yes"]) == 0
    assert not list((tmp_path / "caches/teacher_views").iterdir())


def test_the_commands_of_page_and_help_fit_their_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["cache", "build", "--help"])
    page = (Path(__file__).parents[2] / "docs" / "cache.md").read_text(encoding="utf-8")
    shown = re.findall(
        r"^ *(?:disco-zoo|\S.* disco_zoo) (?:train|cache build) (\w\S+/?\S*) (.*)$",
        page + capsys.readouterr().out,
        re.M,
    )
    tried = [(recipe, words) for recipe, words in shown if recipe.startswith("disco_")]
    assert len(tried) == 2
    for recipe, words in tried:
        overrides = re.findall(r"--set (\S+)", words)
        overrides += [f"teacher.cache_views={views}" for views in re.findall(r"--views (\d+)", words)]
        assert load_recipe(recipe, overrides).teacher.cache_views == 8  # type: ignore[union-attr]


def test_a_damaged_one_is_said_by_list_and_verify(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, "--views", "2"]) == 0
    (folder,) = (tmp_path / "caches/teacher_views").iterdir()
    (folder / "cache.json").write_text('{"key": ')
    capsys.readouterr()
    line = f"{folder} is no teacher cache, or a damaged one. Type: disco-zoo cache rm {folder.name}"
    assert main(["cache", "list"]) == 0
    assert line in capsys.readouterr().err.splitlines()
    assert main(["cache", "verify"]) == 1
    assert line in capsys.readouterr().err.splitlines()
    assert main(["cache", "rm", folder.name, "--yes"]) == 0
    assert main(["cache", "verify"]) == 0


def test_rm_asks_first(typed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*typed, "--views", "2"]) == 0
    name = capsys.readouterr().out.split(":")[0]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["cache", "rm", name]) == 2
    assert "nobody answered, nothing is removed. To do it unasked, type: --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["cache", "rm", "--all"]) == 0
    assert "nothing removed" in capsys.readouterr().err
    assert main(["cache", "list"]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "how many views of each image? Type: --views 4"),
        (["--views", "3"], "must be a multiple of the 2 views that disco takes a step"),
        (
            ["--views", "64"],
            "over 2 epochs never needs more than 4 views, not 64. Type: --views 4",
        ),
        (["--views", "0"], "0 is not in the range x>=1"),
    ],
)
def test_bad_numbers_are_one_line(
    arguments: list[str], words: str, typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "caches").exists()


def test_a_method_without_a_teacher_has_nothing_to_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2")
    assert main(["cache", "build", str(recipe), "--views", "2", "--data", "sample"]) == 2
    assert "moco_v2 has no teacher" in capsys.readouterr().err
    assert main(["cache", "rm"]) == 2
    assert "name caches by ID, or type --all" in capsys.readouterr().err


def test_a_cache_removed_beside_a_run_with_workers_is_one_line(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    former = CachedRows.row

    def removed(rows: CachedRows, image: int, slot: int) -> Any:
        shutil.rmtree(tmp_path / "caches", ignore_errors=True)
        rows._files = None
        return former(rows, image, slot)

    monkeypatch.setattr(CachedRows, "row", removed)
    arguments = ["train", *typed[2:], "--set", "teacher.cache_views=2", "--out", str(tmp_path / "run")]
    arguments[arguments.index("--workers") + 1] = "1"
    assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Error" in line or "Traceback" in line]
    assert line.startswith("Error: teacher cache ")
    assert line.endswith("was removed while it was read. Repeat the command with --resume")
