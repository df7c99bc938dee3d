"""Steps of several trainers in turn, on the same images, threads and batch: disturbances hit all of them alike.

    python benchmarks/speed/measure.py --data cifar10_train.parquet --peers-python PEERS/bin/python

Each contestant is a process of its own. They wait while another one is at work; each round gives each of them a few
steps, in an order that turns. Figures are medians of the rounds' ratios, with the smallest and largest. A contest
measured again (`--only`) takes its place in results.json, from which results.md is written; the others stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results_page import BATCH, page

from disco_zoo.core.environment import benchmark_line

HERE = Path(__file__).parent
IMAGES = 2048
VIT = "vit_base_patch16_224"
BUILT_VIEWS = 8


@dataclass
class Contestant:
    """A trainer.

    Attributes:
        title: for the table.
        script: beside this file.
        arguments: of the script; "{folder}" and "{out}" are filled in.
        peer: whether it runs in the other libraries' environment.
        views: student views of each image in a step, for ratios per view.
        built_views: of each image that a step of a cache's build goes through; None for a trainer.
    """

    title: str
    script: str
    arguments: list[str]
    peer: bool = False
    views: int = 2
    built_views: int | None = None
    seconds: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        built = {"built_views": self.built_views} if self.built_views else {}
        return {"views": self.views, **built, "seconds": self.seconds}


def ours(title: str, recipe: str, *overrides: str, views: int = 2) -> Contestant:
    changes = [word for change in overrides for word in ("--set", change)]
    recipe = str(HERE / f"{recipe}.yaml")
    return Contestant(title, "ours.py", [recipe, "--data", "{folder}", "--out", "{out}", *changes], views=views)


def lightly_train(method: str) -> Contestant:
    arguments = ["--data", "{folder}", "--method", method]
    return Contestant(f"lightly-train, {method}", "lightly_train_distillation.py", arguments, peer=True, views=1)


def cache_contest(*overrides: str) -> list[Contestant]:
    """A step of DisCo with its teacher asked and with it cached, and the build of a cache."""
    changes = [word for change in (*overrides, f"teacher.cache_views={BUILT_VIEWS}") for word in ("--set", change)]
    build = [str(HERE / "disco.yaml"), "--data", "{folder}", *changes]
    return [
        ours("teacher asked", "disco", *overrides),
        ours("teacher cached", "disco", *overrides, "teacher.cache_views=2"),
        Contestant("build", "cache_build.py", build, built_views=BUILT_VIEWS),
    ]


def groups() -> dict[str, list[Contestant]]:
    """The contests; the first of each is what the others are compared with."""
    vit, cached = f"teacher.source={VIT}", "teacher.cache_views=2"
    free = ours("disco-zoo, targets for nothing", "disco")
    free.arguments.append("--free-teacher")
    return {
        "DisCo, ResNet-50 teacher": [
            Contestant("plain loop", "plain_disco.py", ["--data", "{folder}"]),
            ours("disco-zoo", "disco"),
            ours("disco-zoo, teacher cached", "disco", cached),
            free,
        ],
        "DisCo, ViT-B/16 teacher": [
            Contestant("plain loop", "plain_disco.py", ["--data", "{folder}", "--teacher", VIT]),
            ours("disco-zoo", "disco", vit),
            ours("disco-zoo, teacher cached", "disco", vit, cached),
        ],
        "MoCo-v2": [
            Contestant("lightly", "lightly_moco.py", ["--data", "{folder}"], peer=True),
            ours("disco-zoo", "moco_v2"),
        ],
        "One view, SEED and distillationv1, ResNet-50 teacher": [
            lightly_train("distillationv1"),
            ours("disco-zoo, seed", "seed", views=1),
            ours("disco-zoo, seed, teacher cached", "seed", cached, views=1),
        ],
        "One view, feature regression and distillationv3, ResNet-50 teacher": [
            lightly_train("distillationv3"),
            ours("disco-zoo, feature", "feature", views=1),
            ours("disco-zoo, feature, teacher cached", "feature", cached, views=1),
        ],
        "Teacher cache, ResNet-50": cache_contest(),
        "Teacher cache, ViT-B/16": cache_contest(vit),
    }


def write_images(source: str, folder: Path) -> None:
    """The same PNG files for all: the first images of a parquet, in a folder of one class."""
    from disco_zoo.data.open_source import open_source

    images = open_source(source, "train")
    (folder / "all").mkdir(parents=True)
    for index in range(IMAGES):
        images.image(index).save(folder / "all" / f"{index:05d}.png")


class Running:
    """A contestant at work."""

    def __init__(self, contestant: Contestant, python: str, folder: Path, out: Path, threads: int) -> None:
        self.contestant = contestant
        filled = [word.format(folder=folder, out=out) for word in contestant.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "DISCO_ZOO_CACHE": str(out.parent / "caches")}
        self.process = subprocess.Popen(
            [python, str(HERE / contestant.script), *filled],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(out.parent / f"{out.name}.log").open("w"),
        )
        self._expect("ready")

    def take(self, steps: int) -> float:
        """Seconds a step."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"go {steps}\n")
        self.process.stdin.flush()
        _, seconds, taken = self._expect("took")
        return float(seconds) / int(taken)

    def _expect(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.split()[:1] == [word]:
                return line.split()
        raise SystemExit(f"{self.contestant.title} ended with {self.process.wait()}: see its .log")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def contest(name: str, contestants: list[Contestant], given: argparse.Namespace, work: Path) -> None:
    """Fill in the seconds a step of each contestant, round by round."""
    running = []
    try:
        for number, contestant in enumerate(contestants):
            python = given.peers_python if contestant.peer else sys.executable
            out = work / f"{name.replace(' ', '_').replace('/', '-')}_{number}"
            running.append(Running(contestant, python, work / "images", out, given.threads))
            print(f"{name}: {contestant.title} is ready", file=sys.stderr)
        for turn in range(given.rounds):
            for place in range(len(running)):
                one = running[(place + turn) % len(running)]
                one.contestant.seconds.append(one.take(given.steps))
            print(f"{name}: round {turn + 1} of {given.rounds}", file=sys.stderr)
    finally:
        for one in running:
            one.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a parquet of images; the first 2048 are used")
    parser.add_argument("--peers-python", help="of an environment with lightly and lightly-train; without it no peers")
    parser.add_argument("--only", help="contests whose name contains this")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE, help="where results.md and results.json go")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    record = given.out / "results.json"
    contests: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    setting = f"batch {BATCH}, 64 px, {given.rounds} rounds of {given.steps} steps each"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        write_images(given.data, work / "images")
        for name, contestants in groups().items():
            able = [one for one in contestants if given.peers_python or not one.peer]
            if (given.only and given.only not in name) or len(able) < 2:
                continue
            contest(name, able, given, work)
            taken = {one.title: one.as_json() for one in able}
            contests[name] = {"hardware": benchmark_line(given.threads), "setting": setting, "contestants": taken}
            contests = {title: contests[title] for title in groups() if title in contests}
            record.write_text(json.dumps(contests, indent=1) + "\n", encoding="utf-8")
            (given.out / "results.md").write_text(page(contests), encoding="utf-8")
    print(page(contests))


if __name__ == "__main__":
    main()
