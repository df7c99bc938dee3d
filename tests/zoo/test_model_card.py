"""Model cards: only what is known, figures with their source, and files that agree with the catalog."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from disco_zoo.cli import main
from disco_zoo.zoo import model_card
from disco_zoo.zoo import table as zoo_table
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.schema import Checkpoint, Measured, Weights

NAME = "disco_effb0.disco_lite0_fmnist"


def figure(subject: str, metric: str, values: list[float]) -> Measured:
    return Measured.model_validate(
        {
            "subject": subject,
            "metric": metric,
            "values": values,
            "seeds": list(range(len(values))),
            "protocol": "weighted kNN, k=20, T=0.07",
            "command": "disco-zoo reproduce effb0",
            "hardware": "2 cores",
            "date": datetime.date(2026, 1, 2),
        }
    )


@pytest.fixture
def measured_row() -> Checkpoint:
    figures = [
        figure("student", "knn20_top1", [79.0, 81.0, 83.0]),
        figure("baseline", "knn20_top1", [70.0, 71.0, 72.0]),
        figure("teacher", "knn20_top1", [78.25]),
        figure("student", "linear_top1", [84.0, 85.0, 86.0]),
    ]
    return load_catalog().checkpoints[NAME].model_copy(update={"measured": figures})


def test_front_matter_is_what_the_hub_reads(measured_row: Checkpoint) -> None:
    data = ModelCard(model_card.render_card(measured_row, load_catalog())).data
    assert (data.license, data.library_name) == ("apache-2.0", "timm")
    assert data.pipeline_tag == "image-feature-extraction"
    assert {"knowledge-distillation", "disco"} <= set(data.tags)
    assert data.model_name == NAME
    results = {result.metric_name: result for result in data.eval_results}
    assert set(results) == {"kNN (k=20), top-1", "linear probe, top-1"}  # the student's alone
    assert results["kNN (k=20), top-1"].metric_value == 81.0
    assert results["kNN (k=20), top-1"].dataset_type == "zalando-datasets/fashion_mnist"


@pytest.mark.parametrize("row", load_catalog().checkpoints.values(), ids=lambda row: row.name)
def test_every_row_gives_a_valid_card(row: Checkpoint) -> None:
    card = ModelCard(model_card.render_card(row, load_catalog()))
    assert card.data.library_name == "timm"
    assert "None" not in card.content
    if not row.measured:
        assert card.data.eval_results is None  # reported figures never enter the model-index
        assert "## Measured" not in card.content
    if not row.reported:
        assert "## Reported" not in card.content


def test_measured_and_reported_stand_apart(measured_row: Checkpoint) -> None:
    row = measured_row.model_copy(
        update={"reported": load_catalog().checkpoints["disco_effb0.disco_swav_r50w2_in1k"].reported}
    )
    card = model_card.render_card(row, load_catalog())
    ours, theirs = card.split("## Reported, not measured here")
    assert "| this model | 81.00 ± 2.00 (3 seeds) | 85.00 ± 1.00 (3 seeds) |" in ours
    assert "| teacher, at this model's input size | 78.25 (1 seed) | - |" in ours
    assert "| start" not in ours
    assert "- Command: `disco-zoo reproduce effb0`" in ours
    assert "- Date: 2026-01-02" in ours
    assert "69.1" not in ours
    assert "| linear probe, top-1 | 69.1 | DisCo paper, table 1, as quoted in a figure of haohang96/bingo" in theirs
    assert "| linear probe, top-5 | 88.9 | DisCo paper, table 1 (linear probe on ImageNet) | not verified |" in theirs


@pytest.mark.parametrize("name", ["disco_effb0.disco_lite0_fmnist", "disco_r18.disco_lite0_cifar10"])
def test_the_supervised_teacher_is_called_so(name: str) -> None:
    card = model_card.render_card(load_catalog().checkpoints[name], load_catalog())
    assert "trained with ImageNet labels (*supervised*)" in card


def test_how_to_load_follows_the_weights(measured_row: Checkpoint) -> None:
    catalog = load_catalog()
    assert "disco-zoo reproduce disco_effb0.disco_lite0_fmnist" in model_card.render_card(measured_row, catalog)
    weights = Weights(source="bundled", file="f.safetensors", sha256="0" * 64)
    card = model_card.render_card(measured_row.model_copy(update={"weights": weights}), catalog)
    assert f'timm.create_model("{NAME}", pretrained=True)' in card
    assert "There are no weights" not in card
    own = model_card.render_card(measured_row, catalog, weights_file="runs/one/student.safetensors")
    assert 'timm.create_model("disco_effb0", checkpoint_path="runs/one/student.safetensors")' in own


def test_official_weights_are_downloaded_first() -> None:
    catalog = load_catalog()
    card = model_card.render_card(catalog.checkpoints["disco_effb0.disco_mocov2_r50_in1k"], catalog)
    command, _, python = card.partition("Then:")
    assert "disco-zoo download disco_effb0.disco_mocov2_r50_in1k" in command
    assert 'timm.create_model("disco_effb0.disco_mocov2_r50_in1k", pretrained=True)' in python
    assert "not converted" not in card
    broken = model_card.render_card(catalog.checkpoints["disco_effb1.seed_swav_r50_in1k"], catalog)
    assert "disco-zoo convert FILE --as disco_effb1.seed_swav_r50_in1k --install" in broken
    assert "disco-zoo download" not in broken


def test_hub_weights_load_from_the_hub_alone(measured_row: Checkpoint) -> None:
    catalog = load_catalog()
    weights = Weights(source="hub", repo="lab/name", revision="1" * 40, file="model.safetensors", sha256="2" * 64)
    card = model_card.render_card(measured_row.model_copy(update={"weights": weights}), catalog)
    assert 'timm.create_model("hf-hub:lab/name", pretrained=True)' in card
    assert f"- Repository: `lab/name` at `{'1' * 40}`" in card
    inside = measured_row.model_copy(update={"weights": weights.model_copy(update={"revision": None})})
    assert "- Repository: `lab/name`\n" in model_card.render_card(inside, catalog)  # its commit does not exist yet
    own = catalog.checkpoints["disco_effb1.seed_swav_r152_in1k"].model_copy(update={"weights": weights})
    card = model_card.render_card(own, catalog)
    assert "hf-hub:" not in card  # timm alone has no such network
    assert "Only with this package, which registers the network." in card


def test_variants_say_which_network_and_why() -> None:
    catalog = load_catalog()
    rows = [row for row in catalog.checkpoints.values() if row.variant]
    assert len(rows) == 5
    for row in rows:
        card = model_card.render_card(row, catalog)
        assert f"`{row.variant}`, because {row.variant_reason}; in `" in card


def test_intended_use_follows_the_data() -> None:
    catalog = load_catalog()
    cards = {name: model_card.render_card(row, catalog) for name, row in catalog.checkpoints.items()}
    assert "images like those of Fashion-MNIST sample (28 pixels), shown to it at 64 pixels" in cards[NAME]
    assert "features of photos, shown to it at 224 pixels" in cards["disco_r34.disco_mocov2_r50_in1k"]
    assert "As the baseline" in cards["disco_effb0.mocov2_fmnist"]
    assert "As the baseline" not in cards[NAME]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (NAME, ["gao2022disco", "xiao2017fashion"]),
        ("disco_effb0.mocov2_cifar10", ["chen2020mocov2", "krizhevsky2009cifar"]),
        ("disco_r18.compress_swav_r50_in1k", ["koohpayegani2020compress", "caron2020swav", "russakovsky2015imagenet"]),
    ],
)
def test_citations_are_of_method_teacher_and_data(name: str, keys: list[str]) -> None:
    card = model_card.render_card(load_catalog().checkpoints[name], load_catalog())
    bibtex = card.split("```bibtex\n")[1].split("```")[0]
    assert [line.split("{")[1].rstrip(",") for line in bibtex.splitlines() if line.startswith("@")] == keys


@pytest.mark.parametrize("row", load_catalog().checkpoints.values(), ids=lambda row: row.name)
def test_no_section_is_empty(row: Checkpoint) -> None:
    sections = model_card.render_card(row, load_catalog()).split("\n## ")[1:]
    assert {"Intended use", "Licences", "Limits", "Provenance", "Citation"} <= {s.split("\n")[0] for s in sections}
    assert all(len(section.split("\n", 1)[1].strip()) > 10 for section in sections)


def test_what_has_weights_or_a_recipe_has_a_card() -> None:
    catalog = load_catalog()
    row = catalog.checkpoints["disco_r50.seed_swav_r50w4_in1k"]
    assert not model_card.wants_card(row)
    published = Weights(source="hub", repo="lab/name", revision="1" * 40, file="f", sha256="2" * 64)
    assert model_card.wants_card(row.model_copy(update={"weights": published}))
    cards = model_card.generated_cards(catalog)
    assert all(f"{row.name}.md" in cards for row in catalog.checkpoints.values() if row.weights.loadable or row.recipe)


def test_cards_in_the_repository_are_current() -> None:
    assert model_card.stale_cards(model_card.cards_folder(), load_catalog()) == []


def test_the_table_of_the_docs_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "zoo.md"
    assert not zoo_table.page_is_stale(page, load_catalog())


def test_card_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cards"
    (tmp_path / "README.md").write_text("someone's own, without our marks")
    assert main(["card", "--all", "--check", "--out", str(folder)]) == 2
    assert "Type: disco-zoo card --all" in capsys.readouterr().err
    assert not folder.exists()
    assert main(["card", "--all", "--out", str(folder)]) == 0
    assert main(["card", "--all", "--check", "--out", str(folder)]) == 0
    assert len(list(folder.glob("*.md"))) == len(model_card.generated_cards(load_catalog()))
    (folder / f"{NAME}.md").write_text("edited")
    (folder / "disco_effb0.gone.md").write_text(f"{model_card.GENERATED_MARK}\n\n# disco_effb0.gone\n")
    assert model_card.stale_cards(folder, load_catalog()) == [
        "disco_effb0.disco_lite0_fmnist.md",
        "disco_effb0.gone.md",
    ]
    assert main(["card", NAME, "--check", "--out", str(folder / f"{NAME}.md")]) == 2
    assert main(["card", "--all", "--out", str(folder)]) == 0
    assert f"Removed {folder / 'disco_effb0.gone.md'}" in capsys.readouterr().err
    assert model_card.stale_cards(folder, load_catalog()) == []


def test_card_command_leaves_files_that_are_not_cards_alone(tmp_path: Path) -> None:
    theirs = {
        "README.md": model_card.GENERATED_MARK.encode() + b"\n\n# disco_effb0\n",  # of a published folder
        "notes.md": b"mine",
        "latin.md": "Müller".encode("latin-1"),
    }
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.md").mkdir()
    assert main(["card", "--all", "--out", str(tmp_path)]) == 0
    assert main(["card", "--all", "--check", "--out", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in theirs} == theirs


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_card_command_without_a_folder_is_one_line(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["card", "--all", "--out", str(tmp_path / out)]) == 2
    assert f"Cannot write to {tmp_path / out}: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_card_command_prints_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", NAME]) == 0
    captured = capsys.readouterr()
    assert captured.out == model_card.render_card(load_catalog().checkpoints[NAME], load_catalog())
    assert main(["card"]) == 2
    assert main(["card", "efb0"]) == 2
    assert "Did you mean 'effb0'?" in capsys.readouterr().err


def test_readme_table_replaces_what_stands_between_the_marks() -> None:
    catalog = load_catalog()
    text = f"above\n{zoo_table.START_MARK}\nold\n{zoo_table.END_MARK}\nbelow\n"
    fresh = zoo_table.refresh_markdown(text, catalog)
    assert fresh.startswith("above\n")
    assert fresh.endswith("\nbelow\n")
    assert "old" not in fresh
    assert zoo_table.refresh_markdown(fresh, catalog) == fresh
    rows = [line for line in fresh.splitlines() if line.startswith("| `")]
    assert len(rows) == len(catalog.checkpoints)


@pytest.mark.parametrize("text", ["no marks", "<!-- zoo:start -->", "<!-- zoo:end --> <!-- zoo:start -->"])
def test_a_readme_without_its_marks_is_refused(text: Any) -> None:
    with pytest.raises(Exception, match="zoo:start"):
        zoo_table.refresh_markdown(text, load_catalog())
