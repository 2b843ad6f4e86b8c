"""Whether an alarm is a new one, or reopens one that was over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_contracts.events.production import AlarmOpened, DriftCluster, DriftDetected, DriftWindow
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.alarms import CALM_WINDOWS, ENDED_KEPT, weigh
from tunewheel_monitor.detectors import DETECTORS, Finding
from tunewheel_monitor.state import ProjectState, Version

START = datetime(2026, 3, 2, tzinfo=UTC)
BY_NAME = {detector.name: detector for detector in DETECTORS}
EAST, EAST_TOO, NORTH = (1.0, 0.0), (0.99, 0.14), (0.0, 1.0)


@dataclass
class Desk:
    """A project whose detectors find what the test says."""

    state: ProjectState = field(default_factory=ProjectState)
    now: datetime = START

    def window(self, detector: str, drifted: bool, at: Sequence[float] = (), action: str = "") -> list[Any]:
        self.now += timedelta(hours=1)
        cluster = (
            DriftCluster(prompts=9, share=0.1, centroid=at, radius=0.1, completion_ids=("c-1",))
            if at
            else None
        )
        found = Finding(
            detector=detector, statistic_name="e", statistic=9.0, p_value=0.0 if drifted else 1.0,
            threshold=0.1, effect=0.2, effect_unit="share", usual=None, items=100, floor=0.02,
            reference="", cluster=cluster, completion_ids=("c-1",),
            action=action or ("collect_labels" if at else "retrain"),
        )  # fmt: skip
        times = dict.fromkeys(("started_at", "ended_at"), self.now)
        span = DriftWindow(
            first_completion_id="a", last_completion_id=f"{self.now}", completions=100, **times
        )
        version = Version("model-1", "ds-1", 1)
        return weigh(
            self.state, version, BY_NAME[detector], found,
            project="desk", window=span, drift=DriftSpec(), at=self.now,
        )  # fmt: skip

    def alarm(self, detector: str = "clusters", at: Sequence[float] = (), **told: Any) -> DriftDetected:
        """Raise an alarm and let it end."""
        said = [one.data for one in self.window(detector, True, at, **told)]
        for _ in range(CALM_WINDOWS):
            self.window(detector, False, at)
        (opened,) = (one for one in said if isinstance(one, AlarmOpened))
        (detected,) = (one for one in said if isinstance(one, DriftDetected))
        assert opened.reopens == detected.reopens
        return detected


def test_a_cluster_reopens_the_alarm_that_was_raised_where_it_lies_however_long_ago() -> None:
    desk = Desk()
    first, elsewhere = desk.alarm(at=EAST), desk.alarm(at=NORTH)
    assert (first.reopens, elsewhere.reopens) == (None, None)
    desk.now += timedelta(days=400)
    again = desk.alarm(at=EAST_TOO)
    assert again.reopens == first.alarm_id
    assert desk.alarm(at=EAST).reopens == again.alarm_id, "the latest of them"


@pytest.mark.parametrize(("days", "reopens"), [(1, True), (29, True), (31, False)])
def test_an_alarm_about_a_rate_reopens_the_detectors_last_one_of_the_month(days: int, reopens: bool) -> None:
    desk = Desk()
    first, _ = desk.alarm("format"), desk.alarm("refusals")
    desk.now += timedelta(days=days)
    assert desk.alarm("format").reopens == (first.alarm_id if reopens else None)


def test_new_questions_without_a_place_may_be_about_anything() -> None:
    desk = Desk()
    desk.alarm("novelty", action="collect_labels")
    assert desk.alarm("novelty", action="collect_labels").reopens is None


def test_what_ended_is_kept_by_checkpoints_and_of_bounded_size() -> None:
    desk = Desk()
    for _ in range(2 * ENDED_KEPT):
        last = desk.alarm(at=EAST)
    assert len(desk.state.ended["clusters"]) == ENDED_KEPT
    told = desk.state.as_json()
    desk.state = ProjectState.from_json(told)
    assert desk.alarm(at=EAST).reopens == last.alarm_id
    del told["ended"]
    assert ProjectState.from_json(told).ended == {}, "a checkpoint of an earlier release"
