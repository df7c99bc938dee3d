"""ViT-Tiny as DINO builds it, and XCiT-Tiny-12/16 with its authors' tensor names."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, EPS = 192, 1e-6


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class QkvAttention(nn.Module):
    """One matrix for queries, keys and values; the subclasses say what is done with them."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v, each (B, heads, N, channels a head)."""
        batch, tokens, _ = x.shape
        return tuple(part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))


class SelfAttention(QkvAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class VitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=EPS), nn.LayerNorm(WIDTH, eps=EPS)
        self.attn, self.mlp = SelfAttention(heads=3), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 16, stride=16)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).mT


class VitTiny(nn.Module):
    """Features (B, 192) of the class token, of images of 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, WIDTH))
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList(VitBlock() for _ in range(12))
        self.norm = nn.LayerNorm(WIDTH, eps=EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def conv_and_norm(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs))


class ConvPatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [3, WIDTH // 8, WIDTH // 4, WIDTH // 2, WIDTH]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [conv_and_norm(inputs, outputs), nn.GELU()]
        self.proj = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


class FourierPositions(nn.Module):
    """Sines and cosines of y and x, 32 of each, projected to the width; positions run from 0 to 2 pi."""

    def __init__(self) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(64, WIDTH, 1)

    def forward(self, height: int, width: int) -> Tensor:
        frequencies = 10_000.0 ** -(torch.arange(16) / 16)

        def waves(count: int) -> Tensor:
            angles = (torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi)[:, None] * frequencies
            return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).T  # (32, count)

        y, x = waves(height)[:, :, None], waves(width)[:, None, :]
        both = torch.cat([y.expand(-1, -1, width), x.expand(-1, height, -1)])
        return self.token_projection(both[None])


class CrossCovarianceAttention(QkvAttention):
    """Attention between channels: what is compared are rows over all tokens, of unit length."""

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.mT for part in self.split(x))  # (B, heads, channels a head, N)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(dim=-1)
        return self.proj((weights @ v).flatten(1, 2).mT)


class LocalPatchInteraction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.bn = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)

    def forward(self, x: Tensor, height: int) -> Tensor:
        image = x.mT.unflatten(2, (height, -1))
        return self.conv2(self.bn(F.gelu(self.conv1(image)))).flatten(2).mT


class XcitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH, eps=EPS) for _ in range(3))
        self.attn, self.local_mp, self.mlp = CrossCovarianceAttention(heads=4), LocalPatchInteraction(), Mlp()
        self.gamma1, self.gamma2, self.gamma3 = (nn.Parameter(torch.ones(WIDTH)) for _ in range(3))

    def forward(self, x: Tensor, height: int) -> Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        x = x + self.gamma3 * self.local_mp(self.norm3(x), height)
        return x + self.gamma2 * self.mlp(self.norm2(x))


class ClassAttention(QkvAttention):
    """The class token attends to all tokens; the others pass unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q[:, :, :1] @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return torch.cat([self.proj((weights @ v).transpose(1, 2).flatten(2)), x[:, 1:]], dim=1)


class ClassBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=EPS), nn.LayerNorm(WIDTH, eps=EPS)
        self.attn, self.mlp = ClassAttention(heads=4), Mlp()
        self.gamma1, self.gamma2 = (nn.Parameter(torch.ones(WIDTH)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(x + self.gamma1 * self.attn(self.norm1(x)))
        changed = torch.cat([self.gamma2 * self.mlp(x[:, :1]), x[:, 1:]], dim=1)
        return x + changed


class XcitTiny(nn.Module):
    """Features (B, 192) of the class token, of images (B, 3, S, S)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.pos_embeder = ConvPatchEmbed(), FourierPositions()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(XcitBlock() for _ in range(12))
        self.cls_attn_blocks = nn.ModuleList(ClassBlock() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH, eps=EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        height = patches.shape[2]
        x = (patches + self.pos_embeder(height, patches.shape[3])).flatten(2).mT
        for block in self.blocks:
            x = block(x, height)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.cls_attn_blocks:
            x = block(x)
        return self.norm(x)[:, 0]
