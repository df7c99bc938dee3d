"""Builds networks by timm: its errors and those of the Hub's client become this package's errors, each on one line."""

from __future__ import annotations

import contextlib
from typing import Any

import timm
from timm.models import get_arch_pretrained_cfgs

from disco_zoo.errors import UnknownName, WeightsError, did_you_mean
from disco_zoo.networks.input_size import create_for_any_size

HUB_PREFIX = "hf-hub:"


def create_by_timm(name: str, *, pretrained: bool) -> Any:
    """A headless network, for images of any size where timm's can do that.

    Args:
        name: a timm name, also with a tag, or `hf-hub:OWNER/NAME`.
        pretrained: False gives random weights.

    Raises:
        UnknownName: the architecture has no weights of this tag.
        WeightsError: its weights cannot be had.
    """
    from disco_zoo.weights.hub import quick_and_quiet
    from disco_zoo.weights.hub_errors import explained
    from disco_zoo.weights.hub_file import HubFile, cache_folder

    of_hub = name.startswith(HUB_PREFIX)
    _check_tag(name)
    cfg: Any = None if of_hub else timm.get_pretrained_cfg(name)  # None where nothing is pretrained
    repo = name.removeprefix(HUB_PREFIX) if cfg is None else str(cfg.hf_hub_id or cfg.url or name)
    wanted = HubFile(name, repo, "main", "model.safetensors", "", cache_folder(None))
    try:
        with quick_and_quiet(name) if pretrained or of_hub else contextlib.nullcontext(), explained(wanted):
            return create_for_any_size(name, pretrained=pretrained, num_classes=0)
    except WeightsError as error:
        if isinstance(error.__cause__, (RuntimeError, ValueError)):  # of timm, not of a connection
            reason = " ".join(str(error.__cause__).split())[:300]
            raise WeightsError(f"{name} cannot be loaded: {reason}") from error.__cause__
        raise


def _check_tag(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if tag and not name.startswith(HUB_PREFIX) and name not in (known := get_arch_pretrained_cfgs(architecture)):
        hint = did_you_mean(name, known)
        raise UnknownName(f"{architecture} has no weights '{tag}'.{hint} For its default ones type: {architecture}")
