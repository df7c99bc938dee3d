"""A command imports torchvision without torch's compiler, and torchvision does with it what it did."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

IMPORTS = """
import json, sys
from disco_zoo.cli.without_compiler import spare_compiler
spare_compiler()
import torchvision.transforms.v2, timm
print(json.dumps([name for name in ("torch._dynamo", "torch._dynamo.utils", "sympy") if name in sys.modules]))
"""
ALONE = """
import json, sys
import disco_zoo, disco_zoo.cli
print(json.dumps([type(finder).__name__ for finder in sys.meta_path if "Compiler" in type(finder).__name__]))
"""
USE = """
import json, sys
from disco_zoo.cli.without_compiler import spare_compiler
spare_compiler()
import torch, torchvision
from torchvision import tv_tensors
from torchvision.ops import roi_align

image = tv_tensors.Image(torch.ones(3, 4, 4))
wrapped = tv_tensors.wrap(torch.zeros(3, 4, 4), like=image)
early = "torch._dynamo" in sys.modules
pixels, boxes = torch.rand(1, 3, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
pooled = roi_align(pixels, boxes, 2)
import torch._dynamo.utils
compiled = torch.compile(lambda x: tv_tensors.wrap(x * 2, like=image), backend="eager")
late = compiled(torch.ones(3, 4, 4))
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
print(json.dumps([type(wrapped).__name__, early, list(pooled.shape), type(late).__name__, late.sum().item(),
    supported, torch._dynamo.utils.__name__, torch._dynamo is sys.modules["torch._dynamo"]]))
"""
MORE = """
import json, sys
from disco_zoo.cli.without_compiler import COMPILER, _stand_ins
sys.modules.update(_stand_ins())
from torch._dynamo import config  # no part of the stand-in
print(json.dumps([config.__name__, type(sys.modules[COMPILER]).__name__]))
"""


def answer(program: str) -> list[object]:
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    found: list[object] = json.loads(ended.stdout)
    return found


def test_a_command_imports_torchvision_and_timm_without_the_compiler() -> None:
    assert answer(IMPORTS) == []


def test_programs_that_import_the_package_are_left_alone() -> None:
    assert answer(ALONE) == []


@pytest.mark.slow
def test_what_was_imported_without_the_compiler_works_before_and_with_it() -> None:
    expected = ["Image", False, [1, 3, 2, 2], "Image", 96.0, True, "torch._dynamo.utils", True]
    assert answer(USE) == expected


@pytest.mark.slow
def test_whatever_else_is_asked_of_the_stand_in_is_the_real_modules() -> None:
    assert answer(MORE) == ["torch._dynamo.config", "module"]
