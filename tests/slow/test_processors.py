"""The same verdict on every processor: parts of the suite, and figures, under other kernels than this one's.

PyTorch and oneDNN choose kernels by the processor; their environment variables make this one act as an older one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tiny_runs import ROOT, subprocess_environment

from disco_zoo.weights.golden import TOLERANCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KERNELS = ["default", "avx2", "avx512"]
ONEDNN = ["SSE41", "AVX2"]
# Loops that equal an independent one, golden features, probes whose figures are stated.
SUITE = [
    "tests/methods/test_feature.py",
    "tests/methods/test_moco_v2.py",
    "tests/methods/test_disco.py",
    "tests/methods/test_rkd.py",
    "tests/weights/test_golden.py",
    "tests/evaluation/test_knn.py",
]
DRIFT = 1e-4  # of a weight after five steps in float32; weights are about 0.1


def variants() -> list[dict[str, str]]:
    kernels = [{"ATEN_CPU_CAPABILITY": name} for name in KERNELS]
    return kernels + [{"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": isa} for isa in ONEDNN]


def runs(*arguments: str, variant: dict[str, str]) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    environment = {**subprocess_environment(), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variant}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: "-".join(variant.values()))
def test_a_chosen_part_of_the_suite_passes(variant: dict[str, str]) -> None:
    found = runs("-m", "pytest", "-n", "0", *SUITE, variant=variant)
    assert found.returncode == 0, found.stdout[-3000:]


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: "-".join(variant.values()))
def test_golden_features_and_float32_steps_move_less_than_is_allowed(variant: dict[str, str]) -> None:
    found = runs("tests/helpers/processor_figures.py", variant=variant)
    assert found.returncode == 0, found.stderr[-3000:]
    figures = json.loads(found.stdout.splitlines()[-1])
    print(variant, figures)
    assert figures["golden"]
    assert max(figures["golden"].values()) < TOLERANCE / 10
    assert figures["drift"] < DRIFT
