"""Feature extraction: EVAL, order, labels, and that it leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from disco_zoo.errors import BadData, DiscoZooError, UnreadableImage
from disco_zoo.evaluation.features import extract_features
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.transforms.eval import eval_resize_size, eval_transform, normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class GraySource:
    """Image i is a plain grey of level `levels[i]`; the listed ones are unreadable."""

    name = "grey"
    class_names = None

    def __init__(self, levels: list[int], labels: list[int] | None = None, unreadable: tuple[int, ...] = ()) -> None:
        self.levels, self.labels, self.broken = levels, labels, unreadable

    def __len__(self) -> int:
        return len(self.levels)

    def image(self, index: int) -> Image.Image:
        if index in self.broken:
            raise UnreadableImage(index, f"{index}.png", "cut short")
        return Image.new("RGB", (20, 15), (self.levels[index],) * 3)


class MeanColor(nn.Module):
    """Features: mean of each channel. Its BatchNorm1d would fail or drift if it were left in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(images.mean(dim=(2, 3)))


def extract(backbone: nn.Module, source: GraySource, **options):
    return extract_features(backbone, source, image_size=8, mean=MEAN, std=STD, **options)


def test_features_are_the_normalised_values_in_order_and_labels_follow_the_indices():
    source = GraySource([0, 51, 255, 102], labels=[3, 1, 2, 0])
    result = extract(MeanColor(), source, batch_size=2, indices=[2, 0, 1])
    gray = torch.tensor([[1.0], [0.0], [0.2]])
    expected = (gray - torch.tensor(MEAN)) / torch.tensor(STD) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(result.features, expected)
    assert result.labels.tolist() == [2, 3, 1]
    assert result.labels.dtype == torch.int64
    assert len(result) == 3


def test_unlabelled_source_gives_no_labels():
    assert extract(MeanColor(), GraySource([1, 2])).labels is None


@pytest.mark.parametrize("workers", [0, 2])
def test_no_random_state_is_touched(workers):
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    extract(MeanColor(), GraySource([1, 2, 3]), workers=workers, batch_size=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_batches_and_workers_do_not_change_the_features():
    source = GraySource(list(range(0, 250, 10)), labels=list(range(25)))
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    whole = extract(backbone, source, batch_size=25)
    parts = extract(backbone, source, batch_size=4, workers=2)
    torch.testing.assert_close(whole.features, parts.features)
    assert torch.equal(whole.labels, parts.labels)


def test_modes_of_each_module_gradients_and_batchnorm_are_as_before():
    backbone = nn.Sequential(MeanColor(), MeanColorTail()).train()
    backbone[0].eval()
    before = backbone_fingerprint(backbone)
    modes = [module.training for module in backbone.modules()]
    result = extract(backbone, GraySource([5, 250]))
    assert [module.training for module in backbone.modules()] == modes
    assert True in modes
    assert False in modes
    assert backbone_fingerprint(backbone) == before
    assert not result.features.requires_grad
    assert all(parameter.requires_grad for parameter in backbone.parameters())


class MeanColorTail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)

    def forward(self, features: Tensor) -> Tensor:
        assert not self.training
        return self.bn(features)


def test_modes_are_restored_after_an_error():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(1, 1)).train()
    with pytest.raises(RuntimeError):
        extract(backbone, GraySource([1]))
    assert backbone.training
    assert torch.is_grad_enabled()


def test_few_unreadable_images_are_left_out_and_listed():
    source = GraySource([0, 255, 0], labels=[4, 5, 6], unreadable=(1,))
    seen = []
    result = extract(MeanColor(), source, batch_size=1, progress=lambda *state: seen.append(state))
    assert result.labels.tolist() == [4, 6]
    assert len(result.features) == 2
    assert result.unreadable == ("image 1 (1.png) is unreadable: cut short",)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_many_unreadable_images_stop_the_evaluation():
    source = GraySource([0] * 40, unreadable=tuple(range(11)))
    with pytest.raises(BadData, match="11 images are unreadable, 10 are tolerated"):
        extract(MeanColor(), source)


def test_nothing_readable_and_nothing_at_all():
    with pytest.raises(BadData, match="None of the 2 images of grey can be read"):
        extract(MeanColor(), GraySource([0, 0], unreadable=(0, 1)))
    with pytest.raises(BadData, match="grey has no images"):
        extract(MeanColor(), GraySource([]))


def test_outputs_that_are_no_features_are_refused():
    with pytest.raises(DiscoZooError, match="num_classes=0"):
        extract(nn.Identity(), GraySource([1]))
    backbone = MeanColor()
    with torch.no_grad():
        backbone.bn.weight.fill_(float("nan"))
    with pytest.raises(DiscoZooError, match="not finite"):
        extract(backbone, GraySource([1]))


def test_eval_resizes_the_shorter_side_then_crops_the_centre():
    # White columns 224..287 of 512; 256 rows, so the shorter side stays and columns 144..367 remain.
    image = Image.new("RGB", (512, 256))
    image.paste((255, 255, 255), (224, 0, 288, 256))
    result = eval_transform(224)(image)
    assert result.dtype == torch.uint8
    assert result.shape == (3, 224, 224)
    white = (result[0, 100] == 255).nonzero().flatten()
    assert (white.min().item(), white.max().item(), len(white)) == (80, 143, 64)


def test_eval_is_pil_bilinear_with_antialiasing():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    # 90 x 120 to shorter side 37 (32 * 256 / 224 rounded), 37 x 49, then the centre 32 x 32.
    reference = np.asarray(image.resize((49, 37), Image.Resampling.BILINEAR))
    top, left = round((37 - 32) / 2), round((49 - 32) / 2)
    expected = torch.from_numpy(reference[top : top + 32, left : left + 32].copy()).permute(2, 0, 1)
    assert torch.equal(eval_transform(32)(image), expected)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (64, 73), (32, 37), (112, 128)])
def test_default_resize_keeps_the_papers_proportion(size, resize):
    assert eval_resize_size(size) == resize


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="smaller than the crop"):
        eval_transform(64, 32)


def test_normalise_closed_form_and_layout():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    result = normalize(images, (0.0, 0.1, 0.5), (1.0, 0.5, 0.25))
    torch.testing.assert_close(result[1, :, 2, 3], torch.tensor([0.0, 0.2, 2.0]))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_fingerprint_sees_every_tensor():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("hidden", torch.zeros(1), persistent=False)
    seen = {backbone_fingerprint(module)}
    assert backbone_fingerprint(module) in seen
    for tensor in [*module.parameters(), *module.buffers()]:
        with torch.no_grad():
            tensor.view(-1)[0] += 1
        fingerprint = backbone_fingerprint(module)
        assert fingerprint not in seen
        seen.add(fingerprint)
    assert len(seen) == 1 + 2 + 2 + 3 + 1
