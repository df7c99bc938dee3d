"""Search your photos by example: embed a folder once, then find the nearest photos of any picture.

    python examples/search_your_photos.py photos/ holiday.jpg

Photos need no labels. Run it again with another picture: the embedding is kept. The same from the command line:
disco-zoo embed photos/ --model disco_effb0 --normalise --half --out photos.parquet
disco-zoo search holiday.jpg --in photos.parquet -k 12 --html found.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

import disco_zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder, searched with all its subfolders")
    parser.add_argument("picture", help="find what looks like this")
    parser.add_argument("--embedding", type=Path, default=Path("photos.parquet"))
    parser.add_argument("--page", type=Path, default=Path("found.html"))
    parser.add_argument("--count", type=int, default=12)
    args = parser.parse_args()
    # One row a photo; goes on after an interruption, and does nothing where the file is finished and of these photos.
    file = disco_zoo.embed(
        args.photos, "disco_effb0", args.embedding, normalise=True, half=True, resume=args.embedding.exists()
    )
    found = disco_zoo.search(args.picture, file, args.count, page=args.page)
    print(found.as_table())
    print(f"Open {args.page} in a browser.")


if __name__ == "__main__":
    main()
