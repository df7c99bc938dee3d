"""The student: heads, starts, and BatchNorm statistics after inheriting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny import MEAN, STD, TinyNet, TinySource, tiny_encoder
from tiny_runs import toy_recipe
from torch import nn

from disco_zoo.core.checkpoint import export_backbone, save_tensors
from disco_zoo.errors import BadRecipe, UnknownName
from disco_zoo.models.encoder import Encoder, feature_dim_of
from disco_zoo.models.student import (
    Inheritance,
    build_student,
    create_backbone,
    inherit_weights,
    load_backbone,
    recalibrate_batch_norm,
)
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.training.build import build_parts
from disco_zoo.transforms.eval import normalize
from disco_zoo.weights.convert.networks import head_module


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return load_teacher_source("lite0").backbone


@pytest.fixture(scope="module")
def inherited(lite0: nn.Module) -> tuple[nn.Module, dict, Inheritance]:
    """EfficientNet-B0 after inheriting from Lite0, its tensors before, and the count."""
    torch.manual_seed(0)
    student = create_backbone("disco_effb0")
    before = {key: tensor.clone() for key, tensor in student.state_dict().items()}
    return student, before, inherit_weights(student, lite0)


def build(head: str, hidden: int | None = 20, embed_dim: int = 5, **changes: Any) -> Encoder:
    torch.manual_seed(0)
    return build_student(
        TinyNet(), embed_dim=embed_dim, head=head, head_hidden_dim=hidden, image_size=16, mean=MEAN, std=STD, **changes
    )


def test_inheriting_copies_294_of_b0s_358_tensors(inherited: tuple) -> None:
    assert inherited[2] == Inheritance(copied=294, total=358)
    assert str(inherited[2]) == "294 of 358 tensors inherited"


def test_inheriting_copies_exactly_the_tensors_of_equal_name_and_shape(inherited: tuple, lite0: nn.Module) -> None:
    student, before, result = inherited
    donor = lite0.state_dict()
    copied = 0
    for key, tensor in student.state_dict().items():
        if key in donor and donor[key].shape == tensor.shape:
            assert torch.equal(tensor, donor[key]), key
            copied += 1
        elif not key.endswith(("conv_expand.weight", "conv_expand.bias")):
            assert torch.equal(tensor, before[key]), key
    assert copied == result.copied


def test_inherited_student_starts_with_open_gates(inherited: tuple) -> None:
    gates = [module for name, module in inherited[0].named_modules() if name.endswith(".se")]
    assert len(gates) == 16
    for gate in gates:
        images = torch.randn(2, gate.conv_reduce.in_channels, 4, 4)
        with torch.no_grad():
            assert torch.allclose(gate(images), images / (1 + torch.tensor(-4.0).exp()), atol=1e-5)


def test_a_gate_that_the_donor_has_is_inherited_and_not_opened() -> None:
    torch.manual_seed(0)
    student, donor = (timm.create_model("efficientnet_b0", num_classes=0) for _ in range(2))
    result = inherit_weights(student, donor)
    assert result.copied == result.total
    assert all(torch.equal(tensor, donor.state_dict()[key]) for key, tensor in student.state_dict().items())


def test_of_a_larger_tensor_evenly_spaced_channels_and_the_middle_of_the_kernel_are_inherited() -> None:
    student, donor = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 5)
    result = inherit_weights(student, donor)
    assert result == Inheritance(copied=0, total=2, copied_in_part=2)
    assert str(result) == "0 of 2 tensors inherited whole, 2 in part"
    assert torch.equal(student.weight, donor.weight[[0, 1, 3, 4]][:, [0, 2], 1:4, 1:4])
    assert torch.equal(student.bias, donor.bias[[0, 1, 3, 4]])


def test_a_network_of_which_the_donor_is_a_wider_copy_computes_the_same_where_the_other_channels_are_silent() -> None:
    torch.manual_seed(0)
    narrow, wide = (nn.Sequential(nn.Conv2d(3, c, 3), nn.ReLU(), nn.Conv2d(c, 5, 1)) for c in (4, 8))
    with torch.no_grad():
        wide[2].weight[:, 1::2] = 0.0
    inherit_weights(narrow, wide)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(narrow(images), wide(images), atol=1e-6)


def test_a_larger_tensor_than_the_donors_keeps_its_start() -> None:
    student, donor = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 3, 3)
    before = student.weight.clone()
    with pytest.raises(BadRecipe, match="no tensor in common"):
        inherit_weights(student, donor)
    assert torch.equal(student.weight, before)


def test_mobilenetv3_takes_parts_of_efficientnet_b0() -> None:
    torch.manual_seed(0)
    student, donor = (timm.create_model(name, num_classes=0) for name in ("mobilenetv3_large_100", "efficientnet_b0"))
    assert inherit_weights(student, donor) == Inheritance(copied=124, total=310, copied_in_part=122)
    own, theirs = student.state_dict(), donor.state_dict()
    key = "blocks.4.1.conv_dw.weight"  # 3 x 3 of 5 x 5, as many channels
    assert torch.equal(own[key], theirs[key][:, :, 1:4, 1:4])


def test_inheriting_leaves_the_donor_alone_and_shares_no_memory() -> None:
    student, donor = TinyNet(), TinyNet()
    inherit_weights(student, donor)
    assert torch.equal(student.conv.weight, donor.conv.weight)
    with torch.no_grad():
        student.conv.weight.add_(1.0)
    assert not torch.equal(student.conv.weight, donor.conv.weight)


def test_inheriting_from_a_stranger_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"no tensor in common with its source. Type: --set student.init=random"):
        inherit_weights(TinyNet(), nn.Sequential(nn.Linear(3, 4)))


def test_recalibrated_statistics_are_the_plain_average_over_batches() -> None:
    student = tiny_encoder().eval()
    student.backbone.bn.running_mean.fill_(99.0)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 256, (6, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(5)]
    weights = {name: parameter.clone() for name, parameter in student.named_parameters()}
    recalibrate_batch_norm(student, iter(batches))
    with torch.no_grad():
        maps = [student.backbone.conv(normalize(batch, MEAN, STD)) for batch in batches]
    means = torch.stack([rows.mean(dim=(0, 2, 3)) for rows in maps])
    variances = torch.stack([rows.transpose(0, 1).flatten(1).var(dim=1, correction=1) for rows in maps])
    assert torch.allclose(student.backbone.bn.running_mean, means.mean(dim=0), atol=1e-5)
    assert torch.allclose(student.backbone.bn.running_var, variances.mean(dim=0), atol=1e-5)
    assert student.backbone.bn.momentum == 0.1
    assert not any(module.training for module in student.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in student.named_parameters())


def test_heads_have_the_widths_that_were_asked_for() -> None:
    def widths(student: Encoder) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in student.head.modules() if isinstance(m, nn.Linear)]

    assert widths(build("mlp")) == [(8, 20), (20, 5)]
    assert widths(build("mlp", hidden=None)) == [(8, 8), (8, 5)]  # MoCo-v2's rule
    assert widths(build("mlp", hidden=None, head_hidden_ratio=2.0)) == [(8, 16), (16, 5)]  # ssl-small's
    assert widths(build("mlp_bn", hidden=None, head_hidden_ratio=0.2)) == [(8, 2), (2, 5)]
    assert widths(build("mlp_bn")) == [(8, 20), (20, 5)]
    assert widths(build("linear")) == [(8, 5)]
    assert widths(build("none", embed_dim=8)) == []


def test_mlp_bn_is_swavs_head() -> None:
    """Linear, BatchNorm, ReLU, Linear, all with bias (spec 1.3), under the names in SwAV's files."""
    student = build("mlp_bn").train()
    features = torch.randn(6, 8)
    state = student.head.state_dict()
    assert {*state} == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "3.weight",
        "3.bias",
    }
    hidden = features @ state["0.weight"].T + state["0.bias"]
    hidden = (hidden - hidden.mean(dim=0)) / (hidden.var(dim=0, correction=0) + 1e-5).sqrt()
    expected = hidden.clamp(min=0) @ state["3.weight"].T + state["3.bias"]
    with torch.no_grad():
        assert torch.allclose(student.head(features), expected, atol=1e-5)
    assert [type(m) for m in head_module(state).modules()] == [type(m) for m in build("mlp_bn").head.modules()]


