"""Vision transformers at other sizes than their own: where timm's resampling and DINO's part ways (spec 8)."""

from __future__ import annotations

import math

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.networks.input_size import create_for_any_size


def dinos_embedding(position: Tensor, side: int) -> Tensor:
    """Resample (1, 1 + N, D) for `side` patches: bicubic by a scale factor that is a tenth of a patch too large."""
    kept, grid = position[:, :1], round(math.sqrt(position.shape[1] - 1))
    patches = position[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    factor = (side + 0.1) / grid
    patches = F.interpolate(patches, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([kept, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@torch.inference_mode()
def test_timm_resamples_position_embeddings_unlike_dino_off_their_own_size() -> None:
    torch.manual_seed(0)
    ours = create_for_any_size("vit_tiny_patch16_224", num_classes=0).eval()
    ours.pos_embed.copy_(F.interpolate(torch.randn(1, 192, 99), 197, mode="linear").transpose(1, 2))
    differences = {}
    for pixels in (224, 96):
        theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=pixels).eval()
        state = ours.state_dict()
        same = dinos_embedding(state["pos_embed"], pixels // 16) if pixels != 224 else state["pos_embed"]
        theirs.load_state_dict({**state, "pos_embed": same}, strict=True)
        images = torch.randn(2, 3, pixels, pixels)
        differences[pixels] = (ours(images) - theirs(images)).abs().max().item()
    assert differences[224] < 1e-5
    assert differences[96] > 0.01
