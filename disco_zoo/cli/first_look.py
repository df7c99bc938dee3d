"""What a command can refuse before half a minute of imports: outputs that are taken, data that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from disco_zoo.core.claimed_dir import already_holds_a_run, holds_run
from disco_zoo.core.launcher import is_first_process, was_restarted
from disco_zoo.data.image_files import is_image_name
from disco_zoo.data.open_source import require_there
from disco_zoo.embedding.json_beside import require_json_is_ours
from disco_zoo.errors import BadRunFolder


def require_free_folder(folder: Path | None, resume: bool) -> None:
    """Refuse a run folder of another run; what only the run itself can know, it checks again.

    Args:
        folder: None where the command has yet to choose one.

    Raises:
        BadRunFolder: another process is at it, or it holds a run and `resume` was not said.
    """
    if folder is None or not is_first_process():
        return
    if is_locked(folder / ".lock"):
        raise BadRunFolder(f"{folder} is in use by another run. Choose another folder with --out")
    if not resume and not was_restarted() and holds_run(folder):
        raise already_holds_a_run(folder)


def require_free_file(out: Path, resume: bool, write_over: bool) -> None:
    """Refuse the file of an embedding that is there, is being made, or was begun, or whose .json is somebody else's.

    Args:
        resume: `--resume`, or one of several shards.

    Raises:
        BadRunFolder: the message says which.
    """
    parts = out.with_name(f"{out.name}.parts")
    if is_locked(parts / ".lock"):
        raise BadRunFolder(f"another command is at {parts}. Wait, or choose another --out")
    require_json_is_ours(out)
    if resume:
        return
    if out.is_file() and not write_over:
        raise BadRunFolder(f"{out} is there already. Choose another --out, or add --yes to write over it")
    if begun := len([*parts.glob("part_*.json")]):
        many = "parts are" if begun > 1 else "part is"
        raise BadRunFolder(
            f"{out} was begun and stopped: {begun} finished {many} in {parts}. Add --resume to go on, or delete it"
        )


def require_new_result(out: Path | None, *, write_over: bool) -> None:
    """Refuse to write over a result.

    Raises:
        BadRunFolder: a file is there.
    """
    if out is not None and out.is_file() and not write_over:
        raise BadRunFolder(f"{out} is there already. Choose another --out, or add --yes to write over it")


def require_data(*given: str | None) -> None:
    """Refuse data that are not there.

    Raises:
        BadData: one of them is a path of nothing.
    """
    for data in given:
        if data is not None:
            require_there(data)


def require_images(given: Sequence[str]) -> None:
    """Refuse a folder or source of images that is not there; files and lists of files have errors of their own.

    Raises:
        BadData: there is nothing.
    """
    if len(given) == 1 and not is_image_name(given[0]) and not given[0].lower().endswith(".txt"):
        require_there(given[0])


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file."""
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # not ours to write: the run says so, in its own words
        return False
    lock.release()
    return False
