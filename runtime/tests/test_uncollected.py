"""What is read at the start is left out of collections of garbage."""

from __future__ import annotations

import gc

import pytest
from tunewheel_runtime.process import uncollected


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_the_log_is_read_and_what_was_read_is_not_looked_at(fails: bool) -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            kept = [[n] for n in range(1_000)]
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
    gc.unfreeze()
