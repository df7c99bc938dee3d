"""`disco-zoo plan`: what a run will cost."""

from __future__ import annotations

from typing import Any

import click

from disco_zoo.cli.options import DATA, DEVICE, JSON, SET
from disco_zoo.core.launcher import chosen_device
from disco_zoo.plan.device_speeds import DEFAULT_UTILIZATION, DEVICE_SPEEDS


@click.command("plan")
@click.argument("recipe")
@DATA
@click.option("--images", type=click.IntRange(min=1), help="Number of training images; with --data, that is a sample.")
@SET
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of devices that share each batch.",
)
@click.option("--calibrate", type=click.IntRange(min=1), metavar="STEPS", help="Time so many real steps here.")
@click.option(
    "--device-tflops",
    metavar="SPEED",
    help=f"TFLOP/s of a device, or its name for the peak its maker states ({', '.join(DEVICE_SPEEDS)}).",
)
@click.option(
    "--utilisation",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=DEFAULT_UTILIZATION,
    show_default=True,
    help="Share of --device-tflops that dense networks reach; depthwise ones are taken to reach a seventh of it.",
)
@click.option(
    "--cores",
    type=click.IntRange(min=1),
    help="CPU cores that draw views; hours are then those of the slower of loaders and networks.",
)
@DEVICE
@JSON
def command(
    recipe: str, overrides: tuple[str, ...], calibrate: int | None, device: str, as_json: bool, **given: Any
) -> None:
    """Say what training from RECIPE will cost: FLOPs, memory, disk, loaders, hours. Nothing is trained or written.

    Weights and images are not needed: networks are counted by their shapes, and the catalog knows the size of its
    data sets. --device says where --calibrate runs.

    \b
    Examples:
      disco-zoo plan in1k/disco_effb0.disco_mocov2_r50_in1k
      disco-zoo plan in1k/disco_effb0.disco_mocov2_r50_in1k --devices 8 --device-tflops a100 --set optim.precision=bf16
      disco-zoo plan my_recipe.yaml --data photos/ --images 2000000 --calibrate 20
    """
    import json

    from disco_zoo.config.recipe import load_recipe
    from disco_zoo.plan.planning import plan_recipe
    from disco_zoo.plan.tables import print_plan
    from disco_zoo.plan.types import PlanOptions

    loaded = load_recipe(recipe, overrides)
    options = PlanOptions(calibrate_steps=calibrate, device=chosen_device(device) if calibrate else "cpu", **given)
    plan = plan_recipe(loaded, options)
    if as_json:
        click.echo(json.dumps(plan.as_json(), indent=2))
    else:
        print_plan(plan)
