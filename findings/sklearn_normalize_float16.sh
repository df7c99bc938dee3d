#!/usr/bin/env bash
# scikit-learn 1.9.1 turns float16 features into zeros when it normalizes rows whose length is above 256.
#
# Features are often stored as float16. normalize() and Normalizer accept them, keep the type and sum the squares in it:
# from a length of 256 on the sum is infinite (65504 is the largest float16), and a row divided by that is zero. No
# warning, no NaN: a kNN or a probe then says chance, and one of which some rows are longer than others, something
# in between. The rows themselves are far from the limits of float16; cosine_similarity and kNN with metric "cosine"
# take the same array to float64 first and are right.
# Seen: 400 rows of 768 values up to 80, lengths 178 to 365: 237 are zeros (all above 256, none below); kNN of four
# classes 0.565 instead of 1.000; nothing of it with the same rows as float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import sklearn
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer, normalize

warnings.simplefilter("error")
np.seterr(over="raise", divide="raise", invalid="raise")
generator = np.random.default_rng(0)
labels = generator.integers(0, 4, 400)
centers = generator.standard_normal((4, 768))
features = np.maximum(centers[labels] + generator.standard_normal((400, 768)), 0)  # as after a ReLU
features *= generator.uniform(7, 12.5, (400, 1))
stored = features.astype(np.float16)
lengths = np.linalg.norm(stored.astype(np.float64), axis=1)


def knn(rows: np.ndarray) -> float:
    """Accuracy on the second half, by neighbors in the first."""
    half = KNeighborsClassifier(5).fit(rows[:200].astype(np.float32), labels[:200])
    return half.score(rows[200:].astype(np.float32), labels[200:])


unit = {kind: normalize(stored.astype(kind)) for kind in ("float16", "float32")}
zeros = {kind: ~rows.any(axis=1) for kind, rows in unit.items()}
accuracy = {kind: knn(rows) for kind, rows in unit.items()}
print(f"scikit-learn {sklearn.__version__} numpy {np.__version__}: largest value {stored.max():.0f}")
print(f"lengths {lengths.min():.0f} to {lengths.max():.0f}, {(lengths > 256).sum()} above 256")
print({kind: int(rows.sum()) for kind, rows in zeros.items()}, "rows of zeros;", accuracy, "accuracy of kNN")
assert np.array_equal(zeros["float16"], lengths > 256), "it no longer depends on a length of 256"
assert np.array_equal(Normalizer().transform(stored), unit["float16"])
assert not zeros["float32"].any()
assert accuracy["float32"] > 0.99 > 0.8 > accuracy["float16"]
assert np.allclose(np.diag(cosine_similarity(stored)), 1)
PYTHON
