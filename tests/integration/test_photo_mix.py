"""tools/photo_mix.py on small git clones: what it takes, leaves out, re-encodes and says."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "photo_mix.py"


@pytest.fixture
def mix(monkeypatch):
    spec = importlib.util.spec_from_file_location("photo_mix", TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "photo_mix", module)
    spec.loader.exec_module(module)
    return module


def photo(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def committed(folder: Path, files: dict[str, bytes]) -> str:
    """A git repository with these files; its commit."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "photos"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return head.stdout.strip()


def imagenette(folder: Path) -> Path:
    path = folder / "imagenette.parquet"
    pq.write_table(pa.table({"image": [{"bytes": photo(8, 8, 99), "path": "n.png"}], "label": [0]}), path)
    return path


def test_takes_each_photo_once_and_counts_the_rest(mix, tmp_path, capsys, monkeypatch):
    large = photo(500, 400, 0)
    one = committed(
        tmp_path / "a+one",
        {
            "in/large.png": large,
            "in/small.png": photo(40, 90, 1),
            "in/fits.png": photo(320, 330, 2),
            "in/again.png": large,
            "in/cut.png": photo(300, 300, 3)[:2000],
            "out/other.png": photo(200, 200, 4),
            "in/words.txt": b"words",
        },
    )
    two = committed(tmp_path / "b+two", {f"{i}.png": photo(160, 160, 10 + i) for i in range(9)})
    collections = [
        mix.Collection("a/one", one, "in/.*", "none", least_side=50),
        mix.Collection("b/two", two, ".*", "none", every_eighth_is_kept_aside=True),
    ]
    monkeypatch.setattr(mix, "COLLECTIONS", collections)
    out = tmp_path / "out.parquet"
    assert mix.main([str(tmp_path), str(out), "--imagenette", str(imagenette(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert "a/one: 2 photos, 1 unreadable, 1 seen before, 1 under 50 pixels" in said
    assert "b/two: 7 photos" in said
    assert "10 photos" in said
    table = pq.read_table(out)
    assert table.column_names == ["image"]
    stored = {row["path"]: row["bytes"] for row in table["image"].to_pylist()}
    assert set(stored) == {"again.png", "fits.png", "n.png", *(f"{i}.png" for i in (1, 2, 3, 4, 5, 6, 7))}
    assert stored["fits.png"] == photo(320, 330, 2)  # as it came
    assert Image.open(io.BytesIO(stored["again.png"])).size == (320, 256)


def test_a_wrong_imagenette_is_said_before_any_photo_is_read(mix, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mix, "COLLECTIONS", [])
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(imagenette(tmp_path).read_bytes()[:100])
    for wrong in (tmp_path / "none.parquet", cut):
        assert mix.main([str(tmp_path), str(tmp_path / "out.parquet"), "--imagenette", str(wrong)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert str(wrong) in said
    assert not (tmp_path / "out.parquet").exists()


def test_missing_clones_are_named_with_what_to_type(mix, tmp_path, capsys):
    assert mix.main([str(tmp_path), str(tmp_path / "out.parquet"), "--imagenette", "x"]) == 2
    said = capsys.readouterr().err
    assert said.count("git clone") == len(mix.COLLECTIONS) == 11
    assert "https://github.com/BIDS/BSDS500" in said
    assert not (tmp_path / "out.parquet").exists()
