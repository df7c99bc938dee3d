"""How long exact nearest neighbours take, and how the time grows with the images: python benchmarks/knn_time.py

Each row halves one of the numbers of the first, so that the ratios show the growth. CPU seconds, which other work on
the machine disturbs least.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from disco_zoo.core.environment import benchmark_line
from disco_zoo.evaluation.knn import neighbors

K = 200


def cpu_seconds(num_train: int, num_test: int, width: int) -> float:
    """CPU seconds of one search for the K nearest of (num_train, width) for (num_test, width) random features."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(number, width, generator=generator).relu_() for number in (num_train, num_test))
    began = time.process_time()
    neighbors(bank, queries, k=K)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{benchmark_line(args.threads)}, k {K}\n")
    whole = (args.train, args.test, args.width)
    first = cpu_seconds(*whole)
    print(f"{'training':>9} {'test':>7} {'width':>6} {'CPU s':>7} {'share':>6}")
    for shape in (whole, *(tuple(n // 2 if place == i else n for i, n in enumerate(whole)) for place in range(3))):
        seconds = first if shape == whole else cpu_seconds(*shape)
        print(f"{shape[0]:>9} {shape[1]:>7} {shape[2]:>6} {seconds:>7.1f} {seconds / first:>6.2f}")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    features_mib = 4 * args.width * (args.train + args.test) / 2**20
    print(f"peak memory {peak_mib:.0f} MiB, of which features {features_mib:.0f} MiB")


if __name__ == "__main__":
    main()
