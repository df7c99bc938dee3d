#!/usr/bin/env bash
# openvino 2026.4.1 reads an ONNX Resize with antialias=1 and computes the one without; onnxruntime and onnx apply it.
#
# Resize has the attribute since opset 18. Who puts the resizing of photos into the exported file, so that phones and
# servers see what torchvision or Pillow made in training, gets other pixels from OpenVINO: aliased ones. Reading and
# compiling raise and log nothing, and the shapes are right.
# Seen: 128 to 16 px: onnxruntime 1.32.0 and onnx 1.23.2 agree to 1e-6; OpenVINO is 0.38 (linear) and 0.53 (cubic) away
# from them (of 1), and gives exactly what it gives for the same graph with antialias=0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

core = openvino.Core()
core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # not the machine's own choice
image = np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)


def graph(mode: str, antialias: int) -> bytes:
    """A Resize to 16 px, as an ONNX file."""
    options = {"antialias": antialias, "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.5}
    node = helper.make_node("Resize", ["image", "", "", "size"], ["small"], mode=mode, **options)
    size = helper.make_tensor("size", TensorProto.INT64, [4], [1, 3, 16, 16])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, side, side])
        for name, side in (("image", 128), ("small", 16))
    ]
    body = helper.make_graph([node], "resize", ends[:1], ends[1:], [size])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def by_openvino(file: bytes) -> np.ndarray:
    return core.compile_model(core.read_model(file), "CPU")([image])[0]


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
for mode in ("linear", "cubic"):
    smooth, plain = graph(mode, 1), graph(mode, 0)
    session = onnxruntime.InferenceSession(smooth, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": image})[0]
    reference = ReferenceEvaluator(onnx.load_from_string(smooth)).run(None, {"image": image})[0]
    found, aliased = by_openvino(smooth), by_openvino(plain)
    away = {
        "onnxruntime to onnx": np.abs(expected - reference).max(),
        "openvino to onnxruntime": np.abs(found - expected).max(),
        "openvino with to without antialias": np.abs(found - aliased).max(),
    }
    print(mode, {which: f"{value:.1e}" for which, value in away.items()})
    assert away["onnxruntime to onnx"] < 1e-5, "the two no longer agree"
    assert away["openvino to onnxruntime"] > 0.3, "openvino now applies antialias"
    assert away["openvino with to without antialias"] < 1e-4, "antialias now changes what openvino computes"
PYTHON
