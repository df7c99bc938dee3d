"""The losses of the methods as pure functions: tensors and numbers in, a scalar tensor out.

    from disco_zoo.losses import similarity_distillation_loss

Rows (b, D) are one an image. Each docstring gives shapes, the equation, and which tensors get gradients.
"""

from disco_zoo.methods.bingo import bingo_loss
from disco_zoo.methods.compress import similarity_loss
from disco_zoo.methods.coss import column_cosine_loss
from disco_zoo.methods.crd import noise_contrastive_loss
from disco_zoo.methods.disco import consistency_loss
from disco_zoo.methods.disco_swav import view_consistency_loss
from disco_zoo.methods.kd_mse import regression_loss, standardized_regression_loss
from disco_zoo.methods.rkd import angle_loss, distance_loss
from disco_zoo.methods.seed import similarity_distillation_loss
from disco_zoo.methods.simclr import nt_xent_loss
from disco_zoo.modules.momentum_contrast import contrastive_loss
from disco_zoo.modules.similarity import row_cosine_loss
from disco_zoo.modules.swapped_prediction import sinkhorn, swapped_prediction_loss

__all__ = [
    "angle_loss",
    "bingo_loss",
    "column_cosine_loss",
    "consistency_loss",
    "contrastive_loss",
    "distance_loss",
    "noise_contrastive_loss",
    "nt_xent_loss",
    "regression_loss",
    "row_cosine_loss",
    "similarity_distillation_loss",
    "similarity_loss",
    "sinkhorn",
    "standardized_regression_loss",
    "swapped_prediction_loss",
    "view_consistency_loss",
]
