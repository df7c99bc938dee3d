"""The student architectures, registered in timm under our own names.

Each entrypoint resolves its cfg under its *own* name before it calls another one. Arguments passed through
unresolved would inherit the native defaults: `pretrained=True` would load timm's supervised weights in silence.
A tag whose weights need another network than the architecture's own (`variant` in the catalog) builds that
network. (The file name matters too: timm takes it for the name of the model family.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.models import (
    PretrainedCfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

import disco_zoo.networks.variants  # noqa: F401  registers the variants
from disco_zoo.weights.bundled import bundled_path
from disco_zoo.zoo.catalog import Catalog, Checkpoint, load_catalog

__all__: list[str] = []  # timm appends the names; it must be a list


def _pretrained_cfg(checkpoint: Checkpoint, network: str) -> PretrainedCfg:
    native = get_pretrained_cfg(network)
    weights, inputs = checkpoint.weights, checkpoint.input
    sources: dict[str, str | None] = {}
    if weights.source == "bundled":
        sources = {"file": str(bundled_path(weights.file or ""))}
    elif weights.source == "hub":
        sources = {"hf_hub_id": f"{weights.repo}@{weights.revision}", "hf_hub_filename": weights.file}
    return PretrainedCfg(
        **sources,
        num_classes=0,
        input_size=(3, inputs.size, inputs.size),
        mean=tuple(inputs.mean),
        std=tuple(inputs.std),
        crop_pct=inputs.crop_pct,
        interpolation=inputs.interpolation,
        first_conv=native.first_conv,
        classifier=native.classifier,
        pool_size=native.pool_size,
        fixed_input_size=native.fixed_input_size,
        license=checkpoint.licence.weights,
        description=checkpoint.summary,
        origin_url=checkpoint.origin if checkpoint.origin.startswith("https:") else None,
    )


def _default_cfgs(catalog: Catalog) -> dict[str, PretrainedCfg]:
    """One cfg a checkpoint; the star marks the architecture's default."""
    cfgs = {}
    for architecture in catalog.architectures.values():
        if architecture.registered:
            for checkpoint in catalog.of_architecture(architecture.name):
                star = "*" if checkpoint.tag == architecture.default else ""
                cfgs[checkpoint.name + star] = _pretrained_cfg(checkpoint, catalog.network_of(checkpoint))
    return cfgs


def _register_student(arch: str, native: str, variants: Mapping[str, str]) -> Callable[..., nn.Module]:
    def entrypoint(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        cfg = resolve_pretrained_cfg(arch, pretrained_cfg, pretrained_cfg_overlay)
        network = variants.get(cfg.tag, native)
        cfg = replace(cfg, architecture=network)  # an export then names what computes the same
        if pretrained:
            # Not above: this module may run while one that that module needs is half imported, at its import of timm.
            from disco_zoo.weights.resolve import fetch_weights

            cfg = fetch_weights(cfg, arch, cache_dir)
        return model_entrypoint(network)(pretrained=pretrained, pretrained_cfg=cfg, cache_dir=cache_dir, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = arch
    entrypoint.__module__ = __name__
    return register_model(entrypoint)


# timm reads this name from the module while a model is registered.
default_cfgs = generate_default_cfgs(_default_cfgs(load_catalog()))

for _architecture in load_catalog().architectures.values():
    if _architecture.registered and _architecture.native:
        _rows = load_catalog().of_architecture(_architecture.name)
        _register_student(_architecture.name, _architecture.native, {r.tag: r.variant for r in _rows if r.variant})
