"""A second start is refused before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_runs import subprocess_environment

from disco_zoo.cli.first_look import is_locked, require_free_file, require_free_folder
from disco_zoo.errors import BadRunFolder

TYPED = """
import sys
from disco_zoo.cli import main
code = main(sys.argv[1:])
print("torch" in sys.modules, code)
"""
COMMANDS = {
    "train": ["pocket/disco_effb0.disco_lite0_fmnist"],
    "reproduce": ["effb0"],
    "finetune": ["disco_effb0", "--data", "sample"],
    "detect": ["disco_effb0", "--data", "sample"],
    "segment": ["disco_effb0", "--data", "sample"],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_folder_in_use_is_refused_without_torch(verb: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        found = subprocess.run(
            [sys.executable, "-c", TYPED, verb, *COMMANDS[verb], "--out", str(tmp_path / "run")],
            capture_output=True,
            text=True,
            env=subprocess_environment(),
            check=False,
            timeout=120,
        )
    assert found.stdout == "False 2\n"
    assert found.stderr == f"Error: {tmp_path / 'run'} is in use by another run. Choose another folder with --out\n"


def test_a_run_that_is_there_and_one_that_is_not(tmp_path: Path) -> None:
    require_free_folder(None, resume=False)
    require_free_folder(tmp_path / "new", resume=False)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(BadRunFolder, match=r"already holds a run. Add --resume"):
        require_free_folder(tmp_path, resume=False)
    require_free_folder(tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "run.json").write_text('{"steps": 0}')  # of --start-only
    require_free_folder(tmp_path, resume=False)
    (tmp_path / "run.json").write_text('{"steps": 3}')
    with pytest.raises(BadRunFolder, match=r"already holds a run. Add --resume"):
        require_free_folder(tmp_path, resume=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadRunFolder, match=r"run\.json is damaged\. Choose another --out"):
        require_free_folder(tmp_path, resume=False)


def test_an_embedding_that_was_begun_says_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "photos.parquet"
    parts = tmp_path / "photos.parquet.parts"
    require_free_file(out, resume=False, write_over=False)
    parts.mkdir()
    for number in range(3):
        (parts / f"part_{number:06d}.json").touch()
    with pytest.raises(BadRunFolder, match=r"was begun and stopped: 3 finished parts are in .*parts. Add --resume"):
        require_free_file(out, resume=False, write_over=False)
    require_free_file(out, resume=True, write_over=False)
    with FileLock(parts / ".lock"), pytest.raises(BadRunFolder, match="another command is at"):
        require_free_file(out, resume=True, write_over=False)
    assert not is_locked(parts / ".lock")


def test_a_json_of_somebody_else_is_not_replaced_by_that_of_an_array(tmp_path: Path) -> None:
    (tmp_path / "photos.json").write_text("{}")
    for resume, write_over in ((False, False), (False, True), (True, False)):
        with pytest.raises(BadRunFolder, match=r"photos\.json is there and is no embedding's"):
            require_free_file(tmp_path / "photos.npy", resume, write_over)
    require_free_file(tmp_path / "photos.parquet", resume=False, write_over=False)
