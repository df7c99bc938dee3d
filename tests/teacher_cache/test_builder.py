"""How a build of a teacher cache ends."""

from __future__ import annotations

import pytest

from disco_zoo.core.console import StepProgress
from disco_zoo.data.unreadable import UnreadableTally
from disco_zoo.errors import Interrupted
from disco_zoo.teacher_cache.builder import _finish_turn, _Turn


@pytest.mark.parametrize("total", [8, 16])
def test_a_signal_stops_after_the_last_block_as_after_any_other(total: int) -> None:
    """A training may follow, which would otherwise go on to its end."""
    turn = _Turn(views=8)
    with pytest.raises(Interrupted, match=f"^stopped after 8 of {total} views; they are kept"):
        _finish_turn([turn.for_others(True)], turn, UnreadableTally(0), StepProgress("toy", total), "views")
    _finish_turn([turn.for_others(False)], turn, UnreadableTally(0), StepProgress("toy", total), "views")
