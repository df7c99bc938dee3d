"""The photos that the 224 px stage of the photo recipes trains on, as one parquet file without labels.

    python tools/photo_mix.py CLONES photos_train.parquet --imagenette imagenette_train.parquet

Eleven public collections and Imagenette: 35,689 photos of mostly 150 to 320 pixels on the shorter side. CLONES is a
folder of git clones, OWNER+NAME each; the program says what to type for one that is missing, and counts what it leaves
out. The images have the terms of their collections, see `COLLECTIONS`: never commit or publish them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

LARGEST_SIDE, NEW_SIDE = 320, 256  # a photo with a larger shorter side is stored at the new one
ROWS_A_GROUP = 500
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Collection:
    """Photos of one repository: those whose path fits `paths`, and whose shorter side has `least_side` pixels.

    `every_eighth_is_kept_aside` leaves the first of each eight out: they are for trying and testing.
    """

    repository: str
    commit: str
    paths: str
    terms: str
    least_side: int = 0
    every_eighth_is_kept_aside: bool = False


COLLECTIONS = [
    Collection(
        "EliSchwartz/imagenet-sample-images",
        "bc69043e2862758a1906c6a24a792bb28c6bb2ff",
        r"[^/]+\.JPEG",
        "part of ImageNet: research use",
        every_eighth_is_kept_aside=True,
    ),
    Collection(
        "ZhengyuZhao/Targeted-Tansfer",
        "ae67d1be838681280c3806cc1c7e590a4e7ea371",
        r"dataset/images/.*\.png",
        "NIPS 2017 challenge; the repository: MIT",
    ),
    Collection(
        "BernieChen96/ImageClassification",
        "69098f42fc2c4a7cc3b753065b936380406b53d6",
        r"JPEGImages/.*",
        "part of PASCAL VOC 2007: Flickr's terms",
        least_side=160,
    ),
    Collection(
        "chanakya2734/Image-classification-using-CNN",
        "bf746c6e53f1edacd97b383de350f7a495cef0e1",
        r"dataset/.*(/test_set/|/training_set/|breed).*|dataset/(test|training)_set/.*",
        "unstated",
        least_side=150,
    ),
    Collection(
        "alexeygrigorev/clothing-dataset", "7ed86a9cc56763b6acb35e41cb35184e43a5d218", r"images/.*\.jpg", "CC0 1.0"
    ),
    Collection(
        "marcusklasson/GroceryStoreDataset",
        "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc",
        r"dataset/train/.*",
        "MIT",
    ),
    Collection(
        "MachineLearning2020/Homework2-Caltech101",
        "836044dd000296b2bb74d0aa4b4e462e459b01d7",
        r"101_ObjectCategories/BACKGROUND_Google/.*",
        "Caltech-101's background class: unstated",
        least_side=160,
    ),
    Collection(
        "InputBlackBoxOutput/popular-animals-dataset",
        "0b73f02386d05f0126b0f33759bc7c795396768a",
        r".*",
        "the repository: MIT",
        least_side=150,
    ),
    Collection(
        "MachineLearning2020/Homework3-PACS",
        "d586a6cf3db84896fb6cc465c7bf51bdaf6d65d8",
        r"PACS/photo/(?!person/).*",
        "PACS: unstated; without its persons, who are Caltech-101's faces",
    ),
    Collection(
        "congduytran12/Trash-Classification-",
        "00212f2c18dcdb9045c74481eaae5baaf72537df",
        r"dataset-resized/.*",
        "TrashNet: MIT",
    ),
    Collection(
        "BIDS/BSDS500",
        "a04b7c6c3a9f0ace74bf205c72a43d32e1c72722",
        r"BSDS500/data/images/.*",
        "Berkeley: research and education",
    ),
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--imagenette", type=Path, required=True, help="parquet file of Imagenette's training photos")
    given = parser.parse_args(arguments)
    if missing := [c for c in COLLECTIONS if not clone_of(given.clones, c).is_dir()]:
        print(f"{len(missing)} of {len(COLLECTIONS)} clones are missing. Type:", file=sys.stderr)
        for collection in missing:
            url = f"https://github.com/{collection.repository}"
            print(f"  git clone --no-checkout {url} {clone_of(given.clones, collection)}", file=sys.stderr)
        return 2
    try:
        imagenette = pq.read_table(given.imagenette, columns=["image"])["image"].to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        print(f"--imagenette {given.imagenette}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    seen: set[bytes] = set()
    photos = [photo for collection in COLLECTIONS for photo in photos_of(given.clones, collection, seen)]
    photos += imagenette
    random.Random(0).shuffle(photos)
    table = pa.table({"image": pa.array(photos, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    pq.write_table(table, given.out, compression="none", row_group_size=ROWS_A_GROUP)
    print(f"{given.out}: {len(photos)} photos")
    return 0


def clone_of(clones: Path, collection: Collection) -> Path:
    return clones / collection.repository.replace("/", "+")


def photos_of(clones: Path, collection: Collection, seen: set[bytes]) -> Iterator[dict[str, object]]:
    """The collection's photos, each once; prints what was left out and why.

    Args:
        seen: sha256 of all photos so far, of all collections; extended.
    """
    clone, left_out, kept = clone_of(clones, collection), Counter[str](), 0
    paths = listed(clone, collection)
    for path, data in zip(paths, contents(clone, collection.commit, paths), strict=True):
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            left_out["seen before"] += 1
            continue
        seen.add(digest)
        try:
            data, shorter_side = stored(data)
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged file
            left_out["unreadable"] += 1
            continue
        if shorter_side < collection.least_side:
            left_out[f"under {collection.least_side} pixels"] += 1
            continue
        kept += 1
        yield {"bytes": data, "path": Path(path).name}
    reasons = "".join(f", {number} {reason}" for reason, number in left_out.items())
    print(f"{collection.repository}: {kept} photos{reasons} ({collection.terms})")


def listed(clone: Path, collection: Collection) -> list[str]:
    """Paths of a collection's photos at its commit, sorted."""
    command = ["git", "-C", str(clone), "-c", "core.quotepath=off", "ls-tree", "-r", "--name-only", collection.commit]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    paths = sorted(n for n in names if n.lower().endswith(SUFFIXES) and re.fullmatch(collection.paths, n))
    return [p for i, p in enumerate(paths) if i % 8] if collection.every_eighth_is_kept_aside else paths


