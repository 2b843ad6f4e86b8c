from __future__ import annotations

from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.job import Progress
from tunewheel_eval.measured import Measured
from tunewheel_runtime.telemetry import make_telemetry


def test_items_are_counted_once_also_where_processes_take_turns() -> None:
    measured = Measured(make_telemetry("eval", None).meter)

    def saw(done: int, evaluation: str = "one") -> int:
        progress = Progress(role=Role.CANDIDATE, done=done, total=9, seconds=1.0)
        measured.saw(progress, evaluation)
        return measured.value("items.measured", of="candidate")

    assert [saw(2), saw(5), saw(3), saw(6)] == [2, 5, 5, 6], "one that died began before where it ended"
    assert saw(4, "other") == 10
    measured.over("one")
    assert saw(1) == 11
