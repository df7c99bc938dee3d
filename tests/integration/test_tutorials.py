"""The notebooks of docs/tutorials, run from nothing in an empty folder; each ends in pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# What the last lines of each say, as it must come out on any machine.
SAYS = {
    "search": r"145 photos\n[\s\S]*   1   0\.\d{4}[\s\S]*map\.png and map\.svg",
    "finetune": r"'train': 54, 'test': 11",
    "student": r"325 photos\n[\s\S]*student: kNN \d",
    "add_method": r"\(0\.0, 4\.0\)[\s\S]*unknown key 'method\.powr'[\s\S]*cosine: kNN \d",
    "reproduce": r"not judged[\s\S]*figures/embedding_map\.png[\s\S]*model\.safetensors",
    "many_processes": r"\b8\n?$",
}


def test_every_notebook_is_on_the_site_and_checked_here() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    (pages,) = [entry["Tutorials"] for entry in nav if "Tutorials" in entry]
    assert sorted(place for page in pages for place in page.values()) == [f"tutorials/{name}.md" for name in NOTEBOOKS]
    assert sorted(SAYS) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_outputs(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_ends_in_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert", reason="the extra docs is not installed")
    pytest.importorskip("ipykernel", reason="the extra docs is not installed")
    from notebook_pages import run_notebook

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = run_notebook(FOLDER / f"{name}.ipynb", tmp_path)
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    said = "\n".join(str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in outputs)
    assert re.search(SAYS[name], said), said
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        colours = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").getcolors(2**24)
        assert colours is not None
        assert len(colours) > 50  # something is drawn