def contents(clone: Path, commit: str, paths: list[str]) -> Iterator[bytes]:
    """The files' bytes, in order, by one git process."""
    command = ["git", "-C", str(clone), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
        assert git.stdin is not None
        assert git.stdout is not None
        question = "".join(f"{commit}:{path}\n" for path in paths).encode()
        asking = threading.Thread(target=lambda: (git.stdin.write(question), git.stdin.close()))  # type: ignore[union-attr]
        asking.start()
        for path in paths:
            header = git.stdout.readline().split()
            if header[-1] == b"missing":
                raise SystemExit(f"{clone}: {path} is not in the clone; fetch the commit {commit}")
            yield git.stdout.read(int(header[-1]))
            git.stdout.read(1)
        asking.join()


def stored(data: bytes) -> tuple[bytes, int]:
    """What is kept of a photo's file, and the shorter side in pixels that it came with."""
    image = Image.open(io.BytesIO(data))
    size = image.size
    if min(size) <= LARGEST_SIDE:
        image.load()  # a file cut short fails here
        return data, min(size)
    image.draft("RGB", (size[0] * NEW_SIDE // min(size), size[1] * NEW_SIDE // min(size)))
    image = ImageOps.exif_transpose(image).convert("RGB")
    scale = NEW_SIDE / min(image.size)
    new_size = tuple(max(NEW_SIDE, round(side * scale)) for side in image.size)
    buffer = io.BytesIO()
    image.resize(new_size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), min(size)


if __name__ == "__main__":
    sys.exit(main())
