"""What a container holds: the layouts of spec 6, recognised by keys and shapes, never by the file's name.

Every tensor is accounted for: it belongs to the encoder that is taken, or to a part that this layout is known to
have and that is left out. Anything else is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from disco_zoo.errors import BadCheckpoint
from disco_zoo.weights.convert.key_maps import listed, naming_of
from disco_zoo.weights.convert.reading import shown

TITLES = {
    "disco": "DisCo",
    "moco": "MoCo",
    "seed": "SEED",
    "ssl_small": "ssl-small",
    "bingo": "BINGO",
    "compress": "CompRess",
    "swav": "SwAV",
    "simclr_seed": "SimCLR",
    "simclr": "SimCLR",
    "run": "disco-zoo run",
    "plain": "timm or torchvision",
    "dino": "DINO",
    "moco_v3": "MoCo-v3",
}
_STATE_KEYS = ("state_dict", "model")
# Entries that hold tensors, but none of a network.
_NO_NETWORK = ("optimizer", "amp", "scaler", "fp16_scaler", "scheduler", "dino_loss")
_Q, _K, _STUDENT = "module.encoder_q.", "module.encoder_k.", "module.student."
_COMPILED = "_orig_mod."  # what torch.compile puts before the names of what it wraps, at any depth
_QUEUE = ("module.queue", "module.queue_ptr")
# Our own files of teachers keep the authors' names: the only ones without a network's around them.
OWN_QUEUE = ("queue", "queue_ptr")
_TENSORFLOW = re.compile(r"(module\.)?(conv2d|batch_normalization)(_\d+)?\.")


@dataclass(frozen=True)
class Layout:
    """Where a layout has its parts.

    Attributes:
        name: a key of `TITLES`.
        take: what the names of the encoder's tensors begin with.
        drop: what is known and left out: beginnings of names (with a dot at the end), or whole names.
        head: beginning of the head's names where it lies beside the encoder; it is inside otherwise.
        has_head: whether what lies on top of the encoder is a self-supervised head and not a classifier.
        own_queue: whether `module.queue` holds embeddings of this encoder's twin, not of a teacher.
    """

    name: str
    take: str
    drop: tuple[str, ...] = ()
    head: str | None = None
    has_head: bool = True
    own_queue: bool = False


@dataclass(frozen=True)
class Contents:
    """A file's encoder under its authors' names, sorted out from the rest.

    Attributes:
        encoder: the backbone, with what lies on top of it.
        head: tensors of a head beside the encoder; empty where it is inside.
        queue: rows (K, D) of the encoder's own queue.
        queue_position: of the row that is replaced next.
        dropped: one line for each group of tensors left out.
    """

    layout: Layout
    encoder: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    queue: Tensor | None = None
    queue_position: int = 0
    dropped: tuple[str, ...] = ()


def sort_out(container: Any, origin: str) -> Contents:
    """Recognise the layout of what was read, and take its encoder.

    Of a DINO file the `teacher` is taken: the moving average, which DINO evaluates. Where it is no twin of the
    `student` (a frozen network of another architecture), or there is none, the student is.

    Args:
        container: from `read_container`.
        origin: the file, for messages.

    Raises:
        BadCheckpoint: no tensors, no known layout, or tensors that the layout does not have.
    """
    state, others = _state_dict(container, origin)
    _refuse_tensorflow(state, origin)
    layout = _layout_of(state, container, origin)
    encoder, head, queue = {}, {}, {}
    dropped: dict[str, int] = {}
    unknown = []
    for key, value in state.items():
        part = next((p for p in layout.drop if key == p or (p.endswith(".") and key.startswith(p))), None)
        if layout.own_queue and key in (*_QUEUE, *OWN_QUEUE):
            queue[key.removeprefix("module.")] = value
        elif part is not None:
            dropped[part] = dropped.get(part, 0) + 1
        elif layout.head and key.startswith(layout.head):
            head[key.removeprefix(layout.head)] = value
        elif key.startswith(layout.take):
            encoder[key.removeprefix(layout.take)] = value
        else:
            unknown.append(key)
    if unknown:
        raise BadCheckpoint(f"{origin} has {TITLES[layout.name]}'s layout, which has no {listed(unknown)}")
    counted = tuple(f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in dropped.items())
    return Contents(layout, encoder, head, *_ring(queue, origin), counted + others)


def _state_dict(container: Any, origin: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The one dict of tensors, and the names of what lies beside it."""
    if not isinstance(container, Mapping) or any(isinstance(value, Tensor) for value in container.values()):
        return only_tensors(container, origin), ()
    holders = {key: value for key, value in container.items() if key not in _NO_NETWORK and _holds_tensors(value)}
    chosen = next((key for key in _STATE_KEYS if key in holders), None)
    if holders.keys() & {"student", "teacher"}:
        chosen = _dino_branch(holders)
    if chosen is None:
        found = ", ".join(shown(str(key)) for key in list(container)[:6]) or "nothing"
        raise BadCheckpoint(f"{origin} has no 'state_dict' of tensors (found {found})")
    if extra := holders.keys() - {chosen, "student", "teacher"}:
        raise BadCheckpoint(f"{origin} has more than one set of weights: {chosen}, {', '.join(map(str, extra))}")
    beside = [key for key, value in container.items() if key != chosen and isinstance(value, Mapping)]
    return only_tensors(holders[chosen], origin), tuple(shown(str(key)) for key in beside)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values())


