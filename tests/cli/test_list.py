"""The command line's frame, and `disco-zoo list`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from disco_zoo import cli
from disco_zoo.cli import main
from disco_zoo.errors import DiscoZooError
from disco_zoo.zoo import table as zoo_table
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.choice import weights_text
from disco_zoo.zoo.facts import get_command
from disco_zoo.zoo.schema import Checkpoint, Weights

# What the console script does, and then a look at what it imported.
CONSOLE_SCRIPT = """
import sys
sys.argv = ["disco-zoo", *sys.argv[1:]]
from disco_zoo.cli import main
code = main()
heavy = ("torch", "timm", "torchvision", "accelerate", "huggingface_hub")
print("HEAVY", [module for module in heavy if module in sys.modules])
sys.exit(code)
"""


def console(*args: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the console script; return it and the CPU seconds it took, which a busy machine changes little."""
    start = children_seconds()
    done = subprocess.run(
        [sys.executable, "-c", CONSOLE_SCRIPT, *args],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    return done, children_seconds() - start


def children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["list"],
        ["list", "effb0", "--json"],
        ["list", "--teachers"],
        ["show", "effb0"],
        ["show", "lite0", "--json"],
        ["card", "effb0"],
        ["--version"],
    ],
)
def test_light_commands_import_no_torch_and_answer_at_once(args: list[str]) -> None:
    done, seconds = console(*args)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert seconds < 2  # under one second on an idle machine


def python(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=120, check=True, cwd=cwd, env=environment
    )


@pytest.mark.parametrize("start", [["-m", "disco_zoo"], ["-mdisco_zoo"]])
def test_python_m_is_the_command_line_and_as_light(start: list[str], tmp_path: Path) -> None:
    done = python("-X", "importtime", *start, "list", "r34", cwd=tmp_path)
    assert "disco_r34.disco_mocov2_r50_in1k" in done.stdout
    assert "disco_zoo.zoo.catalog" in done.stderr
    assert "torch" not in done.stderr


def test_help_shows_every_verb_without_importing_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.VERBS, "nonsense", ("disco_zoo.cli.there_is_no_such_file", "A verb that cannot load."))
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "A verb that cannot load." in out
    for verb in cli.VERBS:
        assert f"\n  {verb} " in out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_loads_and_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Usage: disco-zoo {verb}" in capsys.readouterr().out


def commands(command: click.Command) -> list[click.Command]:
    return [command, *(one for sub in getattr(command, "commands", {}).values() for one in commands(sub))]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_what_is_said_of_an_option_needs_no_words_around_it(verb: str) -> None:
    top = cli.cli.get_command(click.Context(cli.cli), verb)
    assert top is not None
    texts = [getattr(option, "help", None) or "" for one in commands(top) for option in one.params]
    assert [text for text in texts if text.startswith(("That ", "Whose ", "Instead ", "Of the ", "Of a source "))] == []


def test_a_misspelt_verb_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lst"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "Error: There is no command 'lst'. Did you mean 'list'? Type: disco-zoo --help\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (DiscoZooError("it is so. Type: this"), 2, "Error: it is so. Type: this\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.UsageError("wrong option"), 2, "Error: wrong option"),
    ],
)
def test_errors_become_exit_codes(
    raised: BaseException,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str | None) -> list[Checkpoint]:
        raise raised

    monkeypatch.setattr("disco_zoo.zoo.catalog.Catalog.matching", lambda self, pattern, **_: fail(pattern))
    assert main(["list"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from disco_zoo.cli.zoo import list as list_module

    monkeypatch.setattr(list_module.command, "callback", lambda **_: 1)
    assert main(["list"]) == 1
    monkeypatch.setattr(list_module.command, "callback", lambda **_: click.get_current_context().exit(1))
    assert main(["list"]) == 1


def test_piped_list_has_one_uncut_line_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    captured = capsys.readouterr()
    heading, *lines = captured.out.splitlines()
    assert heading.split()[0] == "name"
    assert {line.split()[0] for line in lines} == set(load_catalog().checkpoints)
    assert "…" not in captured.out
    assert "(66.5?): reported, not verified" in captured.err  # the legend is no row


def test_list_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "r34"]) == 0
    assert all(line.startswith("disco_r34.") for line in capsys.readouterr().out.splitlines()[1:])
    assert main(["list", "efb0"]) == 2
    assert "No model matches 'efb0'. Did you mean 'effb0'?" in capsys.readouterr().err


