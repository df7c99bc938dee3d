"""Few-label comparisons: the same images for both starts, figures by hand, and only missing runs are made."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetune_makers import toy_data, toy_settings

from disco_zoo.data.subsets import SubsetSource
from disco_zoo.errors import BadData, BadRecipe, BadRunFolder
from disco_zoo.tasks.finetune import few_labels
from disco_zoo.tasks.finetune.few_labels import (
    PRETRAINED,
    RANDOM,
    Cell,
    Plan,
    compare,
    difference_lines,
    make_plan,
    paired_difference,
    plot_few_labels,
    table_rows,
    write_comparison,
)
from disco_zoo.tasks.finetune.run import LabeledData
from disco_zoo.training.run import RunOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabeledData:
    return toy_data(tmp_path_factory.mktemp("toy"))


CELLS = [
    Cell(2, PRETRAINED, (0, 1, 2), (60.0, 70.0, 80.0), (1.0, 2.0, 3.0)),
    Cell(2, RANDOM, (0, 1, 2), (50.0, 40.0, 45.0), (1.0, 1.0, 1.0)),
]


def test_mean_and_deviation_are_those_of_the_seeds() -> None:
    assert (CELLS[0].mean, CELLS[0].sd) == (70.0, 10.0)
    assert Cell(2, RANDOM, (0,), (50.0,), (1.0,)).sd is None


def test_difference_is_paired_by_seed() -> None:
    gains = [10.0, 30.0, 35.0]
    assert paired_difference(*CELLS) == pytest.approx((25.0, statistics.stdev(gains)))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(CELLS[0], Cell(2, RANDOM, (0, 1, 3), (1.0, 2.0, 3.0), (1.0, 1.0, 1.0)))


def test_table_and_lines_say_the_figures() -> None:
    assert table_rows(CELLS) == [
        ("2", "pretrained", "70.00 ± 10.00", "2 s"),
        ("2", "random start", "45.00 ± 5.00", "1 s"),
    ]
    assert difference_lines(CELLS) == [
        "2 images a class: pretrained minus random +25.00 ± 13.23 points, paired by seed"
    ]
    assert difference_lines(CELLS[:1]) == []


def test_plan_lists_every_run_with_the_fewest_labels_first() -> None:
    plan = make_plan(toy_settings(untrained=False), [100, 10], [0, 1], True)
    assert plan.runs() == [(few, start, seed) for few in (10, 100) for start in (PRETRAINED, RANDOM) for seed in (0, 1)]
    settings = plan.settings_of(10, RANDOM, 1)
    assert (settings.few, settings.untrained, settings.seed) == (10, True, 1)


@pytest.mark.parametrize(
    ("changes", "fews", "seeds", "words"),
    [
        ({}, [2], [0, 0], "twice"),
        ({"untrained": True}, [2], [0], "Leave --untrained out"),
        ({"head_only": True}, [2], [0], "Leave --head-only out"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(
    changes: dict[str, Any], fews: list[int], seeds: list[int], words: str
) -> None:
    with pytest.raises(BadRecipe, match=words):
        make_plan(toy_settings(**{"untrained": False, **changes}), fews, seeds, compare_untrained=True)


class Fake:
    """Stands for a fine-tuning; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, bool, int]] = []
        self.images: dict[tuple[int | None, bool, int], str] = {}

    def __call__(self, settings: Any, data: LabeledData, folder: Path, options: RunOptions) -> dict[str, Any]:
        train, _ = few_labels.training_split(settings, data)
        key = (settings.few, settings.untrained, settings.seed)
        self.asked.append(key)
        self.images[key] = train.fingerprint()
        facts = {
            "finished": True,
            "figures": {"top1": 50.0 + settings.seed - 20 * settings.untrained},
            "training_seconds": 2.0,
            "measured_on": "test" if data.test is not None else "held-out",
            "settings": settings.resolved(len(train)).as_dict(),
            "data": {
                "fingerprint": train.fingerprint(),
                "test_fingerprint": None if data.test is None else data.test.fingerprint(),
            },
        }
        folder.mkdir(parents=True)
        (folder / "finetune.yaml").write_text("")
        (folder / "run.json").write_text(json.dumps(facts))
        return facts


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(few_labels, "finetune_into", fake)
    monkeypatch.setattr(few_labels, "build_start", lambda *_: None)
    return fake


def plan_of(**changes: Any) -> Plan:
    return make_plan(toy_settings(untrained=False, **changes), [2, 4], [0, 1], True)


def test_both_starts_see_the_same_images_and_each_seed_others(fake: Fake, data: LabeledData, tmp_path: Path) -> None:
    cells = compare(plan_of(), data, tmp_path, RunOptions())
    assert len(fake.asked) == 8
    for few in (2, 4):
        for seed in (0, 1):
            assert fake.images[few, False, seed] == fake.images[few, True, seed]
        assert fake.images[few, False, 0] != fake.images[few, False, 1]
    assert [(cell.few, cell.start, cell.top1) for cell in cells] == [
        (2, PRETRAINED, (50.0, 51.0)),
        (2, RANDOM, (30.0, 31.0)),
        (4, PRETRAINED, (50.0, 51.0)),
        (4, RANDOM, (30.0, 31.0)),
    ]


