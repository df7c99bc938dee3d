"""A view and a row that do not belong together: nothing is learned from them, and no more than they is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_runs import build, cache_of, cached_recipe, content
from filelock import FileLock
from method_runs import method_recipe
from slow_params import slow_but
from tiny_runs import toy_images, train

from disco_zoo.core.console import console
from disco_zoo.errors import BadCache, BadRunFolder
from disco_zoo.models.teacher import Teacher
from disco_zoo.teacher_cache import inventory
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import Done, Journal
from disco_zoo.training.replay_views import Mismatch

pytest_plugins = ("cache_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread", "own_caches")

NUM_IMAGES, VIEWS = 100, 2  # two blocks, of 64 and of 36 images
RECIPE = cached_recipe(VIEWS, optim__epochs=1)
OTHERS = toy_images(NUM_IMAGES, seed=7)
ROW_BYTES = 2 * 96  # features of the toy teacher


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder whose fingerprint is of names and sizes: it does not tell an image edited in place."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(toy_images(NUM_IMAGES, seed=0)):
        image.save(folder / f"{number:03d}.bmp")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views the teacher was asked about, call by call."""
    calls: list[int] = []
    former = Teacher.__call__

    def count(teacher: Teacher, views: Any, *arguments: Any) -> Any:
        calls.append(len(views))
        return former(teacher, views, *arguments)

    monkeypatch.setattr(Teacher, "__call__", count)
    return calls


def edit(folder: Path, *numbers: int) -> None:
    for number in numbers:
        OTHERS[number].save(folder / f"{number:03d}.bmp")


def overwrite(cache: CacheFolder, image: int, values: bytes) -> None:
    """Damage the row of slot 1 of an image."""
    with (cache.path / "rows.f16").open("rb+") as file:
        file.seek((NUM_IMAGES + image) * ROW_BYTES)
        file.write(values)


def test_an_edited_image_costs_its_block_alone(photos: Path, tmp_path: Path, asked: list[int]) -> None:
    cache = cache_of(build(RECIPE, photos))
    before = content(cache)
    assert sum(asked) == NUM_IMAGES * VIEWS
    edit(photos, 70)
    with pytest.raises(
        BadCache, match=r"image 70 \(.*070\.bmp\) is not what the teacher saw: it changed since\. The rows"
    ):
        train(RECIPE, photos, tmp_path / "run")
    assert not (tmp_path / "run" / "student.safetensors").exists()
    assert cache.missing(VIEWS).tolist() == [[False] * VIEWS, [True] * VIEWS]
    asked.clear()
    train(RECIPE, photos, tmp_path / "run", resume=True)
    assert sum(asked) == (NUM_IMAGES - 64) * VIEWS
    mended = content(cache)
    assert mended != before
    inventory.remove(cache)
    assert content(cache_of(build(RECIPE, photos))) == mended


def test_edits_in_one_batch_cost_their_blocks_and_condemn_no_other(photos: Path, asked: list[int]) -> None:
    """Image 99 is among those compared; that it was edited as well says nothing of the 31 others."""
    replay = build(RECIPE, photos)
    edit(photos, 70, 99)
    error = replay.refusal_of([Mismatch(0, 70, 1), Mismatch(0, 99, 1)])
    assert re.search(r"image 70 .* it changed since\. .* block of 64 images are struck out", str(error))
    assert cache_of(replay).missing(VIEWS).tolist() == [[False] * VIEWS, [True] * VIEWS]
    edit(photos, 3, 0)
    error = replay.refusal_of([Mismatch(0, 3, 0)])  # image 0 is compared, too
    assert re.search(r"image 3 .* it changed since\. .* disco-zoo cache rm [0-9a-f]{16} first", str(error))
    assert cache_of(replay).missing(VIEWS).all()
    error = replay.refusal_of([Mismatch(0, 3, 0)])
    assert re.search(r"another process found teacher cache [0-9a-f]{16} wrong at image 3 ", str(error))


def test_damage_elsewhere_is_no_change_of_images(photos: Path) -> None:
    replay = build(RECIPE, photos)
    edit(photos, 70)
    overwrite(cache_of(replay), 0, b"\x55")
    assert "changed since. The rows" in str(replay.refusal_of([Mismatch(0, 70, 1)]))


def test_an_image_that_could_not_be_read_before_is_said(photos: Path) -> None:
    good = (photos / "070.bmp").read_bytes()
    (photos / "070.bmp").write_bytes(bytes(len(good)))
    replay = build(RECIPE, photos)
    (photos / "070.bmp").write_bytes(good)
    item = replay.epoch(0, None)[70]
    assert {mismatch.image for mismatch in item["mismatches"]} == {70}
    assert "it could not be read when the cache was built, and can be now" in str(replay.refusal_of(item["mismatches"]))