def test_list_filters_by_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--architecture", "r18", "--method", "seed"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "disco_r18.seed_mocov2_r50_in1k",
        "disco_r18.seed_swav_r50w2_in1k",
    ]
    assert main(["list", "--data", "cifar10", "--weights", "bundled"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["list", "--method", "sed"]) == 2
    assert "There is no method 'sed' in the zoo. Did you mean 'seed'?" in capsys.readouterr().err
    assert main(["list", "--weights", "cloud"]) == 2
    assert "'cloud' is not one of 'bundled', 'hub', 'official', 'none', 'installed'" in capsys.readouterr().err


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "disco_r34.*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4
    first = rows[0]
    assert (first["name"], first["tag"]) == ("disco_r34.disco_mocov2_r50_in1k", "disco_mocov2_r50_in1k")
    assert first["reported"][0]["value"] == 62.5
    assert first["reported"][0]["verified"] is True
    assert (first["network"], first["weights_state"]) == ("resnet34", "official (download converts it)")


def test_list_teachers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--teachers"]) == 0
    captured = capsys.readouterr()
    heading, *lines = captured.out.splitlines()
    assert heading.split()[:3] == ["name", "supervision", "network"]
    assert [line.split()[0] for line in lines] == list(load_catalog().teachers)
    assert next(line for line in lines if line.startswith("mocov2_r101 ")).split()[5] == "(69.1?)"
    assert main(["list", "swav", "--teachers", "--weights", "official", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["swav_r50", "swav_r50w2", "swav_r50w4", "swav_r50w5"]
    assert "disco_r34.disco_swav_r50w2_in1k" in rows[1]["students"]
    assert main(["list", "--teachers", "--method", "seed"]) == 2
    assert "--method is a filter for students" in capsys.readouterr().err


def install(name: str, home: Path) -> None:
    """What `store` finds when weights of `name` are installed; their bytes matter to nobody here."""
    folder = home / "weights" / name
    folder.mkdir(parents=True)
    (folder / f"{'a' * 64}.safetensors").write_bytes(b"tensors")
    (folder / "installed.json").write_text(json.dumps({"sha256": "a" * 64, "network": "resnet18"}))


def test_what_the_user_installed_is_shown_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path))
    readme = zoo_table.render_markdown(list(load_catalog().checkpoints.values()), load_catalog())
    assert main(["list", "--weights", "installed"]) == 2
    assert "No model has weights installed" in capsys.readouterr().err
    install("disco_r18.seed_mocov2_r50_in1k", tmp_path)
    install("mocov2_r50", tmp_path)
    assert main(["list", "--weights", "installed"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert (line.split()[0], line.split()[-1]) == ("disco_r18.seed_mocov2_r50_in1k", "installed")
    assert main(["list", "mocov2*", "--teachers", "--weights", "installed", "--json"]) == 0
    assert [row["weights_state"] for row in json.loads(capsys.readouterr().out)] == ["installed"]
    # It is still the authors' file, and what is generated into files does not depend on this machine.
    assert main(["list", "disco_r18.seed_mocov2_r50_in1k", "--weights", "official"]) == 0
    assert zoo_table.render_markdown(list(load_catalog().checkpoints.values()), load_catalog()) == readme


@pytest.mark.parametrize(
    ("name", "text", "short"),
    [
        ("disco_effb0.disco_lite0_cifar10", "bundled", "bundled"),
        ("disco_effb0.disco_lite0_fmnist", "recipe only", "recipe only"),
        ("disco_r34.disco_mocov2_r50_in1k", "official (download converts it)", "official"),
        ("disco_effb1.seed_swav_r50_in1k", "official (link broken)", "link broken"),
        ("disco_alexnet.compress_simclr_r50x4_in1k", "official (no network in timm)", "not in timm"),
        ("swav_r152", "none here", "none"),
    ],
)
def test_states_of_weights(name: str, text: str, short: str) -> None:
    catalog = load_catalog()
    row = catalog.entry(name)
    assert weights_text(row, catalog) == text
    assert weights_text(row, catalog, short=True) == short
    assert weights_text(row, catalog, {name}) == "installed"


def test_an_official_file_without_a_link_says_so() -> None:
    catalog = load_catalog()
    row = catalog.checkpoints["disco_r34.disco_mocov2_r50_in1k"]
    without = row.model_copy(update={"weights": Weights(source="official", file="f")})
    assert weights_text(without, catalog) == "official (link unknown)"
    assert get_command(without, catalog) == f"disco-zoo convert FILE --as {row.name} --install"


@pytest.mark.parametrize(
    ("name", "metric", "text"),
    [
        ("disco_r18.disco_mocov2_r50_in1k", "linear_top1", "(60.6)"),
        ("disco_effb0.disco_mocov2_r50_in1k", "linear_top1", "(66.5?)"),
        ("disco_r18.seed_mocov2_r50_in1k", "knn20_top1", "-"),  # SEED's kNN does not state its k
        ("disco_vit_tiny.disco_vits_in1k", "linear_top1", "-"),
    ],
)
def test_reported_figures_are_marked(name: str, metric: str, text: str) -> None:
    assert zoo_table.figure_text(load_catalog().checkpoints[name], metric) == text


@pytest.mark.parametrize(("width", "columns"), [(120, True), (80, False)])
def test_terminal_table_fits_and_cuts_nothing(width: int, columns: bool, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = load_catalog()
    zoo_table.print_for_terminal(list(catalog.checkpoints.values()), catalog, width=width)
    out = capsys.readouterr().out
    table, _, legend = out.partition("\nA name is architecture.tag.")
    assert legend
    assert max(len(line) for line in out.splitlines()) <= width
    assert "…" not in out
    # One line a model, one an architecture, one heading: nothing wraps.
    assert len(table.splitlines()) == 1 + len(catalog.architectures) + len(catalog.checkpoints)
    for row in catalog.checkpoints.values():
        assert f" .{row.tag} " in table
    assert ("lite0 (sup.)" in out) == columns


@pytest.mark.parametrize(("width", "columns"), [(120, True), (80, False)])
def test_terminal_table_of_teachers_fits(width: int, columns: bool, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = load_catalog()
    zoo_table.print_teachers(list(catalog.teachers.values()), catalog, width=width)
    out = capsys.readouterr().out
    table = out.split("\n\n")[0]
    assert max(len(line) for line in out.splitlines()) <= width
    assert [line.split()[0] for line in table.splitlines()] == ["name", *catalog.teachers]
    assert ("disco_r50w4" in table) == columns
