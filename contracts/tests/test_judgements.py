from __future__ import annotations

from datetime import UTC, datetime

from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordJudged
from tunewheel_contracts.judgements import NOBODY_JUDGED, Judged, Judgements


def judged(record_id: str, verdict: str, project: str = "shop"):
    told = {"project": project, "record_id": record_id, "verdict": verdict, "request": "r"}
    return new_event(RecordJudged.model_validate(told), source="/test", time=datetime(2026, 1, 1, tzinfo=UTC))


def test_the_latest_decision_about_a_record_counts_up_to_where_a_build_read() -> None:
    events = [judged("rec-a", "release"), judged("rec-b", "refuse"), judged("rec-a", "refuse"),
              judged("rec-c", "release", "other")]  # fmt: skip
    fold = Judgements()
    for offset, event in [*enumerate(events), *reversed(list(enumerate(events)))]:
        fold.apply(event, 0, offset)
    assert fold.upto("shop") == {"0": 3}
    assert fold.before("shop", {"0": 2}) == Judged(released=("rec-a",), refused=("rec-b",))
    assert fold.before("shop", {"0": 3}) == Judged(refused=("rec-a", "rec-b"))
    assert fold.before("shop", {}) == fold.before("nobody", {"0": 9}) == NOBODY_JUDGED
