"""The kNN protocols of the papers (spec 4.2), and ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from disco_zoo.errors import DiscoZooError, UnknownName, did_you_mean


@dataclass(frozen=True)
class KnnProtocol:
    """How the nearest training images of a test image decide its class.

    Attributes:
        source: which code or paper it follows.
        ks: numbers of neighbours.
        metric: "cosine", which between unit vectors ranks as their distance does; or "euclidean" on features as
            the backbone gives them.
        vote: "weighted" by exp(cos / T); or "majority", where equal votes go to the class of the lower number
            (CompRess draws lots).
        temperature: T; None for a majority.
        best_of_ks: report the best k only. Test images choose it, so the figure is optimistic.
    """

    name: str
    source: str
    ks: tuple[int, ...]
    metric: Literal["cosine", "euclidean"] = "cosine"
    vote: Literal["weighted", "majority"] = "weighted"
    temperature: float | None = None
    best_of_ks: bool = False

    def label(self) -> str:
        """The protocol as text, with everything that determines a figure except k."""
        vote = f"weights exp(cos/{self.temperature:g})" if self.vote == "weighted" else "majority"
        best = f", best odd k up to {max(self.ks)} chosen on test images (optimistic)" if self.best_of_ks else ""
        return f"kNN {self.name}: {self.metric}, {vote}{best}"


KNN_PROTOCOLS: dict[str, KnnProtocol] = {
    protocol.name: protocol
    for protocol in (
        KnnProtocol("default", "ours: DINO's vote, with k=1 beside it", (1, 20, 200), temperature=0.07),
        KnnProtocol("dino", "DINO code", (10, 20, 100, 200), temperature=0.07),
        KnnProtocol("compress", "CompRess code", (1,), vote="majority"),
        KnnProtocol(
            "ssl_small",
            "ssl-small code",
            tuple(range(1, 102, 2)),
            metric="euclidean",
            vote="majority",
            best_of_ks=True,
        ),
    )
}


def knn_protocol(name: str, *, ks: tuple[int, ...] = (), temperature: float | None = None) -> KnnProtocol:
    """Find a preset by its name; with other ks or another T its name says so.

    Raises:
        UnknownName: there is none of this name.
        DiscoZooError: a temperature for a vote that has none.
    """
    if name not in KNN_PROTOCOLS:
        known = ", ".join(KNN_PROTOCOLS)
        raise UnknownName(f"No kNN protocol '{name}'.{did_you_mean(name, KNN_PROTOCOLS)} Known: {known}.")
    preset = KNN_PROTOCOLS[name]
    if temperature is not None:
        if preset.temperature is None:
            raise DiscoZooError(f"The kNN protocol {name} counts a majority, without weights. Leave out --temperature.")
        if temperature <= 0:
            raise DiscoZooError(f"A temperature of {temperature:g} gives no weights. Type: --temperature 0.07")
        if temperature != preset.temperature:
            preset = replace(preset, name=f"{preset.name}@T{temperature:g}", temperature=temperature)
    return replace(preset, ks=tuple(sorted(set(ks))), best_of_ks=False) if ks else preset
