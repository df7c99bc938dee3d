"""SyncBN in every method: the conversion reaches all BatchNorm layers, twins included, and changes nothing else.

Statistics over several processes need several GPUs; on one process the converted method must compute the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_runs import method_values
from slow_params import slow_but
from timm.layers import convert_sync_batchnorm
from tiny_runs import BATCH_SIZE, differences, toy_parquet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe, parse_recipe
from disco_zoo.methods import METHODS
from disco_zoo.methods.base import Batch
from disco_zoo.modules.momentum_contrast import MomentumContrast
from disco_zoo.teacher_cache.feature_bank import Preparation
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.training.run_data import open_data
from disco_zoo.transforms.view_dataset import ViewDataset, collate_views, view_plan

pytestmark = pytest.mark.usefixtures("one_thread")
each_method = pytest.mark.parametrize("method", METHODS)
TWINS = ("contrast.twin.", "twin.encoder.")  # MoCo's key network, CompRess's


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_data(recipe_of("moco_v2"), str(toy_parquet(tmp_path_factory.mktemp("data")))).train


def recipe_of(method: str) -> Recipe:
    """With BatchNorm in the student's head, too, where it has one; dropout shows what a conversion might lose."""
    values = method_values(method, student__model="dropping_student")
    if values["student"].get("head") != "none":
        values["student"]["head"] = "mlp_bn"
    return parse_recipe(values, origin="toy")


def parts_of(method: str, source: Any, folder: Path, *, sync: bool) -> Parts:
    parts = build_parts(recipe_of(method), source)
    if sync:
        parts.method = convert_sync_batchnorm(parts.method)
    parts.method.prepare(Preparation(source, folder, seed=0, device="cpu", workers=0))
    parts.method.start_epoch(0)
    return parts


def train_two_steps(parts: Parts, recipe: Recipe, source: Any) -> list[dict[str, Tensor]]:
    method, losses = parts.method, []
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    plan = view_plan(recipe.views, recipe.view_size, method.num_views)
    dataset = ViewDataset(source, plan, seed=0, epoch=0, companions=method.companions)
    for step in range(2):
        batch = collate_views([dataset[step * BATCH_SIZE + i] for i in range(BATCH_SIZE)])
        losses.append(method.train()(Batch(batch["views"], batch["index"])))
        losses[-1]["loss"].backward()
        method.before_step()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
    return losses


def norms(module: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}


@pytest.mark.parametrize("method", slow_but(METHODS, ["bingo", "crd", "disco", "disco_swav"]))
def test_converted_method_trains_as_the_plain_one_on_one_process(method: str, source: Any, tmp_path: Path) -> None:
    runs = []
    for sync in (False, True):
        parts = parts_of(method, source, tmp_path, sync=sync)
        losses = train_two_steps(parts, recipe_of(method), source)
        runs.append(({"losses": losses, "state": parts.method.state_dict()}, parts))
    assert differences(runs[0][0], runs[1][0]) == []
    assert norms(runs[0][1].method).keys() == norms(runs[1][1].method).keys()
    if runs[1][1].teacher is not None:
        assert differences(*(parts.teacher.encoder.state_dict() for _, parts in runs)) == []


@each_method
def test_conversion_reaches_every_batch_norm_but_the_teachers(method: str, source: Any, tmp_path: Path) -> None:
    parts = parts_of(method, source, tmp_path, sync=True)
    found = norms(parts.method)
    assert found
    assert all(isinstance(part, nn.SyncBatchNorm) for part in found.values())
    # A student's layer that were converted on its own would train apart from the one whose weights are exported.
    assert {f"student.{name}" for name in norms(parts.student)} <= found.keys()
    assert all(parts.method.get_submodule(f"student.{name}") is part for name, part in norms(parts.student).items())
    if parts.teacher is not None:
        assert not any(isinstance(part, nn.SyncBatchNorm) for part in parts.teacher.encoder.modules())


@each_method
def test_twins_stay_apart_frozen_and_in_their_own_modes(method: str, source: Any, tmp_path: Path) -> None:
    method_module = parts_of(method, source, tmp_path, sync=True).method.train()
    twins = {name: part for name, part in norms(method_module).items() if name.startswith(TWINS)}
    has_twin = method == "compress_2q_momentum" or any(isinstance(m, MomentumContrast) for m in method_module.modules())
    assert bool(twins) == has_twin
    own = {id(tensor) for tensor in method_module.student.state_dict(keep_vars=True).values()}
    for part in twins.values():
        assert part.training  # both kinds normalise by the batch
        assert not own & {id(tensor) for tensor in part.state_dict(keep_vars=True).values()}
        assert not any(parameter.requires_grad for parameter in part.parameters())
    trained = {id(p) for p in method_module.parameters() if p.requires_grad}
    assert all(id(p) in trained for part in norms(method_module.student).values() for p in part.parameters())
    if method == "compress_2q_momentum":  # the rest of CompRess's twin is in eval
        modes = {isinstance(part, _BatchNorm): part.training for part in method_module.twin.modules()}
        assert modes == {False: False, True: True}