def test_resume_makes_only_the_missing_runs_and_refuses_other_settings(
    fake: Fake, data: LabeledData, tmp_path: Path
) -> None:
    whole = compare(plan_of(), data, tmp_path, RunOptions())
    lost = tmp_path / "4-a-class/random-start/seed-1"
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    fake.asked.clear()
    assert compare(plan_of(), data, tmp_path, RunOptions(resume=True)) == whole
    assert fake.asked == [(4, True, 1)]
    with pytest.raises(BadRunFolder, match=r"lr: 0.001 there, 0.5 here"):
        compare(plan_of(lr=0.5), data, tmp_path, RunOptions(resume=True))
    with pytest.raises(BadRunFolder, match="already holds runs"):
        compare(plan_of(), data, tmp_path, RunOptions())
    with pytest.raises(BadRunFolder, match="no run to resume"):
        compare(plan_of(), data, tmp_path / "none", RunOptions(resume=True))


def test_too_few_images_are_told_before_the_first_run(fake: Fake, data: LabeledData, tmp_path: Path) -> None:
    plan = make_plan(toy_settings(untrained=False), [2, 9], [0], True)
    with pytest.raises(BadData, match="fewer than 9"):
        compare(plan, data, tmp_path, RunOptions())
    assert fake.asked == []


def test_nothing_to_measure_on_is_told_before_the_first_run(fake: Fake, data: LabeledData, tmp_path: Path) -> None:
    alone = replace(data, test=None)
    with pytest.raises(BadData, match=r"no images to measure on: add --eval-data, or --val-fraction 0\.2$"):
        compare(plan_of(), alone, tmp_path, RunOptions())
    assert fake.asked == []
    plan = make_plan(toy_settings(untrained=False, val_fraction=0.2), [4], [0], False)
    compare(plan, alone, tmp_path, RunOptions())
    assert fake.asked == [(4, False, 0)]


def test_runs_that_were_measured_on_other_images_are_not_compared(
    fake: Fake, data: LabeledData, tmp_path: Path
) -> None:
    plan = make_plan(toy_settings(untrained=False, val_fraction=0.2), [4], [0], False)
    compare(plan, replace(data, test=None), tmp_path, RunOptions())
    with pytest.raises(BadRunFolder, match="was measured on held-out images, not on test ones"):
        compare(plan, data, tmp_path, RunOptions(resume=True))
    path = tmp_path / "4-a-class/pretrained/seed-0/run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "measured_on": None}))  # by a former version
    with pytest.raises(BadRunFolder, match="was measured on no images, not on test ones"):
        compare(plan, data, tmp_path, RunOptions(resume=True))


def test_figures_of_two_test_sets_are_not_mixed(fake: Fake, data: LabeledData, tmp_path: Path) -> None:
    settings = toy_settings(untrained=False)
    compare(make_plan(settings, [4], [0], False), data, tmp_path, RunOptions())
    assert data.test is not None
    other = replace(data, test=SubsetSource(data.test, range(6)))
    with pytest.raises(BadRunFolder, match=r"was not measured on the test images .*\. Choose another --out"):
        compare(make_plan(settings, [4], [0, 1], False), other, tmp_path, RunOptions(resume=True))
    assert fake.asked == [(4, False, 0)]


def test_comparison_leaves_json_report_and_picture(data: LabeledData, tmp_path: Path) -> None:
    facts = write_comparison(
        CELLS, make_plan(toy_settings(untrained=False), [2], [0, 1, 2], True), data, tmp_path, "cmd"
    )
    assert facts == json.loads((tmp_path / "few_labels.json").read_text())
    assert facts["differences"] == [{"few": 2, "mean": 25.0, "sd": pytest.approx(13.2288, abs=1e-3)}]
    report = (tmp_path / "report.md").read_text()
    assert "| 2 | pretrained | 70.00 ± 10.00 | 2 s |" in report
    assert "Mean ± standard deviation over seeds 0, 1, 2 on test images" in report
    assert "both starts train on the same images" in report
    assert (tmp_path / "figures/few_labels.png").stat().st_size > 5000


def test_a_report_of_one_seed_and_one_start_speaks_of_no_other(data: LabeledData, tmp_path: Path) -> None:
    plan = make_plan(toy_settings(untrained=False), [2], [0], False)
    write_comparison([replace(CELLS[0], seeds=(0,), top1=(70.0,), seconds=(2.0,))], plan, data, tmp_path, "cmd")
    report = (tmp_path / "report.md").read_text()
    assert "Seed 0 on test images. A seed draws the images, the head and their order. Hardware" in report


def test_picture_depends_on_the_figures(tmp_path: Path) -> None:
    plot_few_labels(CELLS, 3, tmp_path / "a.png", "x")
    plot_few_labels(CELLS[:1], 3, tmp_path / "b.png", "x")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
