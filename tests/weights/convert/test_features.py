"""Proof of the converters: what a converted file computes in timm is what its authors' network computes.

The networks of `official_nets` follow the authors' definitions and share no code with timm; their files are
written in the authors' layouts, converted, loaded strictly, and pooled features compared. `pytest -s` prints the
table of differences.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from official_nets import containers
from official_nets.cases import CASES, Case, net, teacher, topped
from official_nets.containers import write
from official_nets.subjects import expected, features
from safetensors.torch import save_file
from slow_params import slow_but

from disco_zoo.errors import BadCheckpoint, WrongNetwork
from disco_zoo.weights.convert import read_checkpoint

# In units of the largest feature; float32 has 6e-8, and a hundred layers add up.
TOLERANCE = 1e-5
SILENTLY_WRONG = 0.1


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    print("\n| file | layout | network | pixels: max abs difference (largest feature) |\n|---|---|---|---|")
    print("\n".join(rows))


# One file of each author and of each kind of network.
FAST = [
    "BINGO ResNet-18",
    "CompRess ResNet-18, 2q",
    "DINO-like ViT-Tiny",
    "DisCo Eff-B0",
    "DisCo ResNet-18",
    "SEED MobileNetV3",
    "SimCLR ResNet-50",
    "XCiT's own",
    "ssl-small Eff-B0",
    "torchvision MobileNetV2",
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Emptied at once: pytest keeps the files of several runs, and these are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def difference(network: str, backbone: dict[str, torch.Tensor], subject: str, size: int) -> float:
    return float((features(network, backbone, size) - expected(subject, size)).abs().max())


@pytest.mark.parametrize("name", slow_but(CASES, FAST))
def test_converted_file_computes_what_its_authors_compute(name: str, folder: Path, table: list[str]) -> None:
    case = CASES[name]
    converted = read_checkpoint(case.write(folder))
    assert (converted.layout, converted.network) == (case.layout, case.network)
    cells = []
    for size in case.sizes:
        wanted = expected(case.subject, size)
        assert float((wanted[0] - wanted[1]).abs().max()) > SILENTLY_WRONG  # the signal is alive
        scale = float(wanted.abs().max())
        found = difference(case.network, converted.backbone, case.subject, size)
        cells.append(f"{size}: {found:.1e} ({scale:.1f})")
        assert found <= TOLERANCE * max(1.0, scale)
    table.append(f"| {name} | {case.layout} | {case.network} | {', '.join(cells)} |")


# --- the traps: files that load strictly into a network that computes something else ---------------------------------


TRAPS = [
    ("SEED Eff-B0, small patch", "efficientnet_b0", 224),
    ("BINGO Eff-B0", "efficientnet_b0", 96),
    ("efficientnet_pytorch Eff-B0", "efficientnet_b0", 224),
    ("SEED Eff-B1", "efficientnet_b1", 224),
    ("SEED Eff-B1", "tf_efficientnet_b1", 224),  # all right but for the padding of one layer
    ("SEED MobileNetV3", "mobilenetv3_large_100", 224),
    ("ssl-small MobileNetV3", "mobilenetv3_large_100", 96),
    ("DisCo Eff-B0", "tf_efficientnet_b0", 224),
    ("DisCo Eff-B1", "disco_effb1_pad2", 224),
    ("DisCo MobileNetV3", "disco_mobv3_se_first", 224),
]


@pytest.mark.parametrize(("name", "wrong", "size"), slow_but(TRAPS, [TRAPS[1], TRAPS[4], TRAPS[5], TRAPS[7]]))
def test_a_file_is_refused_for_a_network_that_would_take_it_and_compute_something_else(
    name: str, wrong: str, size: int, folder: Path
) -> None:
    case = CASES[name]
    path = case.write(folder)
    with pytest.raises(WrongNetwork) as error:
        read_checkpoint(path, wrong)
    message = str(error.value)
    assert message.startswith(f"checkpoint.pth.tar holds weights of {case.network}")
    assert wrong in message
    assert "\n" not in message
    # What would have happened: it loads strictly, and other features come out.
    backbone = read_checkpoint(path, case.network).backbone
    assert difference(wrong, backbone, case.subject, size) > SILENTLY_WRONG


def test_the_padding_of_seeds_b1_matters_off_its_own_240_pixels_only(folder: Path) -> None:
    backbone = read_checkpoint(CASES["SEED Eff-B1"].write(folder)).backbone
    without_patch = {size: difference("tf_efficientnet_b1", backbone, "seed-b1", size) for size in (240, 224, 96)}
    assert without_patch[240] < 1e-4
    assert min(without_patch[224], without_patch[96]) > SILENTLY_WRONG


def test_seeds_b0_is_frozen_for_224_pixels(folder: Path) -> None:
    """Off multiples of 32 timm pads as TensorFlow would, and the authors' network does not (spec 7.3)."""
    backbone = read_checkpoint(CASES["SEED Eff-B0, small patch"].write(folder)).backbone
    for size in (240, 208, 225):
        assert difference("tf_efficientnet_b0", backbone, "seed-b0", size) > SILENTLY_WRONG
        assert difference("disco_effb0_pad224", backbone, "seed-b0", size) < 1e-4


