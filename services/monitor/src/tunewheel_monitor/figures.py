"""Tells each detector's figures at the end of a window, long before an alarm: ``window.judged``.

The figures decide nothing. The state has bounded size: ``POINTS`` points of the past for each detector.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import log
from typing import Any

from tunewheel_contracts.events.monitoring import FigureSeries, WindowJudged

from tunewheel_monitor import slices
from tunewheel_monitor.alarms import Said
from tunewheel_monitor.detectors import Detector, Finding
from tunewheel_monitor.state import ProjectState, Version

POINTS = 60
TOGETHER = timedelta(minutes=24)
"""Points are joined where two of them span no more. So 60 points of dense traffic show half a day or more,
and the latest windows one by one."""
TOLD_EVERY = timedelta(minutes=1)
"""Figures are told at most so often, by the times of the items, unless the detector's state changes."""
NEAR = 10.0
"""A p-value of at most so many times the threshold is near an alarm: a tenth of the evidence is there."""
TOLD = WindowJudged.model_fields.keys() & Finding.__dataclass_fields__.keys() - {"detector"}
COLUMNS = tuple(FigureSeries.model_fields)


def tell(
    state: ProjectState,
    version: Version,
    detector: Detector,
    *,
    project: str,
    at: datetime,
    finding: Finding | None = None,
    stands: str = "silent",
) -> list[Said]:
    """Take the finding of a window that ended, and return the event to publish. ``stands``: the detector's
    state if there is neither a finding nor an alarm."""
    figure = state.figures.setdefault(detector.name, {"windows": 0, "state": "", "last": {}, "points": []})
    alarm = state.alarms.get(detector.name)
    if alarm is not None:
        stands = "alarm"
    elif finding is not None:
        stands = "near" if finding.p_value <= NEAR * finding.threshold else "calm"
    if finding is not None:
        _take(figure, finding, at)
    stood, figure["state"] = figure["state"], stands
    if stands == stood and (
        finding is None or abs(at - datetime.fromisoformat(figure["told_at"])) < TOLD_EVERY
    ):
        return []
    figure["told_at"] = at.isoformat()
    told = WindowJudged(
        project=project,
        figure_id=f"{project}/{detector.name}",
        detector=detector.name,
        family=detector.family,
        model_id=version.model_id,
        dataset_id=version.dataset_id,
        state=stands,
        alarm_id=alarm.alarm_id if alarm else None,
        windows=figure["windows"],
        judged_at=at,
        **figure["last"],
        series=_series(figure["points"]),
        slices=slices.told(state.slices, detector),
    )
    return [Said(told)]


def evidence(figures: dict[str, Any]) -> dict[str, float]:
    """Return, by detector that is on, the share of the evidence for an alarm that there is, on the scale of
    its logarithm: 0 none, 1 enough."""
    return {
        name: max(0.0, min(1.0, log(last["p_value"]) / log(last["threshold"])))
        for name, figure in figures.items()
        if (last := figure["last"]) and figure["state"] != "off"
    }


def _take(figure: dict[str, Any], finding: Finding, at: datetime) -> None:
    figure["windows"] += 1
    told = {name: getattr(finding, name) for name in TOLD}
    last = {name: _short(value) if isinstance(value, float) else value for name, value in told.items()}
    figure["last"], points = last, figure["points"]
    ended = max(at.timestamp(), points[-1][0]) if points else at.timestamp()
    figure["points"] = _joined([*points, [round(ended, 3), *(last[name] for name in COLUMNS[1:])]])


def _joined(points: list[list[float]]) -> list[list[float]]:
    """Return at most ``POINTS`` of the points: two near ones are joined, or else the oldest is dropped."""
    if len(points) <= POINTS:
        return points
    for n in range(1, len(points) - 1):
        if points[n + 1][0] - points[n - 1][0] <= TOGETHER.total_seconds():
            before, (ended, items, *rest, p_value) = points[n : n + 2]
            joined = [ended, before[1] + items, *rest, min(before[-1], p_value)]
            return [*points[:n], joined, *points[n + 2 :]]
    return points[1:]


def _series(points: list[list[float]]) -> FigureSeries:
    columns: dict[str, Any] = dict(zip(COLUMNS, zip(*points, strict=True), strict=False))
    ended = tuple(datetime.fromtimestamp(seconds, UTC) for seconds in columns.pop("ended_at", ()))
    return FigureSeries(ended_at=ended, **columns)


def _short(number: float) -> float:
    """Return ``number`` with four significant digits."""
    return float(f"{number:.4g}")
