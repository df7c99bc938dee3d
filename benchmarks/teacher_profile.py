"""What of a step is the teacher's forward, and what of that are matrix products: the bound on an uncached step.

    python benchmarks/teacher_profile.py --data cifar10_train.parquet

The plain loop of benchmarks/speed, our step and the teacher alone, in turns; then the teacher's forward under torch's
profiler, by operator.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import timm
import torch
from torch.profiler import ProfilerActivity, profile

from disco_zoo.core.environment import benchmark_line

SPEED = Path(__file__).parent / "speed"
sys.path.insert(0, str(SPEED))

from measure import VIT, Contestant, contest, ours, write_images  # noqa: E402
from results_page import BATCH  # noqa: E402

PRODUCTS = (
    "addmm",
    "mm",
    "bmm",
    "baddbmm",
    "mkl_linear",
    "mkldnn_linear",
    "_scaled_dot_product_flash_attention_for_cpu",
)
CONVOLUTIONS = ("mkldnn_convolution", "_slow_conv2d_forward")
SHOWN = 6


def print_shares(given: argparse.Namespace) -> None:
    """Seconds of the three, and the teacher's share of each step."""
    alone = Contestant("the teacher's forward", "teacher_alone.py", ["--teacher", given.teacher])
    plain = Contestant("plain loop", "plain_disco.py", ["--data", "{folder}", "--teacher", given.teacher])
    contestants = [alone, plain, ours("disco-zoo", "disco", f"teacher.source={given.teacher}")]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        write_images(given.data, work / "images")
        contest(given.teacher, contestants, given, work)
    print("| a step | seconds | the teacher's share, % | rounds | all else, seconds |\n|---|---:|---:|---:|---:|")
    for one in contestants:
        shares = [100 * own / whole for own, whole in zip(alone.seconds, one.seconds, strict=True)]
        rest = [whole - own for own, whole in zip(alone.seconds, one.seconds, strict=True)]
        spread = f"{min(shares):.0f} to {max(shares):.0f}"
        print(
            f"| {one.title} | {statistics.median(one.seconds):.2f} | {statistics.median(shares):.0f} | {spread} | "
            f"{statistics.median(rest):.2f} |"
        )


def operator_shares(teacher: torch.nn.Module, views: torch.Tensor, forwards: int) -> dict[str, float]:
    """Of the time inside operators, by name, largest first; matrix products and convolutions are one entry each."""
    with torch.no_grad():
        teacher(views)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(forwards):
                teacher(views)
    spent: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        name = event.key.removeprefix("aten::")
        kind = "matrix products" if name in PRODUCTS else "convolutions" if name in CONVOLUTIONS else name
        spent[kind] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: time / whole for kind, time in sorted(spent.items(), key=lambda item: -item[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a parquet of images; the first 2048 are used")
    parser.add_argument("--teacher", default=VIT)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="a turn")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    print(f"{benchmark_line(given.threads)}; {given.teacher}, batch {BATCH}, 64 px, two views\n")
    print_shares(given)
    torch.set_num_threads(given.threads)
    options = {"img_size": 64} if "vit" in given.teacher else {}
    teacher = timm.create_model(given.teacher, num_classes=0, **options).eval()
    shares = operator_shares(teacher, torch.randn(BATCH, 3, 64, 64), given.rounds)
    print("\n| operators of the teacher's forward | share of their time, % |\n|---|---:|")
    for kind, share in list(shares.items())[:SHOWN]:
        print(f"| {kind} | {100 * share:.1f} |")
    print(f"| all other | {100 * sum(list(shares.values())[SHOWN:]):.1f} |")


if __name__ == "__main__":
    main()
