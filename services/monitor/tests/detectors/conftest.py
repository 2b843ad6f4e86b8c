"""Scored answers and ratings by the hundred, and windows of them for one detector."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.detectors import Detector, Finding, Opening, State

START = datetime(2026, 1, 1, tzinfo=UTC)
COMMON: dict[str, Any] = {
    "project": "desk",
    "completion_id": "c",
    "scored": "c",
    "model_id": "desk-1",
    "role": RouteRole.PRODUCTION,
    "at": START,
}


def answer(**fields: Any) -> InferenceScored:
    return InferenceScored.model_construct(**(COMMON | fields))


def rating(thumb: str = "up", **fields: Any) -> InferenceScored:
    return answer(of="rating", rating=thumb, **fields)


def opening(**changes: Any) -> Opening:
    return Opening(drift=DriftSpec(), **changes)


def windows(
    detector: Detector, state: State, items: Iterable[InferenceScored], *, size: int = 100
) -> list[Finding]:
    """Return what the detector says at the end of each window. Between windows the state goes through JSON,
    as in a checkpoint."""
    found: list[Finding] = []
    for number, item in enumerate(items, 1):
        detector.see(state, item)
        if number % size == 0:
            written = json.loads(json.dumps(state))
            assert written == state
            finding = detector.look(state)
            found += [finding] if finding is not None else []
    return found


def alarms(found: Sequence[Finding]) -> list[int]:
    return [number for number, finding in enumerate(found) if finding.drifted]
