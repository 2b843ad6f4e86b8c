"""Counts bad items by the answer's label, the question's language and the API key: where a change is. Slices
decide nothing.

The state has bounded size. By kind of item and property it holds, of each value, the number of items and, by
detector, the number of bad ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunewheel_contracts.events.monitoring import FigureSlice, InferenceScored

from tunewheel_monitor.detectors import Detector
from tunewheel_monitor.detectors.labels import LONGEST

State = dict[str, Any]
LATELY = 1_000.0
"""About so many recent items count; older ones fade."""
MOST_VALUES = 8
MOST_TOLD = 16
"""Of a property. A window holds more values until its end, and an event takes 48 slices."""
FEWEST_ITEMS = 5.0
"""The least number of items of a slice that is told."""
OTHER = "(other)"
PROPERTIES: Mapping[str, Callable[[InferenceScored], str | None]] = {
    "label": lambda item: item.label and item.label[:LONGEST],
    "language": lambda item: item.language,
    "key": lambda item: item.client,
}


def count(slices: State, item: InferenceScored, bad_to: Iterable[str]) -> None:
    """Count an item. ``bad_to``: the detectors that it is bad to."""
    of = slices.setdefault(item.of, {})
    for by, value_of in PROPERTIES.items():
        if (value := value_of(item)) is None:
            continue
        values = of.setdefault(by, {})
        if value not in values:
            value = value if len(values) <= 2 * MOST_VALUES else OTHER
            values.setdefault(value, [0, {}])
        values[value][0] += 1
        for detector in bad_to:
            values[value][1][detector] = values[value][1].get(detector, 0) + 1


def fade(slices: State, of: str) -> None:
    """Let older items fade at the end of a window, and forget the rarest values."""
    for by, values in slices.get(of, {}).items():
        kept = LATELY / max(LATELY, sum(items for items, _ in values.values()))
        most = sorted(values, key=lambda value: (-values[value][0], value))[:MOST_VALUES]
        slices[of][by] = {
            value: [round(kept * values[value][0], 3), _faded(values[value][1], kept)] for value in most
        }


def _faded(bad: Mapping[str, float], kept: float) -> dict[str, float]:
    return {detector: round(kept * count, 3) for detector, count in bad.items() if kept * count >= 0.01}


def told(slices: State, detector: Detector) -> tuple[FigureSlice, ...]:
    """Return the slices of a detector with enough items, of the properties that have more than one value.
    While nothing is bad, none are told."""
    of, name = "rating" if detector.family == "feedback" else "completion", detector.name
    return tuple(
        FigureSlice(by=by, value=value, items=round(items, 1), share=round(bad.get(name, 0) / items, 4))
        for by, values in slices.get(of, {}).items()
        if len(values) > 1 and any(name in bad for _, bad in values.values())
        for value, (items, bad) in sorted(values.items(), key=lambda one: (-one[1][0], one[0]))[:MOST_TOLD]
        if items >= FEWEST_ITEMS
    )
