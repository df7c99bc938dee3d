"""A frozen network that turns views into targets, and what identifies it.

A `Teacher` is deliberately not an `nn.Module`: the method that holds it cannot put it into train mode, move
it into a checkpoint, hand it to DDP or to the optimiser. DisCo's and BINGO's code did the first of these by
accident (spec Q1).
"""

from __future__ import annotations

import functools
import hashlib
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor  # the class that torch's own documentation imports

from disco_zoo.errors import BadRecipe
from disco_zoo.models.encoder import Encoder, backbone_fingerprint, choose_memory_format, feature_dim_of
from disco_zoo.models.fold_batch_norm import fold_batch_norm
from disco_zoo.models.teacher_source import LoadedTeacher
from disco_zoo.networks.input_size import fit_input_size

BatchNormMode = Literal["eval", "train"]


class Teacher:
    """A frozen network that turns shared views into targets.

    Args:
        loaded: networks from `load_teacher_source`.
        image_size: side in pixels the teacher looks at; may differ from the student's.
        features: "head" for the SSL embedding, "backbone" for pooled features; None for the head where there is one.
        bn_mode: "eval", or "train" to repeat the official code: targets then depend on the batch.

    Attributes:
        encoder: the network as it was loaded; what identifies or measures the teacher looks at this one.

    Raises:
        BadRecipe: features of a head, and there is none.
        BadTeacher: the network cannot look at images of this size.
    """

    def __init__(
        self,
        loaded: LoadedTeacher,
        *,
        image_size: int,
        features: Literal["head", "backbone"] | None = None,
        bn_mode: BatchNormMode = "eval",
        device: torch.device | str = "cpu",
    ) -> None:
        self.loaded, self.bn_mode, self.features = loaded, bn_mode, features
        if features == "head" and isinstance(loaded.head, nn.Identity):
            raise BadRecipe(
                f"teacher.features: head, but {loaded.title} has no SSL head. Type: --set teacher.features=backbone"
            )
        head = nn.Identity() if features == "backbone" else loaded.head
        self.embed_dim = feature_dim_of(loaded.backbone) if features == "backbone" else loaded.embed_dim
        self.encoder = Encoder(
            loaded.backbone, head, image_size=image_size, mean=loaded.mean, std=loaded.std
        ).requires_grad_(False)
        self.encoder.train(bn_mode == "train").to(device)
        choose_memory_format(self.encoder, device)
        fit_input_size(loaded.backbone, image_size, loaded.title)

    @property
    def title(self) -> str:
        return self.loaded.title

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    @property
    def headless(self) -> bool:
        """Whether the targets are pooled features."""
        return isinstance(self.encoder.head, nn.Identity)

    @functools.cached_property
    def folded(self) -> Encoder:
        """What computes the targets, made at their first use: `encoder`, with BatchNorm folded where it is frozen."""
        return fold_batch_norm(self.encoder) if self.bn_mode == "eval" and self.has_values else self.encoder

    @property
    def has_values(self) -> bool:
        """False while a plan counts what a step costs with tensors that are shapes alone."""
        return not any(
            parameter.is_meta or isinstance(parameter, FakeTensor) for parameter in self.encoder.parameters()
        )

    def offload(self) -> None:
        """Leave the accelerator's memory to the student, when all targets are computed."""
        self.__dict__.pop("folded", None)
        self.encoder.to("cpu")

    @torch.no_grad()
    def __call__(self, views: Tensor, size: int | None = None) -> Tensor:
        """Un-normalised embeddings (b, D) of uint8 views (b, 3, S, S), seen at side `size`, without gradient."""
        return self.folded.head(self.folded.features(views, size)).detach()


def teacher_key(teacher: Teacher) -> str:
    """Sha256 of the teacher's file, or of its title and tensors where it has none: networks may differ in neither."""
    if teacher.loaded.sha256:
        return teacher.loaded.sha256
    return hashlib.sha256(f"{teacher.title}\0{backbone_fingerprint(teacher.encoder)}".encode()).hexdigest()
