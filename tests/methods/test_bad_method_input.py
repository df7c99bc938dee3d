"""Settings that no method can train with, as a user types them: one line that says what to type, before any step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_stream import FakeStream
from method_runs import method_recipe, method_values
from one_line_errors import only_error
from tiny_runs import BATCH_SIZE, NUM_TRAIN, toy_parquet, train

from disco_zoo.cli import main
from disco_zoo.config.recipe import parse_recipe
from disco_zoo.config.validation import schema_of
from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.methods import METHODS
from disco_zoo.teacher_cache.cache_dir import CacheFolder

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = {name: [*schema_of(method).model_fields] for name, method in METHODS.items()}
WITH_TEACHER = [name for name, method in METHODS.items() if method.needs_teacher]
SAME_WIDTH = [name for name in WITH_TEACHER if name not in ("compress_2q", "compress_2q_momentum", "crd", "feature")]
COMPRESS = [name for name in METHODS if name.startswith("compress")]
SMALL = [name for name, method in METHODS.items() if method.small_views != "no"]
SAYS_WHAT_TO_TYPE = re.compile(r": --set |leave it out|Pack it to parquet, or use ")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bags(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag file of a run with the toy teacher."""
    folder = tmp_path_factory.mktemp("bags")
    train(method_recipe("bingo"), data, folder / "run", steps=1)
    return next((folder / "run" / "teacher_features").glob("bags_*.npy"))


def arguments(method: str, data: object, folder: Path, *more: object) -> list[object]:
    """Of `disco-zoo train` for a toy recipe that trains, but for what `more` says."""
    values = method_values(method)
    recipe = folder / f"toy_{method}.yaml"
    recipe.write_text(dump_yaml(values), encoding="utf-8")
    return ["train", recipe, "--data", data, "--out", folder / "run", "--device", "cpu", "--workers", 0, *more]


def settings(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


class Refusal:
    def __init__(self, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.folder, self.capsys = data, folder, capsys

    def __call__(self, method: str, *overrides: str, data: object = None) -> str:
        """Train with what is wrong; return the one line."""
        typed = arguments(method, data or self.data, self.folder, *settings(*overrides))
        self.capsys.readouterr()
        assert main([*map(str, typed)]) == 2
        printed = self.capsys.readouterr()
        message = only_error(printed.out, printed.err)
        assert SAYS_WHAT_TO_TYPE.search(message), message
        assert not (self.folder / "run" / "metrics.jsonl").exists()
        assert not (self.folder / "run" / "checkpoint.pt").exists()
        return message


@pytest.fixture
def refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(data, tmp_path, capsys)


@pytest.mark.parametrize(
    ("method", "key"), [(name, key) for name, keys in KEYS.items() for key in keys if "temperature" in key]
)
@pytest.mark.parametrize("value", ["0", "-0.1"])
def test_a_temperature_must_be_above_zero(method: str, key: str, value: str, refused: Refusal) -> None:
    message = refused(method, f"method.{key}={value}")
    assert f"method.{key}: input should be greater than 0, not {value}. Type: --set method.{key}=" in message


def test_every_method_that_divides_by_a_temperature_is_among_these() -> None:
    assert {name for name, keys in KEYS.items() if not any("temperature" in key for key in keys)} == {
        "coss",
        "feature",
        "kd_mse",
    }


@pytest.mark.parametrize("method", [name for name, keys in KEYS.items() if "queue_size" in keys])
def test_a_queue_must_hold_a_batch(method: str, refused: Refusal) -> None:
    message = refused(method, f"method.queue_size={BATCH_SIZE - 1}")
    assert f"method.queue_size: must hold a batch of {BATCH_SIZE} images, not {BATCH_SIZE - 1}" in message
    assert message.endswith(f"Type: --set method.queue_size={BATCH_SIZE}")


@pytest.mark.parametrize("method", COMPRESS)
def test_a_memory_must_not_be_larger_than_the_data(method: str, refused: Refusal) -> None:
    message = refused(method, "method.queue_size=128000")
    assert message.startswith(f"method.queue_size 128000 is larger than the data ({NUM_TRAIN} images)")
    assert message.endswith(f"--set method.queue_size={NUM_TRAIN}")


def test_negatives_must_not_be_more_than_the_data(refused: Refusal) -> None:
    message = refused("crd", f"method.negatives={NUM_TRAIN + 1}")
    assert message.startswith(f"method.negatives {NUM_TRAIN + 1} are more than the data ({NUM_TRAIN} images)")


def test_a_bag_must_be_smaller_than_the_data(refused: Refusal) -> None:
    message = refused("bingo", f"method.bag_size={NUM_TRAIN}")
    assert f"needs more than {NUM_TRAIN} images, there are {NUM_TRAIN}" in message


@pytest.mark.parametrize("method", WITH_TEACHER)
def test_a_head_that_is_asked_for_must_be_there(method: str, refused: Refusal) -> None:
    message = refused(method, "teacher.features=head")
    assert message.startswith("teacher.features: head, but test_resnet (random weights) has no SSL head")
    assert message.endswith("Type: --set teacher.features=backbone")


@pytest.mark.parametrize("method", WITH_TEACHER)
def test_a_teacher_must_be_named(method: str, refused: Refusal) -> None:
    values = method_values(method)
    values["teacher"] = None
    recipe = refused.folder / "mine.yaml"
    recipe.write_text(dump_yaml(values), encoding="utf-8")
    refused.capsys.readouterr()
    assert main(["train", str(recipe), "--data", str(refused.data)]) == 2
    printed = refused.capsys.readouterr()
    message = only_error(printed.out, printed.err)
    assert f"missing key 'teacher.source' (method {method} needs a teacher)" in message


@pytest.mark.parametrize("method", SAME_WIDTH)
def test_student_and_teacher_must_have_one_width_where_they_are_compared(method: str, refused: Refusal) -> None:
    message = refused(method, "student.embed_dim=5")
    assert "student.embed_dim 5 must be the " in message
    assert "--set student.embed_dim=" in message


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_is_refused(method: str, refused: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **settings: FakeStream())
    monkeypatch.setattr("disco_zoo.data.formats.timm_prefixed.PREFIX_MODULES", {})
    message = refused(method, data="wds/shards")
    assert f"training by {method}" in message
    assert "needs a source with an index, and wds/shards is a stream" in message
    assert not (refused.folder / "run").exists()


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("size", [48, 64])
def test_small_crops_must_be_smaller_than_the_others(method: str, size: int, refused: Refusal) -> None:
    message = refused(method, f"views.small_size={size}")
    assert f"views.small_size: must be smaller than the views' 48 pixels, also for each network, not {size}" in message


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SMALL])
def test_small_crops_for_a_method_without_them(method: str, refused: Refusal) -> None:
    assert f"views.small_views: method {method} takes no small crops" in refused(method, "views.small_views=2")


