"""Layouts: recognised by keys and shapes, every tensor accounted for, anything else refused with its names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from official_nets import containers
from official_nets.cases import CASES, linear, net, teacher, topped
from official_nets.containers import mlp, prefixed, training_file, write
from tiny import moco_state, write_moco_checkpoint
from torch import Tensor

from disco_zoo.errors import BadCheckpoint, WrongNetwork
from disco_zoo.networks.variants import backbone_shapes
from disco_zoo.weights.convert import key_maps, read_checkpoint
from disco_zoo.weights.convert.networks import recognize_network

State = dict[str, Tensor]
Q = "module.encoder_q."


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the files of several runs, and these are large."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def state() -> State:
    """Without the moving average, which doubles the file."""
    return {key: value for key, value in moco_state().items() if "encoder_k" not in key}


def refused(tmp_path: Path, container: Any, kind: type[BadCheckpoint] = BadCheckpoint) -> str:
    with pytest.raises(kind) as error:
        read_checkpoint(write(tmp_path / "file.pth.tar", container))
    assert type(error.value) is kind
    message = str(error.value)
    assert message.isprintable()  # one line
    assert message.startswith("file.pth.tar")
    return message


def test_query_encoder_head_and_queue_are_taken(tmp_path: Path) -> None:
    state = moco_state()
    converted = read_checkpoint(write_moco_checkpoint(tmp_path / "moco.pth.tar", state))
    assert (converted.layout, converted.network, converted.file) == ("moco", "resnet18", "moco.pth.tar")
    assert all(torch.equal(value, state[f"{Q}{key}"]) for key, value in converted.backbone.items())
    assert list(converted.backbone) == list(backbone_shapes("resnet18"))  # 20 convolutions, 20 BatchNorms of 5
    assert all(torch.equal(value, state[f"{Q}fc.{key}"]) for key, value in converted.head.items())
    assert set(converted.head) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert converted.queue is not None
    assert torch.equal(converted.queue, state["module.queue"].T)  # columns in the file, rows here
    assert converted.queue_position == int(state["module.queue_ptr"])
    assert converted.dropped == ("module.encoder_k. (124 tensors)", "optimizer")


def test_a_file_without_queue_has_none(tmp_path: Path, state: State) -> None:
    without = {key: tensor for key, tensor in state.items() if "queue" not in key}
    assert read_checkpoint(write_moco_checkpoint(tmp_path / "moco.pth", without)).queue is None


def test_a_queue_of_another_networks_embeddings_is_not_the_encoders(tmp_path: Path) -> None:
    """SEED's and BINGO's queues hold their teacher's embeddings; DisCo's and ssl-small's the moving average's."""
    student = topped("resnet18", 512, 512)
    for container, has_queue in ((containers.seed, False), (containers.bingo, False), (containers.disco, True)):
        converted = read_checkpoint(write(tmp_path / "file", container(student, teacher())))
        assert (converted.queue is not None) is has_queue
        assert any(part.startswith("module.queue (") for part in converted.dropped) is not has_queue


def test_a_seed_file_made_ssl_smalls_still_has_seeds_queue(tmp_path: Path) -> None:
    """The authors' converter renames the student and leaves the rest: the queue holds a teacher's embeddings."""
    student = topped("seed-b0", 1280, 2560)
    for kept, has_queue in ((teacher(), False), (None, True)):
        converted = read_checkpoint(write(tmp_path / "file", containers.ssl_small(student, kept_student=kept)))
        assert (converted.layout, converted.queue is not None) == ("ssl_small", has_queue)


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("DisCo ResNet-18", ["module.encoder_k. (124 tensors)", "module.teacher_encoder_q. (", "optimizer"]),
        ("SEED Eff-B0, small patch", ["module.teacher. (", "module.small_queue (1 tensor)", "module.queue (1 tensor)"]),
        ("ssl-small MobileNetV3", ["module.student. (", "module.encoder_k. ("]),
        ("DisCo-SwAV Eff-B0", ["module.prototypes. (1 tensor)", "module.classifier. (2 tensors)", "amp"]),
        ("DINO-like ViT-Tiny", ["head. (2 tensors)", "student", "dino_loss"]),
        ("MoCo-v3-like ViT-Tiny", ["module.base_encoder.head. (2 tensors)", "module.predictor. (1 tensor)"]),
        ("CompRess ResNet-18, 2q", ["optimizer"]),
    ],
)
def test_what_is_left_out_is_said(name: str, dropped: list[str], tmp_path: Path) -> None:
    found = read_checkpoint(CASES[name].write(tmp_path)).dropped
    assert all(any(entry.startswith(part) for entry in found) for part in dropped), found


# --- the network, from shapes alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "disco_r50w2", "disco_r50w4", "disco_r50w5"],
)
def test_resnets_are_told_apart(network: str) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in backbone_shapes(network).items()}
    assert recognize_network(key_maps.RESNET, "moco", tensors, None, "x") == network


def test_the_files_name_and_its_arch_say_nothing(tmp_path: Path, state: State) -> None:
    path = write(tmp_path / "ResNet50-EfficientB0-checkpoint_0199.pth.tar", training_file(state) | {"arch": "resnet50"})
    converted = read_checkpoint(path)
    assert (converted.layout, converted.network) == ("moco", "resnet18")


def test_an_unknown_depth_is_refused(tmp_path: Path, state: State) -> None:
    shallow = {key: tensor for key, tensor in state.items() if "layer4.1" not in key}
    assert "no ResNet of the papers has stages of (2, 2, 2, 1) blocks" in refused(tmp_path, training_file(shallow))


def test_efficientnets_of_other_sizes_are_refused(tmp_path: Path) -> None:
    b0 = net("seed-b0")
    one_more = b0 | {key.replace("_blocks.15.", "_blocks.16."): v for key, v in b0.items() if "_blocks.15." in key}
    assert "17 EfficientNet blocks; B0 has 16, B1 has 23" in refused(tmp_path, one_more)
    timm_b0 = net("timm-b0")
    more = timm_b0 | {k.replace("blocks.6.0.", "blocks.6.1."): v for k, v in timm_b0.items() if "blocks.6.0." in k}
    assert "no network of the zoo has stages of (1, 2, 2, 3, 3, 4, 2) blocks" in refused(tmp_path, more)


def test_a_relative_without_all_tensors_is_refused(tmp_path: Path) -> None:
    """EfficientNet-Lite has B0's blocks, but no gates."""
    lite = {key: value for key, value in net("timm-b0").items() if ".se." not in key}
    assert "does not fit efficientnet_b0: missing (64) blocks.0.0.se.conv_reduce.weight" in refused(
        tmp_path, lite, WrongNetwork
    )


