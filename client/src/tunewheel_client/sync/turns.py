# Generated from aio/turns.py by scripts/client_sync.py; change that file instead.
"""Turns of the wheel, and the alarms that begin some of them."""

from __future__ import annotations

import time
from typing import Unpack

from tunewheel_contracts.api.alarms import AlarmDetail, AlarmSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.turns import TurnDetail, TurnSummary
from tunewheel_contracts.events.monitoring import WindowJudged

from tunewheel_client.errors import Away
from tunewheel_client.sync.resource import Paging, Resource

LATEST = "latest"


class Turns(Resource):
    """The turns of a project."""

    def list(self, project: str, *, state: str | None = None, **paging: Unpack[Paging]) -> Page[TurnSummary]:
        """Return a page of turns, newest first; of those in ``state`` where one is named."""
        return self._read(Page[TurnSummary], project, "turns", state=state, **paging)

    def show(self, project: str, turn_id: str = LATEST) -> TurnDetail:
        """Return how far a turn came, and what it led to."""
        return self._read(TurnDetail, project, "turns", turn_id)

    def wait(
        self,
        project: str,
        turn_id: str = LATEST,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 5.0,
    ) -> TurnDetail:
        """Wait until a turn has ended, and return it. ``latest`` is the turn that is the latest one now.

        Raises:
            Away: the turn goes on after ``timeout_seconds``, or the wheel does not answer.
        """
        ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        turn = self.show(project, turn_id)
        while turn.state != "ended":
            if ends is not None and time.monotonic() + poll_seconds > ends:
                raise Away(f"turn {turn.turn_id} of {project} goes on: {turn.stage_in_words or turn.stage}")
            time.sleep(poll_seconds)
            turn = self.show(project, turn.turn_id)
        return turn


class Alarms(Resource):
    """The alarms of a project: production differs from the training data."""

    def list(self, project: str, *, state: str | None = None, **paging: Unpack[Paging]) -> Page[AlarmSummary]:
        """Return a page of alarms, newest first; of those in ``state`` (open, resolved) where one is
        named."""
        return self._read(Page[AlarmSummary], project, "alarms", state=state, **paging)

    def show(self, project: str, alarm_id: str) -> AlarmDetail:
        """Return an alarm with its figures and the questions behind it."""
        return self._read(AlarmDetail, project, "alarms", alarm_id)


class Detectors(Resource):
    """The detectors of a project: what they measure, before and besides alarms."""

    def list(self, project: str, **paging: Unpack[Paging]) -> Page[WindowJudged]:
        """Return the newest figures of each detector, that judged last first."""
        return self._read(Page[WindowJudged], project, "detectors", **paging)
