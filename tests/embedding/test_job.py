"""Embedding a source: the rows are the network's, and an interruption changes no byte."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from embed_makers import tiny_facts, tiny_job, tiny_named
from filelock import FileLock
from photo_makers import jpeg, photo
from PIL import Image
from tiny import MEAN, STD, TinyNet, TinySource
from torch import Tensor, nn

from disco_zoo.data.image_list import data_of, open_images
from disco_zoo.data.source_image import SourceImage
from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.embedding.facts import facts_from_json
from disco_zoo.embedding.parts import Parts
from disco_zoo.errors import BadData, BadRunFolder, CannotWrite, DiscoZooError, Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")


class Watched(nn.Module):
    """A backbone that counts images, and does something once before a certain call."""

    num_features = 8

    def __init__(self, at_call: int, act) -> None:
        super().__init__()
        self.inner, self.images, self.calls, self.at_call, self.act = tiny_named().backbone, 0, 0, at_call, act

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at_call:
            self.act()
        self.images += len(images)
        return self.inner(images)


def power_cut() -> None:
    raise RuntimeError("the power is gone")


def reference_row(backbone: nn.Module, picture: Image.Image) -> np.ndarray:
    """One picture through the network, written plainly: shorter side to 18, centre 16, normalise."""
    width, height = picture.size
    scale = 18 / min(width, height)
    size = (int(width * scale), int(height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 16) / 2), round((size[1] - 16) / 2)
    pixels = np.asarray(picture.crop((left, top, left + 16, top + 16)), dtype=np.float32) / 255
    pixels = (pixels - np.float32(MEAN)) / np.float32(STD)
    with torch.no_grad():
        return backbone.eval()(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())).numpy()[0]


def test_rows_are_the_networks_features_of_each_image(tmp_path):
    source, named = TinySource(), tiny_named()
    made = tiny_job(tmp_path / "e.parquet", source, named).run()
    file = EmbeddingFile(tmp_path / "e.parquet")
    expected = np.stack([reference_row(named.backbone, source.image(i)) for i in range(12)])
    np.testing.assert_allclose(file.rows(range(12)), expected, atol=2e-6)
    assert file.names == [f"{i}.png" for i in range(12)]
    assert file.labels.tolist() == [i % 3 for i in range(12)]
    assert file.facts.class_names == ("a", "b", "c")
    assert (made.num_rows, made.num_before, file.facts.dims) == (12, 0, 8)
    assert made.images_per_s > 0
    assert not (tmp_path / "e.parquet.parts").exists()


def test_npy_holds_the_same_as_parquet(tmp_path):
    for suffix in ("parquet", "npy"):
        tiny_job(tmp_path / f"e.{suffix}", TinySource(unreadable=(2, 7))).run()
    one, other = EmbeddingFile(tmp_path / "e.parquet"), EmbeddingFile(tmp_path / "e.npy")
    np.testing.assert_array_equal(one.rows(range(10)), other.rows(range(10)))
    assert one.facts == other.facts
    assert one.names == other.names
    assert one.indices.tolist() == other.indices.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
    assert one.labels.tolist() == other.labels.tolist()
    assert np.load(tmp_path / "e.npy").shape == (10, 8)


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_file_has_the_same_bytes_and_computes_only_the_rest(tmp_path, suffix, workers):
    whole = tmp_path / f"whole.{suffix}"
    tiny_job(whole).run()
    broken = tiny_named(backbone=Watched(4, power_cut))  # within the second part: images 0..3 are kept
    with pytest.raises(RuntimeError, match="power"):
        tiny_job(tmp_path / f"e.{suffix}", named=broken, workers=workers).run()
    assert not (tmp_path / f"e.{suffix}").exists()
    again = tiny_named(backbone=Watched(0, power_cut))
    made = tiny_job(tmp_path / f"e.{suffix}", named=again, workers=workers).run(resume=True)
    assert again.backbone.images == 8
    assert made.num_before == 4
    reference = tmp_path / f"reference.{suffix}"
    tiny_job(reference, named=tiny_named(backbone=Watched(0, power_cut))).run()
    assert (tmp_path / f"e.{suffix}").read_bytes() == reference.read_bytes()
    rows = EmbeddingFile(whole).rows(range(12))
    np.testing.assert_array_equal(EmbeddingFile(reference).rows(range(12)), rows)


def test_ctrl_c_keeps_the_parts(tmp_path):
    named = tiny_named(backbone=Watched(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(Interrupted, match="--resume"):
        tiny_job(tmp_path / "e.parquet", named=named).run()
    again = tiny_named(backbone=Watched(0, power_cut))
    assert tiny_job(tmp_path / "e.parquet", named=again).run(resume=True).num_rows == 12
    assert again.backbone.images == 8


def test_shards_in_any_order_make_the_bytes_of_one_process_and_the_last_joins(tmp_path):
    reference, out = tmp_path / "reference.parquet", tmp_path / "e.parquet"
    tiny_job(reference).run()
    seen = []
    for shard in ((3, 3), (1, 3), (2, 3)):  # 3 parts of 4 images
        made = tiny_job(out, shard=shard).run()
        seen.append((made.parts_missing, made.num_rows, made.num_before, out.exists()))
    assert seen == [(2, 0, 8, False), (1, 0, 8, False), (0, 12, 8, True)]
    assert not out.with_name("e.parquet.parts").exists()
    assert out.read_bytes() == reference.read_bytes()


def test_shards_resume_and_may_be_more_than_parts(tmp_path):
    job = tiny_job(tmp_path / "e.parquet", shard=(1, 2))
    with pytest.raises(Interrupted):
        tiny_job(job.out, named=interrupted_after(tiny_named(), 1), shard=(1, 2)).run()
    assert job.run().parts_missing == 1  # parts 1 and 3 of 3 are its own
    idle = tiny_job(job.out, shard=(7, 8)).run()
    assert (idle.parts_missing, idle.images_per_s, idle.num_before) == (1, None, 12)
    assert tiny_job(job.out).run(resume=True).num_before == 8  # a whole command makes the rest
    late = tiny_job(job.out, shard=(2, 2)).run()
    assert (late.num_rows, late.parts_missing, late.images_per_s) == (12, 0, None)
    assert not job.out.with_name("e.parquet.parts").exists()


def test_shards_and_whole_commands_keep_out_of_each_others_way(tmp_path):
    out = tmp_path / "e.parquet"
    tiny_job(out, shard=(1, 2)).run()
    folder = out.with_name("e.parquet.parts")
    with FileLock(folder / ".lock"), pytest.raises(BadRunFolder, match="another command"):
        tiny_job(out, shard=(2, 2)).run()
    with FileLock(folder / ".shard_2_of_2.lock"):
        for job, resume in ((tiny_job(out), True), (tiny_job(out, shard=(2, 2)), False)):
            with pytest.raises(BadRunFolder, match="another command"):
                job.run(resume=resume)
        assert tiny_job(out, shard=(1, 2)).run().parts_missing == 1
    with pytest.raises(BadRunFolder, match="another model"):
        tiny_job(out, named=tiny_named(1), shard=(2, 2)).run()
    with pytest.raises(BadRunFolder, match="was begun and stopped: 2 of its 3 parts"):
        tiny_job(out).run()


def test_shards_count_unreadable_images_together(tmp_path):
    source = TinySource(unreadable=(0, 5))
    limits = {"limit": 1}
    assert tiny_job(tmp_path / "e.parquet", source, shard=(1, 2), **limits).run().parts_missing == 1
    with pytest.raises(BadData, match="2 "):
        tiny_job(tmp_path / "e.parquet", source, shard=(2, 2), **limits).run()


def test_the_first_shard_chooses_the_engine_of_all(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    out, named = tmp_path / "e.parquet", tiny_named()

    class Stopping(TinySource):
        def opened(self, index: int) -> SourceImage:
            if index == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return super().opened(index)

    with pytest.raises(Interrupted):  # before its first part is whole
        tiny_job(out, Stopping(), named, shard=(1, 2), engine="onnxruntime").run()
    tiny_job(out, named=named, shard=(2, 2), engine="auto").run()
    made = tiny_job(out, named=named, shard=(1, 2), engine="auto").run()
    assert made.facts.engine.startswith("onnxruntime ")


def test_a_finished_file_has_nothing_to_resume(tmp_path):
    tiny_job(tmp_path / "e.parquet").run()
    before = (tmp_path / "e.parquet").stat().st_mtime_ns
    made = tiny_job(tmp_path / "e.parquet").run(resume=True)
    assert (made.num_before, made.images_per_s) == (12, None)
    assert (tmp_path / "e.parquet").stat().st_mtime_ns == before
    with pytest.raises(BadRunFolder, match="another model"):
        tiny_job(tmp_path / "e.parquet", named=tiny_named(1)).run(resume=True)


def test_parts_that_a_killed_command_left_beside_its_file_are_cleared(tmp_path, monkeypatch):
    out = tmp_path / "e.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "remove", power_cut_of)
        with pytest.raises(RuntimeError, match="power"):
            tiny_job(out).run()
    assert out.exists()
    assert out.with_name("e.parquet.parts").exists()
    assert tiny_job(out).run(resume=True).images_per_s is None
    assert not out.with_name("e.parquet.parts").exists()


def power_cut_of(parts: Parts) -> None:
    power_cut()


def test_a_damaged_part_is_made_again(tmp_path):
    reference = tmp_path / "reference.parquet"
    tiny_job(reference).run()
    out = tmp_path / "e.parquet"
    source = TinySource()
    job = tiny_job(out, source)
    slow = tiny_named(backbone=tiny_named().backbone)
    with pytest.raises(Interrupted):
        tiny_job(out, named=interrupted_after(slow, 5)).run()
    part = out.with_name("e.parquet.parts") / "part_000001.npy"
    part.write_bytes(part.read_bytes()[:-40])
    job.run(resume=True)
    assert out.read_bytes() == reference.read_bytes()


def interrupted_after(named, calls):
    """The same weights, so the same key; Ctrl-C arrives at a certain batch."""
    count = iter(range(1, 100))

    def hear(module, arguments):
        if next(count) == calls:
            os.kill(os.getpid(), signal.SIGINT)

    named.backbone.register_forward_pre_hook(hear)
    return named


def test_unreadable_images_are_listed_and_have_no_row(tmp_path):
    tiny_job(tmp_path / "e.parquet", TinySource(unreadable=(0, 5)), limit=2).run()
    file = EmbeddingFile(tmp_path / "e.parquet")
    assert len(file) == 10
    assert file.facts.unreadable == {
        "0": "image 0 (0.png) is unreadable: cut short",
        "5": "image 5 (5.png) is unreadable: cut short",
    }
    with pytest.raises(BadData, match="3 images are unreadable, 2 are tolerated"):
        tiny_job(tmp_path / "f.parquet", TinySource(unreadable=(0, 5, 9)), limit=2).run()


def test_a_whole_part_may_be_unreadable_but_not_all(tmp_path):
    tiny_job(tmp_path / "e.npy", TinySource(unreadable=(4, 5, 6, 7)), limit=12).run()
    assert EmbeddingFile(tmp_path / "e.npy").indices.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    with pytest.raises(BadData, match="None of the 12 images"):
        tiny_job(tmp_path / "f.npy", TinySource(unreadable=tuple(range(12))), limit=12).run()
    assert not (tmp_path / "f.npy.parts").exists()
    tiny_job(tmp_path / "f.npy").run()


def test_images_decoded_at_reduced_size_are_counted(tmp_path):
    """For a resize to 18 pixels those of 98 and more, where they are JPEGs."""
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(300, 220), (60, 50), (120, 98), (120, 97)]):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(photo(number, *size)))
    photo(9, 300, 220).save(tmp_path / "photos" / "whole.png")
    source, out = open_images([str(tmp_path / "photos")]), tmp_path / "e.npy"
    assert tiny_job(out, source, workers=1).run().facts.num_reduced == 2  # in two parts
    facts = EmbeddingFile(out).facts
    assert facts.num_reduced == 2
    assert "num_reduced" not in facts.key()
    assert tiny_job(tmp_path / "full.npy", source, facts={"full_decode": True}).run().facts.num_reduced == 0
    of_before = {key: value for key, value in json.loads(facts.as_json()).items() if key != "num_reduced"}
    assert facts_from_json(json.dumps(of_before), "file").num_reduced is None


def test_normalised_and_half(tmp_path):
    tiny_job(tmp_path / "raw.parquet").run()
    tiny_job(tmp_path / "unit.npy", facts={"normalised": True, "half": True}).run()
    raw = EmbeddingFile(tmp_path / "raw.parquet").rows(range(12))
    unit = EmbeddingFile(tmp_path / "unit.npy")
    assert np.load(tmp_path / "unit.npy").dtype == np.float16
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.rows(range(12)), expected, atol=5e-4)
    assert (unit.facts.normalised, unit.facts.number_type) == (True, "float16")


def test_features_too_large_for_half_precision(tmp_path):
    class Huge(TinyNet):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 1e6 + 1e6

    with pytest.raises(DiscoZooError, match="--normalise"):
        tiny_job(tmp_path / "e.npy", named=tiny_named(backbone=Huge()), facts={"half": True}).run()


def test_what_is_there_is_not_written_over(tmp_path):
    out = tmp_path / "e.parquet"
    tiny_job(out).run()
    with pytest.raises(BadRunFolder, match="--yes"):
        tiny_job(out).run()
    tiny_job(out, named=tiny_named(3)).run(replace=True)
    assert EmbeddingFile(out).facts.weights_sha256 == tiny_facts(tiny_named(3), TinySource()).weights_sha256


def test_a_finished_file_of_other_settings_is_refused_and_kept(tmp_path):
    out = tmp_path / "e.parquet"
    tiny_job(out).run()
    before = out.read_bytes()
    with pytest.raises(BadRunFolder, match=r"with other settings \(decode: reduced\)"):
        tiny_job(out, facts={"full_decode": True}).run(resume=True)
    assert out.read_bytes() == before


def cameras(folder: Path) -> list[Path]:
    """Two folders of different pictures, of the same names and sizes."""
    for camera in range(2):
        (folder / f"cam{camera}").mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng((camera, number)).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"cam{camera}" / f"{number}.bmp")
    return [folder / "cam0", folder / "cam1"]


def place_job(out: Path, place: Path, **changes):
    source = open_images([str(place)])
    return tiny_job(out, source, facts={"data": data_of([str(place)], source)}, **changes)


@pytest.mark.parametrize("begun", [False, True])
def test_rows_of_other_images_of_the_same_names_and_sizes_are_not_taken_for_these(tmp_path, begun):
    one, other = cameras(tmp_path)
    out = tmp_path / "e.parquet"
    if begun:
        with pytest.raises(Interrupted):
            place_job(out, one, named=interrupted_after(tiny_named(), 2)).run()
    else:
        place_job(out, one).run()
    with pytest.raises(BadRunFolder, match="of other images"):
        place_job(out, other).run(resume=True)
    one.rename(tmp_path / "moved")
    made = place_job(out, tmp_path / "moved").run(resume=True)
    assert (made.num_rows, made.num_before) == (6, 4 if begun else 6)


def test_rows_of_a_list_are_not_taken_for_those_of_another(tmp_path):
    for folder in cameras(tmp_path):
        (tmp_path / f"{folder.name}.txt").write_text("".join(f"{folder.name}/{number}.bmp\n" for number in range(6)))
    out = tmp_path / "e.parquet"
    place_job(out, tmp_path / "cam0.txt").run()
    with pytest.raises(BadRunFolder, match="of other images"):
        place_job(out, tmp_path / "cam1.txt").run(resume=True)
    assert place_job(out, tmp_path / "cam0.txt").run(resume=True).num_before == 6


def test_a_file_of_before_without_a_sample_is_known_by_its_place(tmp_path):
    facts = [tiny_facts(tiny_named(), TinySource(), data=place) for place in ("/a", "/a", "/b")]
    of_before = replace(facts[0], sample_sha256=None)
    assert [of_before.gives_rows_of(one) for one in facts] == [True, True, False]
    assert not of_before.gives_rows_of(replace(facts[0], image_size=12))
    values = {key: value for key, value in json.loads(facts[0].as_json()).items() if key != "sample_sha256"}
    assert facts_from_json(json.dumps(values), "file") == of_before


@pytest.mark.parametrize("replace_old", [False, True])
def test_a_json_of_somebody_else_is_not_replaced(tmp_path, replace_old):
    (tmp_path / "e.json").write_text('{"captions": []}')
    for resume in (False, True):
        with pytest.raises(BadRunFolder, match=r"e\.json is there and is no embedding's; e\.npy would replace it"):
            tiny_job(tmp_path / "e.npy").run(resume=resume, replace=replace_old)
    assert (tmp_path / "e.json").read_text() == '{"captions": []}'
    tiny_job(tmp_path / "e.parquet").run()  # which has none beside it
    (tmp_path / "e.json").unlink()
    tiny_job(tmp_path / "e.npy").run()
    (tmp_path / "e.npy").unlink()
    assert tiny_job(tmp_path / "e.npy").run().num_rows == 12  # ours alone is left over


def test_parts_of_something_else_are_refused(tmp_path):
    out = tmp_path / "e.parquet"
    with pytest.raises(BadRunFolder, match="nothing to resume"):
        tiny_job(out).run(resume=True)
    with pytest.raises(Interrupted):
        tiny_job(out, named=interrupted_after(tiny_named(), 5)).run()
    with pytest.raises(BadRunFolder, match="Add --resume"):
        tiny_job(out).run()
    for other in (
        tiny_job(out, named=tiny_named(1)),
        tiny_job(out, TinySource(13)),
        tiny_job(out, facts={"image_size": 12}),
        tiny_job(out, facts={"full_decode": True}),
        tiny_job(out, batch_size=2),
    ):
        with pytest.raises(BadRunFolder, match="begun by another model"):
            other.run(resume=True)
    with FileLock(tmp_path / "e.parquet.parts" / ".lock"), pytest.raises(BadRunFolder, match="another command"):
        tiny_job(out).run(resume=True)
    assert tiny_job(out).run(resume=True).num_rows == 12


def test_bad_outputs(tmp_path):
    with pytest.raises(BadData, match=r"must end in \.parquet"):
        tiny_job(tmp_path / "e.csv").run()
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(CannotWrite, match="is a folder"):
        tiny_job(tmp_path / "folder.npy", named=tiny_named(backbone=Watched(1, power_cut))).run(replace=True)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BadRunFolder, match="cannot write"):
        tiny_job(tmp_path / "file" / "e.parquet").run()


def test_no_room_for_the_file_keeps_the_parts(tmp_path, monkeypatch):
    from disco_zoo.embedding import embedding_file

    def full(*arguments):
        raise OSError(28, "No space left on device")

    out: Path = tmp_path / "e.npy"
    with monkeypatch.context() as patch:
        patch.setattr(embedding_file, "_write_npy", full)
        with pytest.raises(CannotWrite, match="no space left"):
            tiny_job(out).run()
    assert not out.exists()
    again = tiny_named(backbone=Watched(0, power_cut))
    again.backbone.inner = tiny_named().backbone
    assert tiny_job(out).run(resume=True).num_before == 12


def test_an_engine_computes_the_rows_and_a_resumed_job_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    source, named = TinySource(), tiny_named()
    plain, fast = tmp_path / "plain.npy", tmp_path / "fast.npy"
    tiny_job(plain, source, named).run()
    assert EmbeddingFile(plain).facts.engine == "torch"

    class Stopping(TinySource):
        def opened(self, index: int) -> SourceImage:
            if index == 9:  # two parts of 4 are done
                os.kill(os.getpid(), signal.SIGINT)
            return super().opened(index)

    with pytest.raises(Interrupted):
        tiny_job(fast, Stopping(), named, engine="onnxruntime").run()
    with pytest.raises(BadRunFolder, match=r"begun by onnxruntime .*Type: --resume --engine onnxruntime"):
        tiny_job(fast, source, named, engine="torch").run(resume=True)
    made = tiny_job(fast, source, named, engine="auto").run(resume=True)  # few images: alone it would be PyTorch
    assert made.facts.engine.startswith("onnxruntime ")
    assert EmbeddingFile(fast).facts.engine == made.facts.engine
    assert "engine" not in EmbeddingFile(fast).facts.key()  # rows of both can be searched together
    found, expected = (EmbeddingFile(path).rows(range(len(source))) for path in (fast, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
