"""The detectors' parts: what they take from the backbone, and the papers' settings."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from tiny_detection import tiny_detector, tiny_settings
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from disco_zoo.errors import BadRecipe, DiscoZooError, UnknownName
from disco_zoo.tasks.detection.c4 import AlignedRegions
from disco_zoo.tasks.detection.network import SmoothTransform, build_detector
from disco_zoo.tasks.detection.settings import PRESETS, detection_settings, lr_factor
from disco_zoo.tasks.detection.task import detector_optimizer, set_precise_statistics

IMAGES = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]


def targets(masks: bool = False) -> list[dict[str, Any]]:
    one = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([2])}
    drawn = [torch.zeros(1, *image.shape[1:], dtype=torch.uint8) for image in IMAGES]
    for mask in drawn:
        mask[:, 8:40, 8:40] = 1
    return [{**one, "masks": mask} if masks else dict(one) for mask in drawn]


@pytest.mark.parametrize(
    ("model", "neck"),
    [
        ("test_resnet", "fpn"),
        ("test_resnet", "c4"),
        ("test_efficientnet", "fpn"),
        ("test_vit", "fpn"),
    ],
)
@pytest.mark.parametrize("masks", [False, True])
def test_every_part_learns_and_the_backbone_with_it(model: str, neck: str, masks: bool) -> None:
    detector = tiny_detector(tiny_settings(f"neck={neck}"), model=model, masks=masks).train()
    losses = detector(IMAGES, targets(masks))
    wanted = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert losses.keys() == wanted | ({"loss_mask"} if masks else set())
    torch.stack([*losses.values()]).sum().backward()
    # The regression's gradient on boxes is nothing where no region is positive; all else has one.
    silent = [n for n, p in detector.named_parameters() if p.grad is None]
    assert silent == []
    found = detector.eval()(IMAGES)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"} | ({"masks"} if masks else set())] * 2


def test_c4_has_all_of_the_resnet_in_its_two_halves_and_one_norm_more() -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0)
    tensors = {key: value.clone() for key, value in backbone.state_dict().items()}
    detector = build_detector(
        backbone, 3, tiny_settings("neck=c4"), mean=(0.5,) * 3, std=(0.5,) * 3, masks=True, title="r"
    )
    state = detector.state_dict()
    body = {k.removeprefix("backbone.maps.getter.model."): v for k, v in state.items() if k.startswith("backbone.")}
    prefix = "roi_heads.box_head.last."
    stage = {
        "layer4." + k.removeprefix(f"{prefix}stage."): v for k, v in state.items() if k.startswith(f"{prefix}stage.")
    }
    assert {*body, *stage} == {*tensors}
    assert all(torch.equal(tensors[key], value) for key, value in {**body, **stage}.items())
    assert {k for k in state if k.startswith(f"{prefix}norm.")} == {
        f"{prefix}norm.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert not [key for key in state if "mask_head" in key]  # its stage is the box head's


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_c4_freezes_statistics_in_both_halves_of_the_resnet(batch_norm: str) -> None:
    detector = tiny_detector(tiny_settings("neck=c4", f"batch_norm={batch_norm}")).train()
    before = {key: value.clone() for key, value in detector.state_dict().items() if "running_mean" in key}
    detector(IMAGES, targets())
    changed = {key for key, value in before.items() if not torch.equal(value, detector.state_dict()[key])}
    assert changed == ({"roi_heads.box_head.last.norm.running_mean"} if batch_norm == "frozen" else before.keys())


def test_images_are_resized_without_skipping_pixels() -> None:
    """Stripes of one pixel: at an eighth of the size they are even grey, and boxes and masks go with them."""
    transform = SmoothTransform((32,), 100, [0.0] * 3, [1.0] * 3)
    image = torch.zeros(3, 256, 512)
    image[:, :, ::2] = 1
    target = {"boxes": torch.tensor([[64.0, 32.0, 128.0, 96.0]]), "labels": torch.tensor([1])}
    target["masks"] = torch.zeros(1, 256, 512, dtype=torch.uint8)
    target["masks"][0, 32:96, 64:128] = 1
    small, resized = transform.resize(image, target)
    assert resized is not None
    assert small.shape == (3, 32, 64)
    torch.testing.assert_close(small[:, :, 2:-2], torch.full((3, 32, 60), 0.5), atol=0.01, rtol=0)
    assert resized["boxes"].tolist() == [[8, 4, 16, 12]]
    assert resized["masks"][0].nonzero().min(0)[0].tolist() == [4, 8]
    assert int(resized["masks"].sum()) == 64
    plain = GeneralizedRCNNTransform((32,), 100, [0.0] * 3, [1.0] * 3)
    for height, width in ((31, 47), (500, 333), (20, 400)):
        shapes = [one.resize(torch.rand(3, height, width))[0].shape for one in (transform, plain)]
        assert shapes[0] == shapes[1]


def test_c4_is_for_resnets() -> None:
    with pytest.raises(DiscoZooError, match=r"C4 is for ResNets and test_efficientnet is none. Type: --neck fpn"):
        tiny_detector(tiny_settings("neck=c4"), model="test_efficientnet")


def test_aligned_regions_of_a_ramp_are_the_ramp_where_the_region_lies() -> None:
    """A map whose value is its column's centre in pixels: the pooled values are the bins' centres."""
    ramp = (torch.arange(20.0) + 0.5).mul(16).expand(1, 1, 20, 20)
    (row,) = AlignedRegions()({"0": ramp}, [torch.tensor([[32.0, 32.0, 256.0, 256.0]])], [(320, 320)])[0, 0, :1]
    torch.testing.assert_close(row, 32 + (torch.arange(14.0) + 0.5) * 16)


def test_a_frozen_backbone_is_left_alone() -> None:
    settings = tiny_settings()
    detector = tiny_detector(settings, freeze=True).train()
    learning = [name for name, p in detector.named_parameters() if p.requires_grad]
    assert learning
    assert not [name for name in learning if name.startswith("backbone.maps")]
    assert not [m for m in detector.backbone.maps.modules() if m.training]
    grouped = {id(p) for group in detector_optimizer(detector, settings).param_groups for p in group["params"]}
    assert grouped == {id(p) for p in detector.parameters() if p.requires_grad}


def test_norms_have_no_weight_decay() -> None:
    detector = tiny_detector(tiny_settings("neck=c4"))
    decayed, others = detector_optimizer(detector, tiny_settings("weight_decay=0.1")).param_groups
    norms = [p for m in detector.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert {id(p) for p in others["params"]} == {id(p) for p in norms}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)


def test_the_papers_presets() -> None:
    voc, disco, coco = PRESETS["voc"], PRESETS["voc_disco"], PRESETS["coco_2x"]
    assert (voc.batch_size, voc.lr, voc.steps, voc.decay_at, voc.warmup_steps) == (16, 0.02, 24000, (18000, 22000), 100)
    assert (disco.batch_size, disco.lr, disco.steps, disco.decay_at) == (32, 0.01, 48000, (18000, 22000))
    assert (disco.warmup_steps, disco.sizes[:2], disco.sizes[-1]) == (200, (400, 480), 800)
    assert (coco.steps, coco.decay_at, coco.sizes) == (180000, (120000, 160000), (640, 672, 704, 736, 768, 800))
    assert voc.sizes == tuple(range(480, 801, 32))
    assert (coco.batch_size, coco.lr, coco.warmup_steps) == (
        16,
        0.02,
        1000,
    )  # detectron2's own warm-up: no file sets it
    for one in (voc, disco, coco):
        assert (one.weight_decay, one.max_size, one.regions, one.batch_norm) == (1e-4, 1333, 512, "train")
        assert (one.proposals_before_nms, one.proposals, one.precise_bn_batches) == (12000, 2000, 200)
        assert (one.anchor_sizes, one.optimizer, one.clip_norm) == ((32, 64, 128, 256, 512), "sgd", None)
    assert {s.neck for s in (voc, disco, coco)} == {"c4"}
    assert (voc.test_proposals_before_nms, voc.test_proposals, voc.precise_bn_batches) == (6000, 1000, 200)
    assert (voc.ap_points, coco.ap_points) == (11, 101)


def test_learning_rate_rises_stays_and_falls() -> None:
    voc = PRESETS["voc"]
    assert lr_factor(0, voc) == pytest.approx(0.001)
    assert lr_factor(50, voc) == pytest.approx(0.001 + 0.999 / 2)
    assert lr_factor(100, voc) == lr_factor(17_999, voc) == 1
    assert lr_factor(18_000, voc) == lr_factor(21_999, voc) == pytest.approx(0.1)
    assert lr_factor(23_999, voc) == pytest.approx(0.01)


def test_other_steps_move_the_decays_unless_they_are_given() -> None:
    shorter = detection_settings("voc", None, ["steps=240"])
    assert (shorter.decay_at, shorter.warmup_steps) == ((180, 220), 1)
    given = detection_settings("voc", None, ["steps=240", "decay_at=[100]", "warmup_steps=7"])
    assert (given.decay_at, given.warmup_steps) == ((100,), 7)
    assert detection_settings("fast", None, ["steps=1"]).decay_at == (1,)
    assert detection_settings("voc", "fpn", []).neck == "fpn"


@pytest.mark.parametrize(
    ("preset", "overrides", "error", "message"),
    [
        ("vco", [], UnknownName, "there is no preset 'vco'. Did you mean 'voc'"),
        ("voc", ["step=3"], BadRecipe, "unknown key 'step'. Did you mean 'steps'"),
        ("voc", ["lr=fast", "steps=0"], BadRecipe, "steps: input should be greater"),
        ("voc", ["steps"], BadRecipe, "write --set key=value"),
        ("voc", ["sizes=[16]"], BadRecipe, "sizes: from 32 pixels"),
        ("voc", ["sizes=[1400]"], BadRecipe, "up to max_size 1333"),
        ("voc", ["decay_at=[9, 8]"], BadRecipe, "decay_at: must rise"),
    ],
)
def test_settings_that_cannot_be(preset: str, overrides: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        detection_settings(preset, None, overrides)
    assert message in str(caught.value)


def test_precise_statistics_are_plain_averages_over_the_batches() -> None:
    norm = nn.BatchNorm1d(3)
    frozen = nn.BatchNorm1d(3)
    batches = [torch.randn(5, 3, generator=torch.Generator().manual_seed(n)) * 2 + 1 for n in range(4)]
    model = nn.ModuleDict({"norm": norm, "frozen": frozen})
    model.eval()
    former = torch.random.get_rng_state()

    def forward(batch: torch.Tensor) -> None:
        torch.rand(3)
        norm(batch)

    assert set_precise_statistics(model, batches, forward) == 2
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.1
    assert not model.training
    assert torch.equal(former, torch.random.get_rng_state())


def test_frozen_statistics_are_not_made_precise() -> None:
    detector = tiny_detector(tiny_settings("batch_norm=frozen"))
    before = {key: value.clone() for key, value in detector.state_dict().items()}

    def never(batch: object) -> None:
        raise AssertionError("no batch is needed")

    assert set_precise_statistics(detector, [1, 2], never) == 0
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
