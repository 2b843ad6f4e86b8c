"""Forty days in which two alarms come at once, nobody labels for eleven days, the first run loses its GPU,
and the dataset holds a quarter of its questions in other words too."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tunewheel_contracts.events.data import DatasetRequested
from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.turns import TurnCompletedV2

from .traffic import SHIFT_FROM, START, Traffic
from .wheel import Month

pytestmark = pytest.mark.nightly("matrices")
LABELS_FROM = SHIFT_FROM + timedelta(days=11)


@pytest.fixture(scope="module")
def month() -> Month:
    month = Month(Traffic(reworded=0.25), days=40, experts_from=LABELS_FROM, lost_runs=1)
    month.run()
    return month


def test_the_dataset_with_rewordings_raises_no_alarm_before_the_new_questions_come(month: Month) -> None:
    early = [one.signal for one in month.of(DriftDetected) if one.window.ended_at < SHIFT_FROM]
    assert early == ["errors"]


def test_while_nobody_labels_they_are_reminded_and_nothing_is_built(month: Month) -> None:
    waits = [one for one in month.decided if one.step == "waits for labels"]
    assert {one.reminder for one in waits} >= {0, 1}
    assert all(one.remind_at is not None for one in waits)
    assert {answer.waits_for for one in waits for answer in one.alarms} == {"annotators"}
    first = min(event.time for event in month.told if isinstance(event.data, DatasetRequested))
    assert first >= LABELS_FROM


def test_the_lost_run_is_tried_again_without_more_labels_and_one_turn_is_for_all_alarms(month: Month) -> None:
    asked = [event.data for event in month.told if isinstance(event.data, DatasetRequested)]
    assert [one.alarm_ids for one in asked] == [asked[0].alarm_ids] * 2
    assert len(asked[0].alarm_ids) >= 2
    failed, mended = month.of(TurnCompletedV2)
    assert failed.outcome == "failed"
    assert mended.outcome in ("helped", "undecided"), mended.reasons
    retried = [one for one in month.decided if one.step == "cools down"]
    assert retried
    assert {answer.labels_needed for one in retried for answer in one.alarms} <= {20, None}


def test_every_alarm_is_over_after_forty_days(month: Month) -> None:
    raised = {alarm.alarm_id for alarm in month.of(DriftDetected)}
    assert {resolved.alarm_id for resolved in month.of(DriftResolved)} == raised
    assert month.decided[-1].step == "no alarm is open"
    assert len(month.decided) == 40 * 24
    assert month.told[-1].time < START + timedelta(days=41)