@pytest.mark.parametrize("method", SMALL)
def test_small_crops_that_a_transformer_cannot_cut_into_patches(method: str, refused: Refusal) -> None:
    message = refused(method, "student.model=test_vit", "views.small_size=40")
    assert message.startswith("test_vit cannot look at small crops of 40 pixels")
    assert message.endswith("--set views.small_size=32")


def test_bags_of_a_teacher_of_another_width(bags: Path, refused: Refusal) -> None:
    message = refused("bingo", f"method.bags={bags}", "teacher.source=test_vit")
    assert re.search(r"was built from features of width \d+, this teacher's have 64\. ", message)
    assert message.endswith("--set method.bags=null")


def test_bags_of_other_images(bags: Path, refused: Refusal, tmp_path: Path) -> None:
    other = toy_parquet(tmp_path / "other", num_train=NUM_TRAIN - 1)
    assert "was built from other images than" in refused("bingo", f"method.bags={bags}", data=other)


def test_a_bag_file_that_is_not_there(refused: Refusal) -> None:
    assert "no bag file of ours" in refused("bingo", "method.bags=nowhere.npy")


@pytest.mark.parametrize("method", COMPRESS)
def test_cached_features_of_a_teacher_of_another_width_are_left_alone(method: str, data: Path, tmp_path: Path) -> None:
    """Not an error: the first teacher's features are in another file than those that the second needs."""
    for source in ("test_resnet", "test_vit"):
        values = method_values(method, teacher__source=source)
        values["method"]["cached_teacher"] = True
        train(parse_recipe(values, origin="toy"), data, tmp_path, steps=1)
        for name in ("checkpoint.pt", "run.json"):  # as if the first had been stopped before its first step
            (tmp_path / name).unlink()
    widths = [CacheFolder(path).width for path in (tmp_path / "teacher_features").iterdir()]
    assert len({*widths}) == 2


@pytest.mark.parametrize("switch", [2, 11, None])
def test_bags_that_would_never_count(switch: int | None, refused: Refusal) -> None:
    wanted = ["method={name: bingo, queue_size: 20}"] if switch is None else [f"method.switch_epoch={switch}"]
    message = refused("bingo", *wanted, "optim.epochs=2")
    assert f"method.switch_epoch: {switch or 11} is never reached in 2 epochs" in message
    assert "Type: --set method.switch_epoch=1, or to leave them out --set method.companion_weight=0" in message


def test_repeated_images_among_crds_negatives(refused: Refusal) -> None:
    wanted = ("data.extra_source=more", "data.extra_repeats=2")
    assert "data.extra_repeats: CRD tells each image from all others" in refused("crd", *wanted)
    assert "there are no extra images at more" in refused("crd", *wanted, "data.extra_repeats=1")


def test_without_companions_there_is_nothing_to_switch() -> None:
    values = method_values("bingo")
    values["method"] |= {"switch_epoch": 11, "companion_weight": 0}
    assert parse_recipe(values, origin="toy").optim.epochs == 2


def test_a_transformer_at_a_size_between_patches(refused: Refusal) -> None:
    message = refused("moco_v2", "student.model=test_vit", "student.image_size=50")
    assert message.startswith("test_vit cannot look at 50 pixels")
    assert message.endswith("--set student.image_size=48")
