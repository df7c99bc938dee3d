"""Features of JPEGs decoded at reduced size against those of whole decoding, by how large they still are.

    python benchmarks/reduced_decode.py --photos FOLDER

Every photo is made so large (Lanczos, JPEG quality 90; none is enlarged) that, decoded at a half, a quarter or an
eighth, its shorter side is MARGIN times what the resize needs. `transforms/eval.py` takes the margin from here.
"""

from __future__ import annotations

import argparse
import io

import torch
from PIL import Image
from torch.nn import functional as F

from disco_zoo.data.image_list import open_images
from disco_zoo.data.source_image import JPEG_FACTORS, SourceImage
from disco_zoo.models.encoder import frozen, pooled
from disco_zoo.models.load import load_model
from disco_zoo.transforms import eval as eval_module

SIZE, RESIZE = 224, 256


def sized(image: Image.Image, shorter: int) -> bytes | None:
    if shorter > min(image.size):
        return None
    file, scale = io.BytesIO(), shorter / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="a folder of photos of at least 1,024 pixels a side")
    parser.add_argument("--model", default="disco_effb0")
    parser.add_argument("--margins", type=float, nargs="+", default=[1.0, 1.5, 2.0, 2.5, 2.7, 3.0])
    given = parser.parse_args()
    named, source = load_model(given.model), open_images([given.photos])
    print("| margin | factor | photos | smallest cosine | median |")
    print("|---:|---:|---:|---:|---:|")
    for margin in given.margins:
        eval_module.REDUCED_MARGIN = margin
        for factor in JPEG_FACTORS[::-1]:
            made = (sized(source.image(index), round(RESIZE * margin * factor) + 1) for index in range(len(source)))
            encoded = [file for file in made if file is not None]
            if not encoded:
                continue
            rows = []
            for full in (True, False):
                transform = eval_module.embed_transform(SIZE, RESIZE, full_decode=full)
                views = torch.stack([transform(SourceImage(file)) for file in encoded])
                with frozen(named.backbone, "cpu"):
                    images = eval_module.normalize(views, named.mean, named.std)
                    rows.append(torch.cat([pooled(named.backbone, part) for part in images.split(8)]))
            cosines = F.cosine_similarity(rows[0].double(), rows[1].double())
            print(f"| {margin} | {factor} | {len(encoded)} | {cosines.min():.6f} | {cosines.median():.6f} |")


if __name__ == "__main__":
    main()
