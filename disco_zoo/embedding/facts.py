"""Metadata of an embedding: the model and the images that it was computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.image_sample import sample_sha256
from disco_zoo.errors import BadData
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import NamedModel
from disco_zoo.transforms.eval import eval_resize_size

FORMAT = 1


@dataclass(frozen=True)
class EmbeddingFacts:
    """All that decides the rows of an embedding, and the images that have none.

    Attributes:
        model: as typed; `network` is the timm name that builds it.
        weights_sha256: of the backbone's tensors (`backbone_fingerprint`): equal for equal weights, however named.
        image_size, resize_size: crop and shorter side before it, in pixels.
        mean, std: of the input, for RGB in 0..1.
        normalised: whether rows have length 1.
        number_type: "float32" or "float16".
        data: what opens the images again, None where the names are their paths; with `split`.
        data_fingerprint: of the images.
        num_images: in the source, unreadable ones included.
        class_names: of the labels, where known.
        dims: numbers a row; None before the first row is known.
        unreadable: what was wrong with the images that have no row, by their number.
        engine: what computed the rows, with its version, or "torch".
        decode: "reduced" where large JPEGs may have been decoded at reduced size, else "full".
        num_reduced: images that were; None where nobody counted.
        sample_sha256: of some images' bytes, see `sample_sha256`; None in files of before.
        white: what was white in images of more than 8 bits, by kind; None in files of before.
    """

    model: str
    network: str
    weights_sha256: str
    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalised: bool
    number_type: str
    data: str | None
    split: str | None
    data_fingerprint: str
    num_images: int
    class_names: tuple[str, ...] | None
    # What follows is not known at first, or not told by files made before it could differ.
    dims: int | None = None
    unreadable: Mapping[str, str] | None = None
    engine: str = "torch"
    decode: str = "full"
    num_reduced: int | None = None
    sample_sha256: str | None = None
    white: Mapping[str, float] | None = None

    def key(self) -> dict[str, Any]:
        """Plain values that determine the rows; names of model and images, what these tell, and results are not."""
        values = _plain(asdict(self))
        for name in ("model", "network", "data", "dims", "unreadable", "engine", "num_reduced", "white"):
            del values[name]
        if self.decode == "full":  # files and parts of before know no other
            del values["decode"]
        return values

    def gives_rows_of(self, other: EmbeddingFacts) -> bool:
        """Whether both decide the same rows; where one has no sample, as files of before, the place must agree."""
        if self.sample_sha256 is None or other.sample_sha256 is None:
            unsampled = (replace(facts, sample_sha256=None) for facts in (self, other))
            return len({json.dumps([facts.data, facts.key()]) for facts in unsampled}) == 1
        return self.key() == other.key()

    def finished(
        self, dims: int, unreadable: Mapping[int, str], engine: str = "torch", num_reduced: int | None = None
    ) -> EmbeddingFacts:
        """With the facts known once the rows are computed."""
        messages = {str(index): unreadable[index] for index in sorted(unreadable)}
        return replace(self, dims=dims, unreadable=messages, engine=engine, num_reduced=num_reduced)

    def as_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)


def facts_of(
    named: NamedModel,
    source: ImageSource,
    *,
    data: str | None,
    split: str | None,
    normalised: bool,
    half: bool,
    image_size: int | None = None,
    resize_size: int | None = None,
    full_decode: bool = False,
) -> EmbeddingFacts:
    """The facts of an embedding to be made; sizes are the model's unless given."""
    size, resize = named.image_size, named.resize_size
    if image_size is not None:
        size, resize = image_size, None
    return EmbeddingFacts(
        model=named.name,
        network=named.network,
        weights_sha256=backbone_fingerprint(named.backbone),
        image_size=size,
        resize_size=resize_size or resize or eval_resize_size(size),
        mean=named.mean,
        std=named.std,
        normalised=normalised,
        number_type="float16" if half else "float32",
        data=data,
        split=split,
        data_fingerprint=source.fingerprint(),
        num_images=len(source),
        class_names=None if source.class_names is None else tuple(source.class_names),
        decode="full" if full_decode else "reduced",
        sample_sha256=sample_sha256(source),
        white=source.white(),
    )


def facts_from_json(text: str | bytes, title: str) -> EmbeddingFacts:
    """Read what `EmbeddingFacts.as_json` wrote.

    Raises:
        BadData: it is something else, or from a later version.
    """
    try:
        values = json.loads(text)
        version = values.pop("format")
        if version != FORMAT:
            raise BadData(f"{title} has format {version} and this disco-zoo reads {FORMAT}. Update disco-zoo")
        known = {field.name for field in fields(EmbeddingFacts)}
        facts = EmbeddingFacts(**{name: _tupled(values[name]) for name in known & values.keys()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadData(
            f"{title} was not made by `disco-zoo embed`. Type: disco-zoo embed IMAGES --model M --out FILE"
        ) from error
    return facts


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found
