"""Teachers: every source, its own normalisation, and refusals in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from official_nets import containers
from safetensors.torch import save_file
from slow_params import slow_but
from tiny import Probe, make_run_folder, moco_state, tiny_teacher, write_moco_checkpoint
from torch import nn

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadRecipe, BadTeacher, UnknownName
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import LoadedTeacher, lite_state_dict, load_teacher_source
from disco_zoo.modules.momentum_contrast import projection_head
from disco_zoo.weights import store
from disco_zoo.weights.convert import read_checkpoint
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.lite_wheels import LITES


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path


VIEWS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_teacher_applies_its_own_normalisation_to_the_shared_uint8_view() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    teacher = Teacher(LoadedTeacher("probe", Probe(), nn.Identity(), 3, mean, std, False), image_size=32)
    features = teacher(VIEWS)
    for channel in range(3):
        expected = (VIEWS[:, channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(teacher.backbone.seen[:, channel].double(), expected, atol=1e-5)
        assert torch.allclose(features[:, channel].double(), expected.mean(dim=(1, 2)), atol=1e-5)


def test_teacher_looks_at_its_own_size() -> None:
    teacher = Teacher(LoadedTeacher("probe", Probe(), nn.Identity(), 3, (0.5,) * 3, (0.5,) * 3, False), image_size=16)
    teacher(VIEWS)
    assert teacher.backbone.seen.shape == (2, 3, 16, 16)


def test_features_are_the_heads_or_the_backbones() -> None:
    loaded = LoadedTeacher("probe", Probe(), projection_head(3, 4, 5), 5, (0.5,) * 3, (0.5,) * 3, False)
    head, backbone = (Teacher(loaded, image_size=32, features=which) for which in ("head", "backbone"))
    assert (head.embed_dim, backbone.embed_dim) == (5, 3)
    assert torch.allclose(head(VIEWS), loaded.head(backbone(VIEWS)), atol=1e-6)
    assert backbone(VIEWS).shape == (2, 3)


def test_without_a_word_the_head_is_taken_where_there_is_one() -> None:
    topped = LoadedTeacher("probe", Probe(), projection_head(3, 4, 5), 5, (0.5,) * 3, (0.5,) * 3, False)
    bare = LoadedTeacher("probe", Probe(), nn.Identity(), 3, (0.5,) * 3, (0.5,) * 3, False)
    assert [Teacher(loaded, image_size=32).embed_dim for loaded in (topped, bare)] == [5, 3]
    assert torch.equal(Teacher(topped, image_size=32)(VIEWS), Teacher(topped, image_size=32, features="head")(VIEWS))
    backbone = Teacher(bare, image_size=32, features="backbone")
    assert torch.equal(Teacher(bare, image_size=32)(VIEWS), backbone(VIEWS))


@pytest.mark.parametrize("source", ["resnet18", "lite0"])
def test_a_head_that_is_asked_for_by_name_must_be_there(source: str) -> None:
    loaded = load_teacher_source(source, pretrained=False)
    with pytest.raises(BadRecipe, match=r"has no SSL head\. Type: --set teacher\.features=backbone$") as error:
        Teacher(loaded, image_size=32, features="head")
    assert loaded.title in str(error.value)


def test_targets_carry_no_gradient_even_where_gradients_are_recorded() -> None:
    teacher = tiny_teacher()
    with torch.enable_grad():
        targets = teacher(VIEWS)
    assert not targets.requires_grad
    assert not isinstance(teacher, nn.Module)


def test_timm_model_with_random_weights() -> None:
    loaded = load_teacher_source("resnet18", pretrained=False)
    assert (loaded.title, loaded.embed_dim, loaded.supervised) == ("resnet18 (random weights)", 512, False)
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Teacher(loaded, image_size=32)(VIEWS).shape == (2, 512)


def test_timm_models_own_mean_and_std_are_taken() -> None:
    loaded = load_teacher_source("tf_efficientnet_lite0", pretrained=False)
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("resnet200", "No pretrained weights exist for resnet200"),
        ("resnet18.a1_in1k", "resnet18.a1_in1k is not in the cache"),  # the tests have no network
        ("hf-hub:a b/c", "hf-hub:a b/c cannot be loaded: Repo id must "),
    ],
)
def test_weights_that_cannot_be_had_are_an_error_and_never_a_random_teacher(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadTeacher) as error:
        load_teacher_source(name)
    assert part in str(error.value)
    assert "--set teacher.pretrained=false" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tag_that_there_is_not_is_said() -> None:
    with pytest.raises(UnknownName, match=r"resnet18 has no weights 'nonsense'\."):
        load_teacher_source("resnet18.nonsense")


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_lite_is_named_supervised_everywhere(name: str) -> None:
    loaded = load_teacher_source(name)
    assert loaded.title == f"EfficientNet-L{name[1:]} (supervised, ImageNet)"
    assert loaded.supervised
    sha256 = LITES[name].sha256
    assert (loaded.embed_dim, loaded.sha256, loaded.mean, loaded.std) == (1280, sha256, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", slow_but(["lite0", "lite1", "lite2"], ["lite0"]))
def test_lite_features_are_those_of_timms_network_on_the_normalised_view(name: str) -> None:
    chosen = LITES[name]
    model = timm.create_model(chosen.timm_name, num_classes=0)
    kept = {key: tensor for key, tensor in lite_state_dict(chosen).items() if not key.startswith("classifier.")}
    model.load_state_dict(kept, strict=True)
    teacher = Teacher(load_teacher_source(name), image_size=32)
    with torch.no_grad():
        expected = model.eval()(VIEWS / 127.5 - 1)
    assert torch.allclose(teacher(VIEWS), expected, atol=1e-4)


def test_moco_checkpoint_gives_backbone_and_head(tmp_path: Path) -> None:
    state = moco_state()
    path = write_moco_checkpoint(tmp_path / "moco.pth.tar", state)
    loaded = load_teacher_source(str(path))
    assert (loaded.title, loaded.embed_dim) == ("resnet18 (MoCo, moco.pth.tar)", 128)
    assert (loaded.sha256, loaded.supervised) == (sha256_of(path), False)
    model = timm.create_model("resnet18", num_classes=0).eval()
    query = {k.removeprefix("module.encoder_q."): v for k, v in state.items() if k.startswith("module.encoder_q.")}
    model.load_state_dict({k: v for k, v in query.items() if not k.startswith("fc.")}, strict=True)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (loaded.mean, loaded.std))
    with torch.no_grad():
        hidden = torch.relu(model((VIEWS / 255 - mean) / std) @ query["fc.0.weight"].T + query["fc.0.bias"])
    expected = hidden @ query["fc.2.weight"].T + query["fc.2.bias"]
    assert torch.allclose(Teacher(loaded, image_size=32)(VIEWS), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("module.encoder_q.layer1.0.conv1.weight", None, "missing (1) layer1.0.conv1.weight"),
        ("module.encoder_q.layer9.weight", torch.zeros(1), "unknown (1) layer9.weight"),
        ("module.encoder_q.conv1.weight", torch.zeros(64, 3, 3, 3), "conv1.weight (64, 3, 3, 3), not (64, 3, 7, 7)"),
    ],
)
def test_moco_checkpoint_is_loaded_strictly(tmp_path: Path, key: str, value: Any, part: str) -> None:
    state = {name: tensor for name, tensor in moco_state().items() if name != key}
    if value is not None:
        state[key] = value
    with pytest.raises(BadTeacher, match=r"moco.pth.tar does not fit resnet18: ") as error:
        load_teacher_source(str(write_moco_checkpoint(tmp_path / "moco.pth.tar", state)))
    assert part in str(error.value)


def test_moco_head_of_another_backbone_is_refused(tmp_path: Path) -> None:
    state = moco_state()
    state["module.encoder_q.fc.0.weight"] = torch.zeros(512, 2048)
    with pytest.raises(BadTeacher, match="its head takes 2048 features, resnet18 has 512"):
        load_teacher_source(str(write_moco_checkpoint(tmp_path / "moco.pth.tar", state)))


def swav_file(path: Path) -> Path:
    """SwAV's head has BatchNorm; a ResNet-18 stands in for its ResNet-50."""
    state = {f"module.{key}": value for key, value in timm.create_model("resnet18", num_classes=0).state_dict().items()}
    state |= containers.prefixed("module.projection_head.", containers.mlp(512, 64, norm=True))
    return containers.write(path, state | {"module.prototypes.weight": torch.zeros(30, 128)})