def test_a_process_that_strikes_out_is_waited_for(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = build(RECIPE, photos)
    cache = cache_of(replay)
    edit(photos, 70)
    with FileLock(cache.path / ".lock"):
        monkeypatch.setattr("disco_zoo.training.replay.PATIENCE_SECONDS", 0.3)
        assert "another process changes teacher cache" in str(replay.refusal_of([Mismatch(0, 70, 1)]))
    assert not cache.missing(VIEWS).any()
    assert "changed since" in str(replay.refusal_of([Mismatch(0, 70, 1)]))


def test_small_crops_of_an_edited_image_are_struck_out_with_its_views(photos: Path) -> None:
    replay = build(method_recipe("seed", teacher__cache_views=2), photos)
    edit(photos, 70)
    mismatches = replay.epoch(0, None)[70]["mismatches"]
    assert {mismatch.kind for mismatch in mismatches} == {0, 1}
    replay.refusal_of(mismatches[::-1])
    for kind in replay.kinds:
        assert kind.rows.cache.missing(kind.rows.slots).all(axis=1).tolist() == [False, True]


def test_journals_that_are_rewritten_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, images=200)
    for writer in (0, 1):
        journal.append(Done(64 * writer, 0, 2, 7), writer)
    kept, read_bytes = [Done(64, 0, 2, 7)], Path.read_bytes

    def rewritten_meanwhile(path: Path) -> bytes:
        if path.name == "done-1.jsonl":
            journal.rewrite(kept)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", rewritten_meanwhile)
    assert list(journal.read()) == kept


def test_where_all_views_changed_the_cache_is_of_no_use(photos: Path, tmp_path: Path) -> None:
    cache = cache_of(build(RECIPE, photos))
    before = content(cache)
    edit(photos, *range(NUM_IMAGES))
    with pytest.raises(
        BadCache, match=r"image \d+ .* and (\d+) of \1 others are not what .* cache rm [0-9a-f]{16}, then"
    ):
        train(RECIPE, photos, tmp_path / "run")
    assert content(cache) == before
    assert not cache.missing(VIEWS).any()


DAMAGES = [b"\x55", np.full(96, np.nan, "<f2").tobytes()]


@pytest.mark.parametrize("values", slow_but(DAMAGES, DAMAGES[:1]), ids=["a byte", "no numbers"])
def test_a_damaged_row_is_never_learned_from(values: bytes, photos: Path, tmp_path: Path, asked: list[int]) -> None:
    cache = cache_of(build(RECIPE, photos))
    whole = content(cache)
    overwrite(cache, 3, values)
    with pytest.raises(
        BadCache, match=r"cache [0-9a-f]{16} is damaged at image 3 .*struck out.*cache verify [0-9a-f]{16} finds"
    ):
        train(RECIPE, photos, tmp_path / "run")
    assert not (tmp_path / "run" / "student.safetensors").exists()
    asked.clear()
    train(RECIPE, photos, tmp_path / "run", resume=True)
    assert sum(asked) == 64 * VIEWS
    assert content(cache) == whole


def test_a_cache_that_may_not_be_written_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(build(RECIPE, photos))
    edit(photos, 70)

    former = type(cache.lock).acquire

    def refuse(lock: Any, *arguments: Any, **options: Any) -> Any:
        if Path(lock.lock_file).parent == cache.path:
            raise PermissionError(13, "Permission denied")
        return former(lock, *arguments, **options)

    monkeypatch.setattr(type(cache.lock), "acquire", refuse)
    with pytest.raises(BadCache, match=r"is not what the teacher cache .* stays as it is: .*Permission denied"):
        train(RECIPE, photos, tmp_path / "run")


CHANGES: list[tuple[dict[str, Any], str | None]] = [
    ({"optim__precision": "bf16"}, "is of precision fp32, not bf16"),
    ({"teacher__source": "test_efficientnet"}, "is of another teacher or input of it (test_resnet (random weights))"),
    ({"data__max_images": 20}, "is of other images (100 images, not 20)"),
    ({"views__recipe": "plain"}, "is of views of another recipe or size"),
    ({"seed": 1, "views__recipe": "plain"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_run_says_why_it_makes_a_new_cache(
    change: dict[str, Any],
    words: str | None,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = cache_of(build(RECIPE, photos)).path.name
    monkeypatch.setattr(console, "quiet", False)
    capsys.readouterr()
    other = cache_of(build(cached_recipe(VIEWS, optim__epochs=1, **change), photos)).path.name
    said = [line for line in capsys.readouterr().err.splitlines() if "a new one is made" in line]
    if words is None:
        assert said == []
        return
    assert said == [
        f"teacher cache {first} {words}: a new one is made, {other}. "
        f"If no run needs the other: disco-zoo cache rm {first}"
    ]


def test_a_run_on_other_images_is_refused_before_its_cache_is_built(photos: Path, tmp_path: Path) -> None:
    train(RECIPE, photos, tmp_path / "run", steps=2)
    OTHERS[0].save(photos / "new.bmp")
    with pytest.raises(BadRunFolder, match="holds a run on other images"):
        train(RECIPE, photos, tmp_path / "run", resume=True)
    assert len(inventory.caches()) == 1
    (photos / "new.bmp").unlink()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK")
    inventory.remove(inventory.caches()[0])
    with pytest.raises(BadRunFolder, match="is damaged"):
        train(RECIPE, photos, tmp_path / "run", resume=True)
    assert inventory.caches() == []