def _dino_branch(holders: Mapping[str, Mapping[str, Tensor]]) -> str:
    def shapes(branch: str) -> dict[str, Any]:
        names = {str(key).removeprefix("module."): value for key, value in holders.get(branch, {}).items()}
        return {key: getattr(value, "shape", None) for key, value in names.items() if not key.startswith("head.")}

    twins = "student" not in holders or shapes("teacher") == shapes("student")
    return "teacher" if "teacher" in holders and twins else "student"


def only_tensors(state: Any, origin: str) -> dict[str, Tensor]:
    """The state dict, once it is known to be one.

    Raises:
        BadCheckpoint: it is something else, or holds something else.
    """
    if not isinstance(state, Mapping):
        raise BadCheckpoint(f"{origin} has no 'state_dict' of tensors: it holds a {type(state).__name__}")
    faults = [str(key) for key, value in state.items() if not (_is_name(key) and isinstance(value, Tensor))]
    if faults:
        raise BadCheckpoint(f"{origin} has entries in its state dict that are no named tensors: {listed(faults)}")
    plain = {key.replace(_COMPILED, ""): value.detach() for key, value in state.items()}
    if len(plain) != len(state):
        raise BadCheckpoint(f"{origin} holds tensors with and without '{_COMPILED}' in their names: which are meant?")
    return plain


def _is_name(key: Any) -> bool:
    """Names go into messages of one line; a module path is short and printable."""
    return isinstance(key, str) and key.isprintable() and 0 < len(key) < 200


def _refuse_tensorflow(state: Mapping[str, Tensor], origin: str) -> None:
    if any(_TENSORFLOW.match(key) for key in state):
        raise BadCheckpoint(
            f"{origin} is a SimCLR ResNet converted from TensorFlow (names conv2d_N), the ResNet-50 of fourfold width "
            "that CompRess uses: no network here computes it, so it cannot be used"
        )


