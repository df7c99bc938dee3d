"""Search your photos by example: embed a folder once, then find the nearest photos of any picture.

    python examples/search_your_photos.py photos/ holiday.jpg

Photos need no labels. Run it again with another picture: the embedding is kept. The same from the command line:
disco-zoo embed photos/ --model disco_effb0 --out photos.parquet
disco-zoo search holiday.jpg --in photos.parquet --html found.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from disco_zoo.data.image_list import open_images
from disco_zoo.embed.embedding_file import EmbeddingFile
from disco_zoo.embed.facts import facts_of
from disco_zoo.embed.job import EmbedJob
from disco_zoo.embed.query import Pictures, resolve_queries
from disco_zoo.embed.results import Found, as_page, as_table
from disco_zoo.embed.search import search
from disco_zoo.models.load import load_named_model


def embed_folder(photos: str, out: Path) -> EmbeddingFile:
    """One row a photo; goes on after an interruption, and does nothing where `out` is finished and of these photos."""
    named = load_named_model("disco_effb0")
    source = open_images([photos])
    facts = facts_of(named, source, data=photos, split=None, normalised=True, half=True)
    EmbedJob(named, source, facts, out).run(resume=out.exists())
    return EmbeddingFile(out)


def nearest(file: EmbeddingFile, picture: str, count: int) -> Found:
    """The photos most like `picture`, which need not be one of them."""
    (query,) = resolve_queries([picture], file, pictures=Pictures(file))
    (hits,) = search(file, np.stack([query.vector]), count, [query.own_row])
    return Found(query, hits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder, searched with all its subfolders")
    parser.add_argument("picture", help="find what looks like this")
    parser.add_argument("--embedding", type=Path, default=Path("photos.parquet"))
    parser.add_argument("--page", type=Path, default=Path("found.html"))
    parser.add_argument("--count", type=int, default=12)
    args = parser.parse_args()
    file = embed_folder(args.photos, args.embedding)
    found = nearest(file, args.picture, args.count)
    print(as_table(file, [found]))
    args.page.write_text(as_page(file, [found], Pictures(file)), encoding="utf-8")
    print(f"Open {args.page} in a browser.")


if __name__ == "__main__":
    main()
