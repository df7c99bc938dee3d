#!/usr/bin/env bash
# torch 2.14.1 on x86 CPUs: a bfloat16 convolution with a stride, into maps of a single column, is wrong, up to infinity and
# NaN, and says nothing.
#
# - With AMX (brg_conv_fwd of oneDNN) the output is, where it has several rows: which numbers depends on batch, rows and what
#   was in memory. Spectrograms, text lines and other long, narrow images end in such maps.
# - With AVX-512, AMX or not (brgconv_bwd_w), the gradient of the weights is, where the maps are narrower than the stride, as a
#   ResNet's are before its last stage for images 16 px wide: the columns of the kernel that meet only padding are left as they
#   were in memory.
# float32 is right, and so is bfloat16 into two columns.
# Seen (relative error, 64 channels, kernel 3, stride 2, padding 1): output inf and gradient inf for 64 maps of 8x1, both 0.002
# for 8x3; output 3e-7 and gradient 3e-7 for 8x1 in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q amx_bf16 /proc/cpuinfo || { echo "seen on CPUs with AMX; this one has none" >&2; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import math

import torch
from torch.nn import functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


def found(maps, weight):
    """Output and gradient of the weights, as float64."""
    weight = weight.detach().requires_grad_()
    output = F.conv2d(maps, weight, stride=2, padding=1)
    output.backward(torch.ones_like(output))
    return output.detach().double(), weight.grad.double()


def worst(width, dtype):
    """The largest relative errors of ten outputs and gradients, beside those in float64."""
    errors = []
    for _ in range(10):
        maps, weight = torch.randn(64, 64, 8, width).to(dtype), torch.randn(64, 64, 3, 3).to(dtype)
        torch.full((2**22,), 3e20)  # what an earlier tensor may leave in memory
        pairs = zip(found(maps, weight), found(maps.double(), weight.double()), strict=True)
        errors.append([((here - right).norm() / right.norm()).item() for here, right in pairs])
    return [max(math.inf if math.isnan(error) else error for error in of_ten) for of_ten in zip(*errors, strict=True)]


narrow, wide, single = worst(1, torch.bfloat16), worst(3, torch.bfloat16), worst(1, torch.float32)
for title, (output, gradient) in {"8x1": narrow, "8x3": wide, "8x1 in float32": single}.items():
    print(f"{title}: error of the output {output:.2g}, of the gradient {gradient:.2g}")
if min(narrow) < 0.02:
    raise SystemExit("strides into a single column are right now, output or gradient")
if max(wide) > 0.02 or max(single) > 1e-5:
    raise SystemExit("other convolutions are wrong, too")
PYTHON
