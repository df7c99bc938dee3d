"""What `disco-zoo evaluate --out` writes, and what is left after Ctrl-C."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from evaluate_runs import COMMON, NUM_TEST, NUM_TRAIN, evaluate
from tiny_runs import toy_parquet

from disco_zoo.cli import main
from disco_zoo.evaluation.evaluation import _card_subject
from disco_zoo.evaluation.probes import linear_sgd
from disco_zoo.zoo.schema import Measured

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_parquet(tmp_path_factory.mktemp("data"), num_train=NUM_TRAIN, num_test=NUM_TEST))


def test_a_trained_model_gives_rows_for_its_card(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "effb0.json"
    values = evaluate(capsys, "knn", "disco_effb0", *COMMON, "--data", data, "--k", "1", "--out", str(out))
    stored = json.loads(out.read_text("utf-8"))
    assert stored == values
    again = evaluate(capsys, "knn", "disco_effb0", *COMMON, "--data", data, "--k", "1", "--out", str(out), "--yes")
    assert again["figures"] == values["figures"]
    rows = [Measured.model_validate_json(json.dumps(row)) for row in stored["measured"]]
    assert [(row.subject, row.metric, row.seeds) for row in rows] == [("student", "knn1_top1", [0])]
    assert rows[0].values == [round(values["figures"]["knn1_top1"], 2)]
    assert "cosine" in rows[0].protocol
    look = evaluate(capsys, "knn", "disco_effb0", *COMMON, "--data", data, "--k", "1", "--steps", "1")
    assert look["measured"] == []
    assert look["look"] is True


def test_the_start_of_a_recipe_is_no_student(tmp_path: Path) -> None:
    for steps, subject in ((0, "start"), (781, "student")):
        (tmp_path / "run.json").write_text(json.dumps({"steps": steps}))
        assert _card_subject(str(tmp_path)) == subject
    assert _card_subject("lite0") == "teacher"
    assert _card_subject("disco_effb0") == "student"


@pytest.mark.parametrize(("stopped_in", "message"), [(0, "nothing was kept"), (2, "are kept.*--resume")])
def test_ctrl_c_says_what_is_kept_and_resume_ends_as_if_undisturbed(
    stopped_in: int,
    message: str,
    tmp_path: Path,
    data: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin = linear_sgd._Layer.begin

    def interrupted(layer: linear_sgd._Layer, epoch: int) -> None:
        if epoch == stopped_in:
            raise KeyboardInterrupt
        begin(layer, epoch)

    probe = ["linear", "test_resnet", "--untrained", *COMMON, "--data", data, "--protocol", "disco", "--epochs", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(linear_sgd._Layer, "begin", interrupted)
        assert main(["evaluate", *probe, "--out", str(tmp_path / "a.json")]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if "Interrupted" in line]
    assert re.search(message, line)
    assert not (tmp_path / "a.json").exists()
    if stopped_in:
        resumed = evaluate(capsys, *probe, "--out", str(tmp_path / "a.json"), "--resume")
        whole = evaluate(capsys, *probe)
        assert resumed["details"]["top1_per_epoch"] == whole["details"]["top1_per_epoch"]
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
