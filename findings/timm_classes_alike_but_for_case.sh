#!/usr/bin/env bash
# timm 1.0.31 numbers class folders that differ by case or by leading zeros anew in every process.
#
# It sorts a set of names by a key without case, in which digits are numbers: "A" and "a", "1" and "01" are equal there, and equal
# names keep the order of the set, which Python's hash seed draws for each process. So a classifier of letters that one
# process trained can be measured in the next one with labels exchanged, and neither says so. Folders of letters and
# digits are usual (EMNIST, Chars74K, Omniglot's alphabets); of words and of ImageNet's names no two are alike.
# Seen: over the hash seeds 0 to 9, folders A, a, B and b are numbered in several ways, cat, dog and n01440764 in one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/number.py" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image
from timm.data import create_dataset

root, classes = Path(sys.argv[1]), sys.argv[2:]
for one in classes:
    (root / one).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(root / one / "photo.png")
found = create_dataset("", str(root)).reader.class_to_idx
print(" ".join(sorted(found, key=found.get)))
PYTHON
ways() {
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        PYTHONHASHSEED=$seed "$folder/venv/bin/python" "$folder/number.py" "$folder/$1" "${@:2}"
    done | sort -u
}
letters=$(ways letters A a B b)
words=$(ways words cat dog n01440764)
echo "letters, in the order of their numbers:" && echo "$letters"
echo "words:" && echo "$words"
[ "$(echo "$letters" | wc -l)" -gt 1 ]
[ "$(echo "$words" | wc -l)" -eq 1 ]
