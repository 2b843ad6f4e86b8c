"""A detector of a new property brings its own measure: no other file changes."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_monitor import scoring
from tunewheel_monitor.detectors import DETECTORS, measures_of
from tunewheel_monitor.detectors.rates import Rise

from ..conftest import bike_texts
from .conftest import alarms, opening, windows


class Silence(Rise):
    name, weight, floor, action, unit = "silence", 0.25, 0.1, "investigate", "share of empty answers"

    def measure(self, data: Any) -> float | None:
        return float(len(data.output.strip())) if data.finish_reason != "tool_calls" else None

    def bad(self, state: Any, item: InferenceScored) -> bool | None:
        characters = item.measures.get(self.name)
        return None if characters is None else not characters


async def scored(desk: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> InferenceScored:
    monkeypatch.setattr(scoring, "MEASURES", measures_of([*DETECTORS, Silence()]))
    (event,) = await desk.scorer.completions([desk.traffic.completion(bike_texts(1)[0], **changes)])
    return event.data


@pytest.mark.parametrize(
    ("changes", "measures"),
    [
        ({"output": " "}, {"silence": 0.0}),
        ({"output": "Ring it."}, {"silence": 8.0}),
        ({"output": "", "finish_reason": "tool_calls"}, {}),
        ({"output": "sha256:1", "texts": "hashed"}, {}),
        ({"output": "", "error": "timeout"}, {}),
    ],
)
async def test_a_measure_is_taken_of_readable_answers_and_read_back(
    desk: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], measures: dict[str, float]
) -> None:
    await desk.promote("desk-1", "ds-1", bike_texts(200))
    item = await scored(desk, monkeypatch, **changes)
    assert item.measures == measures
    assert ("measures" in item.model_dump()) == bool(measures), "scores of today stay as they are"
    assert decode_data(InferenceScored, item.model_dump_json().encode()) == item


async def test_its_detector_raises_an_alarm(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.promote("desk-1", "ds-1", bike_texts(200))
    said, empty = [await scored(desk, monkeypatch, output=text) for text in ("Ring it.", "")]
    detector = Silence()
    state = detector.open(opening())
    assert alarms(windows(detector, state, [said] * 600)) == []
    assert alarms(windows(detector, state, [said, empty] * 200)) != []