def test_swav_teacher_has_its_head_with_batch_norm(tmp_path: Path) -> None:
    loaded = load_teacher_source(str(swav_file(tmp_path / "swav.pth.tar")))
    assert (loaded.title, loaded.embed_dim, loaded.queue) == ("resnet18 (SwAV, swav.pth.tar)", 128, None)
    assert isinstance(loaded.head, nn.Sequential)
    assert isinstance(loaded.head[1], nn.BatchNorm1d)
    teacher = Teacher(loaded, image_size=32)
    before = loaded.head[1].running_mean.clone()
    assert teacher(VIEWS).shape == (2, 128)
    assert torch.equal(loaded.head[1].running_mean, before)
    # Frozen statistics: an image's target does not depend on what else is in the batch.
    assert torch.allclose(teacher(VIEWS)[:1], teacher(VIEWS[:1]), atol=1e-5)


def test_simclr_teacher_sees_pixels_as_they_are(tmp_path: Path) -> None:
    backbone = timm.create_model("resnet18", num_classes=0).state_dict()
    norm = nn.BatchNorm1d(16).state_dict()
    head = {"fc1.weight": torch.randn(16, 512), "fc2.weight": torch.randn(16, 16)}
    head |= containers.prefixed("bn1.", norm) | containers.prefixed("bn2.", norm)
    loaded = load_teacher_source(str(containers.write(tmp_path / "s.pth", containers.simclr(backbone, head))))
    assert (loaded.embed_dim, loaded.mean, loaded.std) == (16, (0.0,) * 3, (1.0,) * 3)


