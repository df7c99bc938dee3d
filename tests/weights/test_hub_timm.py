"""What a user of timm meets when the Hub fails: `timm.create_model` with the real client against the test Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hub_cases import ANSWERS, BODIES
from hub_faults import corrupt, replace
from hub_files import FILE, REPO, Published, catalog_with
from hub_server import TestHub
from hub_store import HubStore
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from slow_params import slow_but

from disco_zoo.errors import (
    AccessDenied,
    Damaged,
    Gated,
    HubUnreachable,
    NotPublished,
    Offline,
    OutOfStep,
    WeightsError,
)

pytest_plugins = ("hub_fixtures",)
pytestmark = pytest.mark.usefixtures("quiet_client")

NAME = "disco_r18.disco_lite0_cifar10"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=0)
    path = tmp_path_factory.mktemp("weights") / FILE
    save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def catalog(weights_file: Path) -> Path:
    """A catalog by which NAME is on the Hub; commits of the test Hub depend on their content alone."""
    data = weights_file.read_bytes()
    revision = HubStore().add_repo(REPO, {FILE: data})
    return catalog_with(Published(data, revision), NAME, weights_file.with_name("catalog.yaml"))


@pytest.fixture
def published(hub: TestHub, weights_file: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """NAME is on the Hub, and the catalog knows it."""
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(catalog))
    data = weights_file.read_bytes()
    return Published(data, hub.store.add_repo(REPO, {FILE: data}))


def refused(kind: type[WeightsError], *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        timm.create_model(NAME, pretrained=True)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    for word in (NAME, *words):
        assert word in message


def loads(weights_file: Path) -> None:
    """The model loads with the published values, exactly."""
    state = timm.create_model(NAME, pretrained=True).state_dict()
    assert all(torch.equal(state[key], value.to(state[key].dtype)) for key, value in load_file(weights_file).items())


@pytest.mark.parametrize(
    ("method", "case"), [*(("HEAD", case) for case in ANSWERS), *(("GET", case) for case in BODIES)]
)
def test_a_request_that_fails(
    method: str, case: str, hub: TestHub, published: Published, impatient: None, shorten_limit: Callable[[str], None]
) -> None:
    fault, kind, words = (ANSWERS if method == "HEAD" else BODIES)[case]
    if fault.silent:
        shorten_limit(method)
    hub.fail(fault, method=method)
    with pytest.raises(WeightsError) as caught:
        timm.create_model(NAME, pretrained=True)
    assert type(caught.value) is kind
    assert all(word in str(caught.value) for word in words)


SITUATIONS: dict[str, tuple[Callable[[TestHub], object], type[WeightsError], str]] = {
    "missing": (lambda hub: hub.store.repos.clear(), NotPublished, "hf auth login"),
    "private": (lambda hub: setattr(hub.store.repos[REPO], "private", True), NotPublished, "hf auth login"),
    "gated": (lambda hub: setattr(hub.store.repos[REPO], "gated", True), Gated, "Accept them at"),
    "no commit": (lambda hub: hub.store.repos[REPO].commits.clear(), OutOfStep, "pip install --upgrade disco-zoo"),
    "no file": (lambda hub: _lose_the_file(hub), OutOfStep, "pip install --upgrade disco-zoo"),
    "refused": (lambda hub: hub.down(), HubUnreachable, "Cannot reach"),
}


def _lose_the_file(hub: TestHub) -> None:
    for files in hub.store.repos[REPO].commits.values():
        del files[FILE]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_situation_of_the_hub(situation: str, hub: TestHub, published: Published, impatient: None) -> None:
    arrange, kind, words = SITUATIONS[situation]
    arrange(hub)
    refused(kind, words)


def test_a_bad_token(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    refused(AccessDenied, "HTTP 401", "HF_TOKEN")


def test_offline_and_not_cached(hub: TestHub, published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(Offline, "HF_HUB_OFFLINE")
    assert hub.requests == []


def test_the_token_does_not_follow_a_redirect(
    hub: TestHub, published: Published, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.store.add_user("hf_reader", "ann", "org", role="read")
    hub.store.repos[REPO].private = True
    hub.redirect = True
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    loads(weights_file)
    assert [request.has_authorization for request in hub.file_requests] == [False]


OPTIONS = [{}, {"num_classes": 10}, {"features_only": True}]


@pytest.mark.parametrize("options", slow_but(OPTIONS, OPTIONS[:1]))
def test_one_flipped_bit_never_loads(options: dict[str, object], hub: TestHub, published: Published) -> None:
    hub.fail(corrupt(at=-1000), method="GET")  # safetensors itself takes these bytes without a word
    with pytest.raises(Damaged, match="another sha256"):
        timm.create_model(NAME, pretrained=True, **options)
    assert hub.count("GET") == 2


def test_wrong_bytes_of_the_right_length_are_healed_once(
    hub: TestHub, published: Published, weights_file: Path
) -> None:
    hub.fail(replace(bytes(len(published.data))), method="GET", times=1)  # "header too large", for ever, in timm alone
    loads(weights_file)
    assert hub.count("GET") == 2
    loads(weights_file)
    assert hub.count("GET") == 2


def test_a_damaged_cache_and_no_hub(hub: TestHub, published: Published, weights_file: Path, impatient: None) -> None:
    loads(weights_file)
    published.flip_a_cached_bit()
    hub.down()
    refused(Damaged, "no new copy came", "Cannot reach")
    hub.up()
    loads(weights_file)


def test_a_file_of_the_callers_needs_no_hub(hub: TestHub, published: Published, weights_file: Path) -> None:
    hub.down()
    overlay = {"file": str(weights_file)}
    model = timm.create_model("resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    ours = timm.create_model("disco_r18", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.conv1.weight, ours.conv1.weight)