def _layout_of(state: Mapping[str, Tensor], container: Mapping[str, Any], origin: str) -> Layout:
    def has(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in state)

    if has(_Q):
        return _query_layout(state)
    if has(_STUDENT):
        return Layout("seed", _STUDENT, ("module.teacher.", *_QUEUE, "module.small_queue"))
    if has("module.base_encoder."):
        return Layout(
            "moco_v3", "module.base_encoder.", ("module.momentum_encoder.", "module.predictor."), has_head=False
        )
    if has("convnet."):
        return Layout("simclr", "convnet.", head="projection.")
    if has("module.module.module."):
        return Layout("simclr_seed", "module.module.module.")
    wrapper = "module." if state and all(key.startswith("module.") for key in state) else ""
    if has(f"{wrapper}backbone."):
        return Layout("dino", f"{wrapper}backbone.", (f"{wrapper}head.",), has_head=False)
    if has(f"{wrapper}prototypes.") or (wrapper and has("module.projection_head.")):
        return Layout("swav", wrapper, (f"{wrapper}prototypes.",))
    if wrapper and "opt" in container and container.get("model") is not None:
        return Layout("compress", wrapper)
    if naming_of(key.removeprefix(wrapper) for key in state) is None:
        begins = sorted({key.split(".")[0] for key in state})
        raise BadCheckpoint(
            f"{origin} is in no layout that is known, and no network of the zoo has such tensors: no name starts with "
            f"'{_Q}', '{_STUDENT}' or a layer of one; found {listed(begins)}"
        )
    # Our own files of teachers keep the head under a name that no classifier has, and the queue beside it.
    ours = has("projection_head.")
    return Layout("plain", wrapper, has_head=ours, own_queue=ours)


def _query_layout(state: Mapping[str, Tensor]) -> Layout:
    """DisCo, MoCo, ssl-small, BINGO and older files of SEED all call their encoders q and k.

    With DisCo, k is the moving average of q and the teachers have names of their own; with MoCo and ssl-small, k is
    the moving average of q; with BINGO and SEED, k is the teacher. ssl-small, BINGO and SEED build their
    EfficientNets and MobileNets with other code than MoCo and DisCo, and have heads of other widths.
    """
    teachers = ("module.teacher_encoder_q.", "module.teacher_encoder_k.")
    if any(key.startswith(teachers) for key in state):
        return Layout("disco", _Q, (_K, *teachers, *_QUEUE), own_queue=True)
    if any(key.startswith(_STUDENT) for key in state):  # left over from the SEED file that it started from
        # So is its queue: a training of ssl-small that writes a file of its own leaves none of those tensors.
        return Layout("ssl_small", _Q, (_K, _STUDENT, "module.teacher.", *_QUEUE, "module.small_queue"))
    query = _backbone_shapes(state, _Q)
    twin = _backbone_shapes(state, _K)
    naming = naming_of(query)
    k_is_teacher = bool(twin) and twin != query
    if not k_is_teacher and (naming is None or not naming.title.startswith(("efficientnet_pytorch", "SEED"))):
        return Layout("moco", _Q, (_K, *_QUEUE), own_queue=True)
    if twin and not k_is_teacher:
        return Layout("ssl_small", _Q, (_K, *_QUEUE), own_queue=True)
    hidden = state.get(f"{_Q}fc.0.weight")
    seed = hidden is not None and hidden.dim() == 2 and hidden.shape[0] == hidden.shape[1]
    return Layout("seed" if seed else "bingo", _Q, (_K, *_QUEUE, "module.small_queue"))


def _backbone_shapes(state: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes below `prefix`, without what has the name of a head: teacher and student share its widths."""
    inside = ((key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix))
    heads = ("fc.", "classifier.", "projection_head.", "head.")
    return {key: tuple(value.shape) for key, value in inside if not key.startswith(heads)}


def _ring(found: Mapping[str, Tensor], origin: str) -> tuple[Tensor | None, int]:
    """Rows of the file's queue, which has a column for each embedding, and the position where it goes on."""
    queue, pointer = (found.get(name) for name in OWN_QUEUE)
    if queue is None:
        return None, 0
    if queue.dim() != 2 or not queue.is_floating_point():
        raise BadCheckpoint(f"{origin}: its queue has the shape {tuple(queue.shape)}, not (D, K)")
    position = 0 if pointer is None or pointer.numel() != 1 else int(pointer)
    return queue.T, position if 0 <= position < queue.shape[1] else 0
