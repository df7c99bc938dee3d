"""The methods, by the name a recipe uses. To add one: a file here, a line here, a recipe, a test."""

from __future__ import annotations

from disco_zoo.methods.base import Method
from disco_zoo.methods.bingo import BINGO
from disco_zoo.methods.compress import CompRess1q, CompRess2q, CompRess2qMomentum
from disco_zoo.methods.coss import CoSS
from disco_zoo.methods.crd import CRD
from disco_zoo.methods.disco import DisCo
from disco_zoo.methods.disco_swav import DisCoSwAV
from disco_zoo.methods.feature import FeatureDistillation
from disco_zoo.methods.kd_mse import KdMse
from disco_zoo.methods.moco_v2 import MoCoV2, SslSmall
from disco_zoo.methods.rkd import RKD
from disco_zoo.methods.seed import SEED
from disco_zoo.methods.simclr import SimCLR
from disco_zoo.methods.swav import SwAV

METHODS: dict[str, type[Method]] = {
    "bingo": BINGO,
    "compress_1q": CompRess1q,
    "compress_2q": CompRess2q,
    "compress_2q_momentum": CompRess2qMomentum,
    "coss": CoSS,
    "crd": CRD,
    "disco": DisCo,
    "disco_swav": DisCoSwAV,
    "feature": FeatureDistillation,
    "kd_mse": KdMse,
    "moco_v2": MoCoV2,
    "rkd": RKD,
    "seed": SEED,
    "simclr": SimCLR,
    "ssl_small": SslSmall,
    "swav": SwAV,
}

__all__ = ["METHODS", "Method"]
