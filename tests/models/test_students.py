"""The students in timm: everything timm offers works, under our names and never with timm's weights."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.models import PretrainedCfg

import disco_zoo
from disco_zoo.zoo.catalog import Checkpoint, load_catalog

# Spec (timm_hub, section 2): native architecture and headless width.
STUDENTS = {
    "disco_effb0": ("efficientnet_b0", 1280),
    "disco_effb1": ("efficientnet_b1", 1280),
    "disco_mobv3": ("mobilenetv3_large_100", 1280),
    "disco_r18": ("resnet18", 512),
    "disco_r34": ("resnet34", 512),
    "disco_mobv4s": ("mobilenetv4_conv_small", 1280),
    "disco_repvit_m09": ("repvit_m0_9", 384),
    "disco_r50": ("resnet50", 2048),
    "disco_mobv2": ("mobilenetv2_100", 1280),
    "disco_vit_tiny": ("vit_tiny_patch16_224", 192),
    "disco_xcit_tiny": ("xcit_tiny_12_p16_224", 192),
}
# Networks that weights of the authors need and timm lacks; no weights of their own.
NETWORKS = [
    "disco_effb0_pad224",
    "disco_effb1_pad2",
    "disco_mobv3_se_first",
    "disco_r50w2",
    "disco_r50w4",
    "disco_r50w5",
]
each_student = pytest.mark.parametrize("arch", STUDENTS)


def images(arch: str, channels: int = 3, count: int = 2) -> torch.Tensor:
    """Random images (N, C, S, S); small where the network takes any size."""
    size = 224 if arch in ("disco_vit_tiny", "disco_xcit_tiny") else 64
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@functools.cache
def create(arch: str, **options: Any) -> torch.nn.Module:
    """A model in eval mode, shared by the tests: they must not change it."""
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(arch, **options)
    return model.eval()


def test_importing_the_package_registers_the_students() -> None:
    assert disco_zoo.__all__
    assert sorted(timm.list_models("disco_*")) == sorted([*STUDENTS, *NETWORKS])
    assert not [name for name in timm.list_pretrained("disco_*") if name.split(".")[0] in NETWORKS]


def test_architectures_of_the_catalog_are_those_of_the_spec() -> None:
    registered = {a.name: (a.native, a.feature_dim) for a in load_catalog().architectures.values() if a.registered}
    assert registered == STUDENTS


@each_student
def test_tags_are_the_catalogs(arch: str) -> None:
    tags = [row.tag for row in load_catalog().of_architecture(arch)]
    listed = timm.list_models(f"{arch}.*", include_tags=True)
    assert sorted(listed) == sorted(f"{arch}.{tag}" for tag in tags)
    assert timm.get_pretrained_cfg(arch).tag == load_catalog().architectures[arch].default
    for tag in tags:
        assert timm.get_pretrained_cfg(f"{arch}.{tag}").tag == tag


def test_only_loadable_weights_count_as_pretrained() -> None:
    rows = load_catalog().checkpoints.values()
    assert timm.list_pretrained("disco_*") == sorted(row.name for row in rows if row.weights.loadable)


@each_student
def test_headless_by_default_with_the_specs_width(arch: str) -> None:
    native, width = STUDENTS[arch]
    model = create(arch)
    with torch.no_grad():
        features = model(images(arch))
    assert features.shape == (2, width)
    assert model.pretrained_cfg["architecture"] == native  # what save_for_hf exports
    params_millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert params_millions == pytest.approx(load_catalog().architectures[arch].params_millions, abs=0.005)


@each_student
def test_same_network_as_timms_own(arch: str) -> None:
    native = timm.create_model(STUDENTS[arch][0], num_classes=0).eval()
    ours = create(arch)
    native.load_state_dict(ours.state_dict())  # strict: same names and shapes
    with torch.no_grad():
        assert torch.equal(ours(images(arch)), native(images(arch)))


@each_student
def test_a_new_head(arch: str) -> None:
    model = create(arch, num_classes=10)
    with torch.no_grad():
        assert model(images(arch)).shape == (2, 10)
    assert model.num_classes == 10
    headless = copy.deepcopy(model)
    headless.reset_classifier(0)
    with torch.no_grad():
        assert headless(images(arch)).shape == (2, STUDENTS[arch][1])


@each_student
def test_one_channel(arch: str) -> None:
    with torch.no_grad():
        assert create(arch, in_chans=1)(images(arch, channels=1)).shape == (2, STUDENTS[arch][1])


@each_student
def test_features_only(arch: str) -> None:
    model = create(arch, features_only=True)
    with torch.no_grad():
        maps = model(images(arch, count=1))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert all(m.ndim == 4 for m in maps)


@each_student
def test_forward_intermediates(arch: str) -> None:
    model = create(arch)
    with torch.no_grad():
        final, maps = model.forward_intermediates(images(arch, count=1), indices=2)
        assert torch.equal(final, model.forward_features(images(arch, count=1)))
    assert len(maps) == 2


@each_student
def test_data_config_is_the_catalogs(arch: str) -> None:
    row = load_catalog().resolve(arch)
    assert timm.data.resolve_model_data_config(create(arch)) == {
        "input_size": (3, row.input.size, row.input.size),
        "interpolation": row.input.interpolation,
        "mean": tuple(row.input.mean),
        "std": tuple(row.input.std),
        "crop_pct": row.input.crop_pct,
        "crop_mode": "center",
    }


@each_student
def test_pretrained_never_selects_timms_own_weights(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: arguments passed through unresolved would load timm's supervised weights in silence."""

    class Stopped(Exception):
        pass

    seen: list[PretrainedCfg] = []

    def spy(cfg: PretrainedCfg, *_: Any) -> PretrainedCfg:
        seen.append(cfg)
        raise Stopped

    monkeypatch.setattr("disco_zoo.weights.resolve.fetch_weights", spy)
    names = [arch, *(row.name for row in load_catalog().of_architecture(arch))]
    for name in names:
        with pytest.raises(Stopped):
            timm.create_model(name, pretrained=True)
    assert [cfg.tag for cfg in seen] == [load_catalog().resolve(name).tag for name in names]
    assert all(cfg.num_classes == 0 and cfg.url is None for cfg in seen)
    assert not [cfg for cfg in seen if (cfg.hf_hub_id or "").startswith("timm/")]