def test_simclr_of_tensorflow_is_refused_by_its_name(tmp_path: Path) -> None:
    state = {f"conv2d{n}.weight": torch.zeros(1) for n in ("", "_1", "_2")}
    message = refused(tmp_path, {"state_dict": state | {"batch_normalization_1.weight": torch.zeros(1)}})
    assert "is a SimCLR ResNet converted from TensorFlow (names conv2d_N)" in message


# --- every tensor is accounted for -----------------------------------------------------------------------------------

NO_RESNET = "does not fit resnet18"


@pytest.mark.parametrize(
    ("container", "part"),
    [
        (containers.moco, "has MoCo's layout, which has no (1) odd.weight"),
        (lambda s: containers.disco(s, teacher()), "has DisCo's layout, which has no (1) odd.weight"),
        (lambda s: containers.seed(s, teacher()), "has SEED's layout, which has no (1) odd.weight"),
        (lambda s: containers.bingo(s, teacher()), "has SEED's layout, which has no (1) odd.weight"),
        (lambda s: containers.ssl_small(s, teacher()), "has ssl-small's layout, which has no (1) odd.weight"),
        (containers.simclr_of_seeds_list, "has SimCLR's layout, which has no (1) odd.weight"),
        (containers.moco_v3, "has MoCo-v3's layout, which has no (1) odd.weight"),
    ],
)
def test_a_tensor_that_the_layout_does_not_have_is_refused(
    container: Callable[[State], dict[str, Any]], part: str, tmp_path: Path
) -> None:
    file = container(topped("resnet18", 512, 512))
    for key in ("state_dict", "model"):
        if key in file:
            file[key]["odd.weight"] = torch.zeros(1)
    assert part in refused(tmp_path, file)