def test_a_plain_file_teaches_by_its_features_and_may_be_supervised(tmp_path: Path) -> None:
    path = containers.write(tmp_path / "plain.pth", timm.create_model("resnet18").state_dict())
    loaded = load_teacher_source(str(path))
    assert loaded.title == "resnet18 (timm or torchvision, without a head, plain.pth)"
    assert (loaded.embed_dim, loaded.supervised) == (512, None)


def test_a_file_that_two_networks_take_is_no_teacher(tmp_path: Path) -> None:
    path = containers.write(tmp_path / "plain.pth", timm.create_model("efficientnet_b0").state_dict())
    with pytest.raises(BadTeacher, match=r"this cannot teach: plain.pth fits efficientnet_b0 and disco_effb0_pad224"):
        load_teacher_source(str(path))


def test_a_teacher_of_the_catalog_must_be_installed(own_home: Path) -> None:
    with pytest.raises(BadTeacher) as error:
        load_teacher_source("mocov2_r50")
    assert str(error.value) == (
        "mocov2_r50 is not installed. Type: disco-zoo download mocov2_r50, "
        "or: disco-zoo convert FILE --as mocov2_r50 --install"
    )


def test_an_installed_teacher_teaches_by_its_name(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head is in the file under a prefix; title and normalisation are the catalog's."""
    catalog = load_catalog()
    row = catalog.teachers["swav_r50"].model_copy(update={"network": "resnet18"})
    changed = catalog.model_copy(update={"teachers": {**catalog.teachers, "swav_r50": row}})
    for module in ("models.teacher_source", "weights.resolve"):
        monkeypatch.setattr(f"disco_zoo.{module}.load_catalog", lambda: changed)
    converted = read_checkpoint(swav_file(own_home / "swav.pth.tar"))
    tensors = converted.backbone | containers.prefixed("projection_head.", converted.head)
    store.install("swav_r50", "resnet18", lambda path: save_file(tensors, path), {}, lambda path: path.write_bytes(b""))
    loaded = load_teacher_source("swav_r50")
    assert (loaded.title, loaded.embed_dim, loaded.supervised) == (row.title, 128, False)
    assert (loaded.mean, loaded.std) == (tuple(row.input.mean), tuple(row.input.std))
    from_file = load_teacher_source(str(own_home / "swav.pth.tar"))
    assert torch.equal(Teacher(loaded, image_size=32)(VIEWS), Teacher(from_file, image_size=32)(VIEWS))


def test_a_missing_checkpoint_file_is_no_timm_name(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match="does not exist"):
        load_teacher_source(str(tmp_path / "gone.pth.tar"))


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet81", "resnet18"), ("lite-0", "lite0"), ("disco_efb0", "disco_effb0")]
)
def test_an_unknown_source_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=f"^'{name}' is no file, run folder or timm model"):
        load_teacher_source(name)
    with pytest.raises(UnknownName, match=f"Did you mean '{nearest}'"):
        load_teacher_source(name)


def test_run_folder_of_ours_can_teach(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "my_run")
    loaded = load_teacher_source(str(folder))
    assert (loaded.title, loaded.embed_dim) == ("disco_r18 (my_run)", 512)
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.sha256 == sha256_of(folder / "student.safetensors")
    torch.manual_seed(0)
    start = timm.create_model("resnet18", num_classes=0).state_dict()
    assert all(
        torch.equal(t, start[k].half().float())
        for k, t in loaded.backbone.state_dict().items()
        if t.is_floating_point()
    )


def test_run_folder_with_another_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match=r"not the file its run.json describes \(sha256 differs\)"):
        load_teacher_source(str(make_run_folder(tmp_path / "my_run", sha256="0" * 64)))


def test_run_folder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match="does not fit resnet34: missing"):
        load_teacher_source(str(make_run_folder(tmp_path / "a", architecture="resnet34")))
    with pytest.raises(BadTeacher, match="of the network resnet19, which timm does not have"):
        load_teacher_source(str(make_run_folder(tmp_path / "b", architecture="resnet19")))


@pytest.mark.parametrize("facts", ["{", "[]", "{}", '{"student": null}', '{"student": {"model": "x"}}'])
def test_run_folder_with_damaged_facts_is_refused(tmp_path: Path, facts: str) -> None:
    folder = make_run_folder(tmp_path / "my_run")
    (folder / "run.json").write_text(facts)
    with pytest.raises(BadTeacher, match=r"run.json does not (describe a student|say the student's architecture)"):
        load_teacher_source(str(folder))


def test_unfinished_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match="is no finished run folder"):
        load_teacher_source(str(tmp_path))