def test_dropout_in_front_of_the_head_acts_in_training_alone() -> None:
    plain, student = build("linear").eval(), build("linear", head_dropout=0.25)
    assert sorted(v.sum().item() for v in student.state_dict().values()) == sorted(
        v.sum().item() for v in plain.state_dict().values()
    )
    features = torch.ones(4000, 8)
    with torch.no_grad():
        assert torch.equal(student.eval().head(features), plain.head(features))
        dropped = student.train().head[0](features)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.max().item() == pytest.approx(4 / 3)
    assert not [m for m in build("mlp").head.modules() if isinstance(m, nn.Dropout)]


def test_options_reach_the_model() -> None:
    """SEED's EfficientNet-B0: BatchNorm's momentum 0.01, drop-path 0.2 · i / 16 in block i (spec Q14)."""
    options = {"bn_momentum": 0.01, "drop_rate": 0.2, "drop_path_rate": 0.2}
    model = create_backbone("tf_efficientnet_b0", options)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    assert model.drop_rate == 0.2
    paths = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.blocks for block in stage]
    assert paths == pytest.approx([0.2 * i / 16 for i in range(16)])
    assert model.get_classifier().__class__ is nn.Identity


def test_options_without_effect_on_the_start_leave_it_alone() -> None:
    torch.manual_seed(0)
    plain = create_backbone("test_efficientnet").state_dict()
    torch.manual_seed(0)
    with_options = create_backbone("test_efficientnet", {"drop_path_rate": 0.2, "bn_momentum": 0.01}).state_dict()
    assert all(torch.equal(value, with_options[key]) for key, value in plain.items())