def test_the_message_says_that_the_network_would_load_it(folder: Path) -> None:
    with pytest.raises(WrongNetwork) as error:
        read_checkpoint(CASES["SEED Eff-B0, small patch"].write(folder), "efficientnet_b0")
    assert str(error.value) == (
        "checkpoint.pth.tar holds weights of disco_effb0_pad224; efficientnet_b0 would load them and compute something "
        "else. Name a model of the network disco_effb0_pad224; to see them, type: disco-zoo list"
    )
    with pytest.raises(WrongNetwork, match=r"holds weights of resnet18, not of wide_resnet50_2\. Name a model of"):
        read_checkpoint(CASES["DisCo ResNet-18"].write(folder), "wide_resnet50_2")


AMBIGUOUS = [
    ("timm-b0", "efficientnet_b0", "disco_effb0_pad224"),
    ("timm-b1", "efficientnet_b1", "disco_effb1_pad2"),
    ("timm-mobv3", "mobilenetv3_large_100", "disco_mobv3_se_first"),
]


PLAIN = [(*ambiguous, kind) for ambiguous in AMBIGUOUS for kind in ("pickle", "safetensors")]


@pytest.mark.parametrize(("subject", "native", "variant", "kind"), slow_but(PLAIN, [PLAIN[0], PLAIN[3], PLAIN[5]]))
def test_a_plain_file_of_two_possible_networks_must_be_named(
    subject: str, native: str, variant: str, kind: str, folder: Path
) -> None:
    state = net(subject) | {"classifier.weight": torch.zeros(5, 1280), "classifier.bias": torch.zeros(5)}
    path = folder / "model"
    if kind == "pickle":
        write(path, {"state_dict": {f"module.{key}": value for key, value in state.items()}})
    else:
        save_file(state, path)
    with pytest.raises(
        BadCheckpoint,
        match=f"model fits {native} and {variant}(?: and tf_efficientnet_b0)?, which compute different things",
    ):
        read_checkpoint(path)
    for network in (native, variant):
        converted = read_checkpoint(path, network)
        assert converted.network == network
        assert converted.head == {}
        assert converted.dropped == (("module." if kind == "pickle" else "") + "classifier. (2 tensors)",)
    assert difference(native, converted.backbone, subject, 96) <= TOLERANCE * 100


# --- which of a file's encoders is taken -----------------------------------------------------------------------------


def test_dinos_moving_average_is_taken_unless_it_is_another_network(folder: Path) -> None:
    vit = net("vit")
    other = {key: value + 1 for key, value in vit.items()}
    both = read_checkpoint(write(folder / "both.pth", containers.dino(other, vit)))
    assert torch.equal(both.backbone["norm.weight"], vit["norm.weight"])
    frozen = read_checkpoint(write(folder / "frozen.pth", containers.dino(other, teacher())))
    assert torch.equal(frozen.backbone["norm.weight"], other["norm.weight"])
    only = containers.dino(other, vit)
    del only["student"]
    assert torch.equal(read_checkpoint(write(folder / "only.pth", only)).backbone["norm.weight"], vit["norm.weight"])


def test_a_teacher_inside_the_file_is_never_taken(folder: Path) -> None:
    student = topped("resnet18", 512, 2048)
    for container in (containers.disco, containers.seed, containers.bingo):
        converted = read_checkpoint(write(folder / "file.pth", container(student, teacher())))
        assert converted.network == "resnet18"
        assert all(torch.equal(value, student[key]) for key, value in converted.backbone.items())
        assert torch.equal(converted.head["0.weight"], student["fc.0.weight"])


def test_cases_cover_every_layout() -> None:
    from disco_zoo.weights.convert import TITLES

    assert {case.layout for case in CASES.values()} == set(TITLES)
    assert isinstance(next(iter(CASES.values())), Case)