@pytest.mark.parametrize("kind", ["missing", "unknown", "of another shape"])
@pytest.mark.parametrize("name", ["MoCo-v1 ResNet-18", "SEED MobileNetV3", "DINO-like XCiT-Tiny"])
def test_the_backbone_is_checked_strictly(kind: str, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert case.container is not None
    container = case.container()
    states = [container[key] for key in ("state_dict", "teacher", "student") if key in container]
    probe = {
        "resnet18": "layer2.0.conv1.weight",
        "disco_mobv3_se_first": "features.4.conv.0.weight",
        "xcit_tiny_12_p16_224": "blocks.3.attn.qkv.weight",
    }[case.network]
    for held in states:
        for key in [key for key in held if key.endswith(probe)]:
            if kind == "missing":
                del held[key]
            elif kind == "unknown":
                held[key.replace("conv1", "conv9").replace("conv.0", "conv.9").replace("qkv", "qkw")] = held[key]
            else:
                held[key] = held[key][1:]
    path = write(tmp_path / "file.pth.tar", container)
    with pytest.raises(BadCheckpoint) as error:
        read_checkpoint(path)
    message = str(error.value)
    told = {"missing": "missing (1)", "unknown": "(1) ", "of another shape": "of another shape (1)"}[kind]
    assert told in message
    assert "\n" not in message


def test_only_batch_norms_step_counters_may_be_absent(tmp_path: Path, state: State) -> None:
    old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    converted = read_checkpoint(write_moco_checkpoint(tmp_path / "old.pth.tar", old))
    counters = [value for key, value in converted.backbone.items() if key.endswith("num_batches_tracked")]
    assert len(counters) == 20
    assert all(value.dtype is torch.int64 and int(value) == 0 for value in counters)
    older = {key: value for key, value in old.items() if not key.endswith("layer3.0.bn1.running_var")}
    assert "missing (1) layer3.0.bn1.running_var" in refused(tmp_path, training_file(older), WrongNetwork)


@pytest.mark.parametrize(
    ("state", "part"),
    [
        ({}, "has no 'state_dict' of tensors (found epoch, arch, state_dict, optimizer)"),
        ({f"{Q}fc.0.weight": 3}, "has no 'state_dict' of tensors"),
        ({f"{Q}odd.weight": torch.zeros(1)}, "no network of the zoo has (1) odd.weight"),
        ({"encoder_q.conv1.weight": torch.zeros(1)}, "found (1) encoder_q"),
        ({"features.0.weight": torch.zeros(1)}, "no network of the zoo has such tensors"),  # AlexNet
        ({"conv1.weight": torch.zeros(1), "n": 3}, "entries in its state dict that are no named tensors: (1) n"),
        ({3: torch.zeros(1)}, "are no named tensors: (1) 3"),
    ],
)
def test_a_file_without_a_known_network_is_refused(state: dict[Any, Any], part: str, tmp_path: Path) -> None:
    assert part in refused(tmp_path, training_file(state))


@pytest.mark.parametrize("container", [[1, 2], 3, "text", None, {}, {"epoch": 3}, {"net": {"conv1.weight": 1}}])
def test_a_file_without_tensors_is_refused(container: Any, tmp_path: Path) -> None:
    assert "has no 'state_dict' of tensors" in refused(tmp_path, container)


def test_a_prefix_too_few_is_another_layout(tmp_path: Path, state: State) -> None:
    renamed = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    message = refused(tmp_path, training_file(renamed))
    assert f"no name starts with '{Q}'" in message
    assert "found (3) encoder_q, queue, queue_ptr" in message


def test_two_sets_of_weights_are_refused(tmp_path: Path) -> None:
    file = {"state_dict": net("resnet18"), "state_dict_ema": net("resnet18")}
    assert "has more than one set of weights: state_dict, state_dict_ema" in refused(tmp_path, file)


def test_two_tensors_that_become_one_are_refused(tmp_path: Path) -> None:
    twice = net("xcit") | {"pos_embed.token_projection.bias": torch.zeros(192)}
    assert "XCiT has no (1) pos_embed" in refused(tmp_path, twice)


def test_odd_characters_in_names_stay_on_one_line(tmp_path: Path, state: State) -> None:
    odd = state | {f"{Q}\x1b[31m\nred": torch.zeros(1)}
    assert r"no named tensors: (1) 'module.encoder_q.\x1b[31m\nred'" in refused(tmp_path, training_file(odd))
    endless = state | {f"{Q}{'x' * 10_000}": torch.zeros(1)}
    assert len(refused(tmp_path, training_file(endless))) < 600


# --- heads in files --------------------------------------------------------------------------------------------------


def test_half_a_head_is_refused(tmp_path: Path, state: State) -> None:
    without = {key: tensor for key, tensor in state.items() if key != f"{Q}fc.2.bias"}
    assert "the head is none that is known (it has 0.bias, 0.weight, 2.weight)" in refused(
        tmp_path, training_file(without)
    )
    odd = state | {f"{Q}fc.2.weight": torch.zeros(128, 7)}
    assert "the tensors of the head do not fit each other (0.weight (512, 512)" in refused(tmp_path, training_file(odd))


def test_a_head_for_other_features_is_refused(tmp_path: Path) -> None:
    file = containers.moco(net("resnet18") | prefixed("fc.", mlp(2048, 64)))
    assert "its head takes 2048 features, resnet18 has 512" in refused(tmp_path, file)


def test_two_heads_are_refused(tmp_path: Path) -> None:
    file = containers.simclr_of_seeds_list(topped("resnet18", 512, 64) | linear(8, 512, "projection_head."))
    assert read_checkpoint(write(tmp_path / "ok", file)).head.keys() == {"weight", "bias"}  # its name says what it is
    vit = net("vit") | linear(8, 192, "head.") | linear(8, 192, "fc.")
    assert "has more than one head: head., fc." in refused(tmp_path, containers.moco(vit))


def test_a_stripped_file_has_no_head(tmp_path: Path) -> None:
    converted = read_checkpoint(write(tmp_path / "file", containers.moco(net("resnet18"))))
    assert (converted.layout, converted.network, converted.head) == ("moco", "resnet18", {})


def test_our_own_teacher_files_keep_their_head(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    head = mlp(512, 64, norm=True)
    save_file(net("resnet18") | prefixed("projection_head.", head), tmp_path / "teacher.safetensors")
    converted = read_checkpoint(tmp_path / "teacher.safetensors", "resnet18")
    assert converted.layout == "plain"
    assert converted.head.keys() == head.keys()


def test_names_of_compiled_networks_are_read(tmp_path: Path, state: State) -> None:
    plain = read_checkpoint(write(tmp_path / "plain.pth.tar", {"state_dict": state}))
    compiled = {key.replace("encoder_q.", "encoder_q._orig_mod."): value for key, value in state.items()}
    found = read_checkpoint(write(tmp_path / "compiled.pth.tar", {"state_dict": compiled}))
    assert all(torch.equal(value, plain.backbone[key]) for key, value in found.backbone.items())
    assert found.head.keys() == plain.head.keys()
    both = refused(tmp_path, {"state_dict": {**state, **compiled}})
    assert "with and without '_orig_mod.'" in both
