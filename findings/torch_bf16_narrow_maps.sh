#!/usr/bin/env bash
# torch 2.14.1 on x86 CPUs with AVX-512: in bfloat16 the gradient of a convolution's weights is wrong, up to infinity and
# NaN, where its maps are narrower than its stride. Nothing is raised; the output and the gradient of the maps are right.
#
# oneDNN (brgconv_bwd_w) leaves the columns of the kernel that meet only padding as they were in memory, in place of zeros;
# what comes out differs from call to call. A ResNet's last stage sees one column of maps for images 16 px wide, a RetinaNet's
# P7 for 64 px. float32 is right, and so is bfloat16 with the padding done before the convolution, by F.pad.
# Seen (relative error of the gradient, 64 channels, kernel 3, stride 2): inf for maps of 8x1 by the convolution's own padding,
# 0.002 padded before; 0.002 for 8x2 in both ways, 1e-7 for 8x1 in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q avx512 /proc/cpuinfo || { echo "seen on CPUs with AVX-512; this one has none" >&2; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn import functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


def gradient(maps, weight, padded):
    weight = weight.detach().requires_grad_()
    if padded:
        found = F.conv2d(F.pad(maps, (1, 1, 1, 1)), weight, stride=2)
    else:
        found = F.conv2d(maps, weight, stride=2, padding=1)
    found.backward(torch.ones_like(found))
    return weight.grad.double()


def worst(width, dtype, padded):
    """The largest relative error of ten gradients, beside those in float64."""
    errors = []
    for _ in range(10):
        maps, weight = torch.randn(64, 64, 8, width).to(dtype), torch.randn(64, 64, 3, 3).to(dtype)
        torch.full((2**22,), 3e20)  # what an earlier tensor may leave in memory
        right = gradient(maps.double(), weight.double(), padded)
        error = (gradient(maps, weight, padded) - right).norm() / right.norm()
        errors.append(float("inf") if error.isnan() else error.item())
    return max(errors)


narrow, padded = worst(1, torch.bfloat16, False), worst(1, torch.bfloat16, True)
wide, single = worst(2, torch.bfloat16, False), worst(1, torch.float32, False)
print(f"8x1: {narrow:.2g}, padded before {padded:.2g}, in float32 {single:.2g}; 8x2: {wide:.2g}")
if narrow < 0.02:
    raise SystemExit("the gradient of maps narrower than the stride is right now")
if max(padded, wide) > 0.02 or single > 1e-5:
    raise SystemExit("other gradients are wrong, too")
PYTHON