@each_student
def test_tags_of_timms_own_weights_are_invalid(arch: str) -> None:
    native_tag = timm.get_pretrained_cfg(STUDENTS[arch][0]).tag
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model(f"{arch}.{native_tag}", pretrained=True)


VARIANT_ROWS = [row for row in load_catalog().checkpoints.values() if row.variant]


@pytest.mark.parametrize("row", VARIANT_ROWS, ids=lambda row: row.name)
def test_a_tag_whose_weights_need_a_variant_builds_that_variant(row: Checkpoint) -> None:
    """Not the architecture's own network, into which they would load strictly and compute something else."""
    own, variant, native = (
        timm.create_model(name, num_classes=0).eval() for name in (row.name, row.variant, row.architecture)
    )
    assert own.pretrained_cfg["architecture"] == row.variant
    own.load_state_dict(variant.state_dict())
    native.load_state_dict(variant.state_dict())
    x = images(row.architecture)
    with torch.inference_mode():
        torch.testing.assert_close(own(x), variant(x))
        assert (native(x) - variant(x)).abs().max() > 0.005 * variant(x).abs().max()


def test_networks_that_timm_lacks_stay_out_of_it() -> None:
    assert "disco_alexnet" in load_catalog().architectures
    assert not timm.is_model("disco_alexnet")


def test_the_import_warns_of_nothing() -> None:
    # UserWarning is what timm says of a name registered twice
    command = [sys.executable, "-W", "error::UserWarning", "-c", "import disco_zoo"]
    subprocess.run(command, check=True, timeout=120)


def test_public_names_are_lazy_and_there() -> None:
    assert [name for name in disco_zoo.__all__ if getattr(disco_zoo, name, None) is None] == []
    assert set(disco_zoo.__all__) <= set(dir(disco_zoo))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        disco_zoo.nonsense  # noqa: B018
