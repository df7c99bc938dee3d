"""The zoo as data: `catalog.yaml`, checked strictly, as immutable objects.

Reads no weights and imports no torch, so that the command line can answer at once. Accuracies are percent
(0..100).
"""

from __future__ import annotations

import datetime
import fnmatch
import functools
import math
import statistics
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from disco_zoo import catalog_check
from disco_zoo.errors import BadCatalog, UnknownName, did_you_mean

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")

# Quantile 0.995 of Student's t for 1, 2, 3 ... 20 degrees of freedom; the tests compare them with scipy.
T_995 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169,
         3.106, 3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845)  # fmt: skip
MIN_SEEDS_FOR_A_VERDICT = 3
MIN_ALLOWED_DIFFERENCE_POINTS = 0.5

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*_top[15]$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
RgbValues = Annotated[list[float], Field(min_length=3, max_length=3)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Dataset(_Strict):
    """What a checkpoint was trained or measured on. `image_size` is in pixels, None where it varies."""

    name: str
    title: Text
    licence: Text
    num_train: Annotated[int, Field(gt=0)]
    num_test: Annotated[int, Field(gt=0)]
    num_classes: Annotated[int, Field(gt=0)]
    class_names: list[Text] | None
    image_size: Annotated[int, Field(gt=0)] | None
    url: Text
    hub_id: Text


class Teacher(_Strict):
    """A frozen network that students were distilled from."""

    name: str
    title: Text
    supervision: Literal["supervised", "self-supervised", "unknown"]


class Architecture(_Strict):
    """A student architecture. `default` is the tag that its bare name stands for."""

    name: str
    short: Text
    native: Text
    paper_name: Text
    feature_dim: Annotated[int, Field(gt=0)]
    params_millions: Annotated[float, Field(gt=0)]
    default: Text
    registered: bool = True


class Licence(_Strict):
    """Licences of everything that a checkpoint is made of; "unknown" where nobody stated one."""

    code: Text
    weights: Text
    teacher: Text
    data: Text


class Input(_Strict):
    """The evaluation transform: shorter side to `size / crop_pct` pixels, crop `size`, normalise."""

    size: Annotated[int, Field(gt=0)]
    mean: RgbValues
    std: RgbValues
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: Literal["bilinear", "bicubic"]


class Weights(_Strict):
    """Where the weights are. `file` is a name in the wheel or the Hub repository, or the authors' own."""

    source: Literal["bundled", "hub", "official", "none"]
    file: Text | None = None
    sha256: Sha256 | None = None
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: Commit | None = None
    url: Text | None = None
    converter: Text | None = None

    @property
    def loadable(self) -> bool:
        """Whether timm can load them now."""
        return self.source in ("bundled", "hub")


class Reported(_Strict):
    """A figure from a paper. `verified` says whether it was read in `source`, or only remembered."""

    metric: MetricName
    value: Percent
    source: Text
    verified: bool
    note: str | None = None


class Measured(_Strict):
    """A figure that this code measured: one value a seed, in percent."""

    subject: Literal["student", "baseline", "start", "teacher", "teacher_own_size", "pixels"]
    metric: MetricName
    values: Annotated[list[Percent], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    protocol: Text
    command: Text
    hardware: Text
    date: datetime.date = Field(strict=False)

    @property
    def mean(self) -> float:
        """Mean over the seeds, in percent."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds (n - 1), in points; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def allowed_difference(self) -> float | None:
        """How far one new run may lie from `mean`, in points; None where the seeds are too few to judge.

        The 99 % prediction interval for one more value of a normal sample:
        t_{0.995, n-1} * std * sqrt(1 + 1/n),
        and not less than half a point, since three seeds can agree by chance.
        """
        n = len(self.values)
        if self.std is None or n < MIN_SEEDS_FOR_A_VERDICT:
            return None
        t_quantile = T_995[min(n - 1, len(T_995)) - 1]
        return max(MIN_ALLOWED_DIFFERENCE_POINTS, t_quantile * self.std * math.sqrt(1 + 1 / n))


class Checkpoint(_Strict):
    """One row of the zoo.

    `recipe` is a path under recipes/ without .yaml. `start` is how the student was initialised. `variant`
    names the network that the weights need where it is not the architecture's own `native`: such weights are
    never handed to timm under this name.
    """

    name: str
    method: Literal["disco", "moco_v2", "seed"]
    teacher: Text | None
    data: Text
    recipe: Text | None
    summary: Text
    licence: Licence
    origin: Text
    input: Input
    weights: Weights
    start: Literal["random", "inherit"] | None = None
    variant: Text | None = None
    note: Text | None = None
    limits: list[Text] = []
    reported: list[Reported] = []
    measured: list[Measured] = []

    @property
    def architecture(self) -> str:
        """The name's part before the dot, e.g. `disco_effb0`."""
        return self.name.split(".", 1)[0]

    @property
    def tag(self) -> str:
        """The name's part after the dot, e.g. `disco_mocov2_r50_in1k`."""
        return self.name.split(".", 1)[1]

    @property
    def reproduce_command(self) -> str | None:
        """What to type to obtain the weights again; None where there is no recipe."""
        if self.recipe is None:
            return None
        data = "" if self.recipe.startswith("pocket/") else " --data DATA"
        return f"disco-zoo reproduce {self.name}{data}"

    def figure(self, subject: str, metric: str) -> Measured | None:
        """The measured figure of `subject`, if there is one."""
        found = (m for m in self.measured if (m.subject, m.metric) == (subject, metric))
        return next(found, None)

    def reported_figure(self, metric: str) -> Reported | None:
        """The reported figure of `metric`, if there is one."""
        return next((r for r in self.reported if r.metric == metric), None)


class Catalog(_Strict):
    """The whole zoo; checkpoints are keyed by `architecture.tag`."""

    datasets: dict[str, Dataset]
    teachers: dict[str, Teacher]
    architectures: dict[str, Architecture]
    checkpoints: dict[str, Checkpoint]

    def resolve(self, name: str) -> Checkpoint:
        """Find a checkpoint: `effb0` or `disco_effb0` for the default, or `effb0.TAG`, or the full name.

        Raises:
            UnknownName: There is no such checkpoint.
        """
        shorts = {arch.short: arch.name for arch in self.architectures.values()}
        architecture, _, tag = name.partition(".")
        architecture = shorts.get(architecture, architecture)
        if architecture in self.architectures:
            tag = tag or self.architectures[architecture].default
            if found := self.checkpoints.get(f"{architecture}.{tag}"):
                return found
        known = [*self.checkpoints, *self.architectures, *shorts]
        raise UnknownName(f"There is no model '{name}' in the zoo.{did_you_mean(name, known)} Type: disco-zoo list")

    def of_architecture(self, architecture: str) -> list[Checkpoint]:
        """The checkpoints of one architecture, in the catalog's order."""
        return [row for row in self.checkpoints.values() if row.architecture == architecture]

    def matching(self, pattern: str | None) -> list[Checkpoint]:
        """The checkpoints whose name contains `pattern`, or fits it where it has wildcards; all for None.

        Raises:
            UnknownName: Nothing matches.
        """
        rows = list(self.checkpoints.values())
        if pattern is None:
            return rows
        wildcard = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
        found = [row for row in rows if fnmatch.fnmatchcase(row.name, wildcard)]
        if not found:
            known = [*self.checkpoints, *self.architectures, *(a.short for a in self.architectures.values())]
            raise UnknownName(f"No model matches '{pattern}'.{did_you_mean(pattern, known)} Type: disco-zoo list")
        return found


def load_catalog(source: Path | str | None = None) -> Catalog:
    """Read the catalog: the packaged one (cached), a file (Path), or YAML text (str).

    Raises:
        BadCatalog: It does not follow the schema; the message lists every fault.
    """
    if source is None:
        return _packaged_catalog()
    if isinstance(source, Path):
        return _parse(source.read_text(encoding="utf-8"), str(source))
    return _parse(source, "catalog text")


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the zoo's checkpoints; `pattern` is a part of the name or has wildcards."""
    return [row.name for row in load_catalog().matching(pattern)]


@functools.cache
def _packaged_catalog() -> Catalog:
    return load_catalog(CATALOG_PATH)


def _parse(text: str, where: str) -> Catalog:
    raw, faults = catalog_check.read_yaml(text)
    catalog = None
    try:
        catalog = Catalog.model_validate(raw)
    except ValidationError as error:
        known_keys = [key for model in _Strict.__subclasses__() for key in model.model_fields]
        faults += catalog_check.schema_faults(error, known_keys)
    faults += catalog_check.cross_faults(raw)
    if catalog is None or faults:
        lines = "\n  ".join(faults)
        raise BadCatalog(f"{where} has {len(faults)} fault(s); correct them and try again:\n  {lines}")
    return catalog
