#!/usr/bin/env bash
# torch 2.14.1 on x86 CPUs with AVX-512: the gradient of the weights of a depthwise convolution takes ten times longer
# for kernels of five than for kernels of three, where it is 2.8 times the arithmetic; in bfloat16 twenty to a hundred times.
#
# Nine of the 16 blocks of EfficientNet-B0 and six of the 15 of MobileNetV3-L have 5x5 kernels, so a plain training of them on a
# CPU spends much of its time there, and bfloat16, which shortens the rest of the step, makes the whole of it longer.
# Seen (one thread, 64 maps of 240 channels, channels-last; milliseconds of the processor for 3x3 and for 5x5):
#   float32   4x4 0.25 and 5.0, 8x8 0.73 and 10.1, 16x16 4.0 and 30
#   bfloat16  4x4 0.17 and 18,  8x8 0.74 and 44,   16x16 7.9 and 161
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q avx512 /proc/cpuinfo || { echo "seen on CPUs with AVX-512; this one has none" >&2; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import statistics
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(0)


def milliseconds(kernel, side, dtype):
    maps, gradient = (torch.randn(64, 240, side, side).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    weight, padding = torch.randn(240, 1, kernel, kernel).to(dtype), (kernel // 2, kernel // 2)
    given = (gradient, maps, weight, None, (1, 1), padding, (1, 1), False, (0, 0), 240, [False, True, False])
    took = []
    for _ in range(9):
        began = time.process_time()
        torch.ops.aten.convolution_backward(*given)
        took.append(1000 * (time.process_time() - began))
    return statistics.median(took[2:])


for dtype in (torch.float32, torch.bfloat16):
    for side in (4, 8, 16):
        three, five = milliseconds(3, side, dtype), milliseconds(5, side, dtype)
        print(f"{dtype} {side}x{side}: 3x3 {three:.2f} ms, 5x5 {five:.2f} ms, {five / three:.0f} times")
        if five < 5 * three:
            raise SystemExit("the gradient of a 5x5 depthwise kernel no longer takes five times that of a 3x3 one")
PYTHON