@pytest.mark.parametrize("name", ["disco_r18", "disco_mobv3", "vit_tiny_patch16_224"])
def test_unknown_options_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadRecipe) as error:
        create_backbone(name, {"drop_pth_rate": 0.2})
    assert "\n" not in str(error.value)
    assert f"student.options: {name} does not take {{'drop_pth_rate': 0.2}}" in str(error.value)
    assert "unexpected keyword argument 'drop_pth_rate'" in str(error.value)


def test_students_of_a_recipe_are_built_with_its_head_and_options(tmp_path: Path) -> None:
    recipe = toy_recipe(
        "moco_v2",
        student__head="mlp_bn",
        student__head_hidden_dim=None,
        student__head_hidden_ratio=2.0,
        student__head_dropout=0.1,
        student__options={"drop_path_rate": 0.2, "bn_momentum": 0.01},
    )
    student = build_parts(recipe, TinySource()).student
    assert isinstance(student.head, nn.Sequential)
    drop, head = student.head
    assert (drop.p, head[1].num_features) == (0.1, 2 * feature_dim_of(student.backbone))
    assert {m.momentum for m in student.backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


def test_embeddings_are_the_normalised_head_of_the_features() -> None:
    student = build("linear").eval()
    views = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        rows = student.head(student.features(views))
        assert torch.allclose(student(views), rows / rows.norm(dim=1, keepdim=True), atol=1e-6)


def test_no_head_needs_equal_widths() -> None:
    with pytest.raises(BadRecipe, match=r"width 5, this student has 8. Type: --set student.head=mlp"):
        build("none")


def test_feature_dim_is_the_width_that_comes_out() -> None:
    for name in ("resnet18", "mobilenetv3_large_100", "efficientnet_b0"):
        model = timm.create_model(name, num_classes=0).eval()
        assert feature_dim_of(model) == model(torch.zeros(1, 3, 64, 64)).shape[1]


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"student.model 'disco_efb0' is unknown to timm. Did you mean 'disco_effb0'"):
        create_backbone("disco_efb0")


def test_starting_from_a_file_is_strict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = TinyNet()
    export_backbone(saved, tmp_path / "start.safetensors", half=False, metadata={})
    student = TinyNet()
    load_backbone(student, tmp_path / "start.safetensors")
    assert torch.equal(student.conv.weight, saved.conv.weight)
    with pytest.raises(BadRecipe, match="does not exist"):
        load_backbone(student, tmp_path / "gone.safetensors")
    with pytest.raises(BadRecipe, match=r"does not fit: .*Missing key") as error:
        load_backbone(nn.Linear(3, 4), tmp_path / "start.safetensors")
    assert "\n" not in str(error.value)
    (tmp_path / "start.safetensors").write_bytes(b"cut short")
    with pytest.raises(BadRecipe, match="does not fit"):
        load_backbone(student, tmp_path / "start.safetensors")


def test_the_file_of_a_wheel_is_inherited_from() -> None:
    with pytest.raises(BadRecipe, match=r"lite0 is the file of a wheel.*Type: --set student\.init=inherit$"):
        load_backbone(create_backbone("tf_efficientnet_lite0"), "lite0")


def test_a_file_of_a_network_that_looks_alike_is_no_start(tmp_path: Path) -> None:
    path, start = tmp_path / "start.safetensors", create_backbone("disco_mobv3_se_first")
    save_tensors(start.state_dict(), path, "disco_mobv3_se_first")
    student = create_backbone("disco_mobv3")
    before = student.conv_stem.weight.clone()  # type: ignore[operator]
    with pytest.raises(
        BadRecipe, match="does not fit: it holds weights of disco_mobv3_se_first, the student is mobilenetv3_large_100"
    ):
        load_backbone(student, path)
    assert torch.equal(student.conv_stem.weight, before)  # type: ignore[arg-type]
    save_tensors(start.state_dict(), path, "mobilenetv3_large_100")
    load_backbone(student, path)
    assert torch.equal(student.conv_stem.weight, start.conv_stem.weight)  # type: ignore[arg-type]
