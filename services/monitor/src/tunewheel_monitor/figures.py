"""Tells each detector's figures at the end of a window, long before an alarm: ``window.judged``.

The figures decide nothing. The state has bounded size: ``POINTS`` points of the past for each detector.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import log
from typing import Any

from tunewheel_contracts.events.monitoring import FigureSeries, WindowJudged

from tunewheel_monitor.detectors import Detector, Finding

State = dict[str, Any]
POINTS = 60
TOGETHER = timedelta(minutes=24)
"""Points are joined where two of them span no more. So 60 points of dense traffic show half a day or more,
and the latest windows one by one."""
TOLD_EVERY = timedelta(minutes=1)
"""Figures are told at most so often, by the times of the items, unless the detector's state changes."""
NEAR = 10.0
"""A p-value of at most so many times the threshold is near an alarm: a tenth of the evidence is there."""
TOLD = (
    "items",
    "statistic_name",
    "statistic",
    "usual",
    "effect",
    "effect_unit",
    "floor",
    "p_value",
    "threshold",
    "reference",
)
"""The fields of a finding that are told."""


def fresh() -> State:
    return {"windows": 0, "state": "", "told_at": "", "judged_at": "", "last": {}, "points": []}


def judge(
    figures: State,
    detector: Detector,
    finding: Finding | None,
    alarm_id: str | None,
    *,
    at: datetime,
    **where: Any,
) -> WindowJudged | None:
    """Take the finding of a window that ended, and return the figures to tell. None: they were told just now.
    ``finding`` None: the detector had nothing to measure, or still learns what is usual. ``where``: project,
    model, dataset version and slices."""
    figure = figures.setdefault(detector.name, fresh())
    figure["judged_at"] = at.isoformat()
    if finding is not None:
        _take(figure, finding, at)
    stood, figure["state"] = figure["state"], _state(finding, alarm_id)
    told_at = datetime.fromisoformat(figure["told_at"]) if figure["told_at"] else None
    if figure["state"] == stood and told_at is not None and abs(at - told_at) < TOLD_EVERY:
        return None
    figure["told_at"] = at.isoformat()
    return _told(figure, detector, alarm_id=alarm_id, **where)


def was_judged(figures: State, detector: str) -> bool:
    return bool(figures.get(detector, fresh())["judged_at"])


def rest(figures: State, detector: Detector, stands: str, **where: Any) -> WindowJudged | None:
    """Return what to tell of a detector that is ``off``, or ``silent`` because its alarm ended without a
    window. None: that was told, or nothing ever was."""
    if not was_judged(figures, detector.name) or figures[detector.name]["state"] == stands:
        return None
    figures[detector.name]["state"] = stands
    return _told(figures[detector.name], detector, **where)


def measured(figures: State) -> dict[str, tuple[float, float]]:
    """Return, by detector, the share of the evidence for an alarm that there is, on the scale of its
    logarithm (0 none, 1 enough), and the effect. Detectors that are off or have measured nothing are left
    out."""
    return {
        name: (max(0.0, min(1.0, log(last["p_value"]) / log(last["threshold"]))), last["effect"])
        for name, figure in figures.items()
        if (last := figure["last"]) and figure["state"] != "off"
    }


def _state(finding: Finding | None, alarm_id: str | None) -> str:
    if alarm_id is not None:
        return "alarm"
    if finding is None:
        return "silent"
    return "near" if finding.p_value <= NEAR * finding.threshold else "calm"


def _take(figure: State, finding: Finding, at: datetime) -> None:
    figure["windows"] += 1
    told = {name: getattr(finding, name) for name in TOLD}
    last = {name: _short(value) if isinstance(value, float) else value for name, value in told.items()}
    figure["last"], points = last, figure["points"]
    ended = max(at.timestamp(), points[-1][0]) if points else at.timestamp()
    point = [round(ended, 3), last["items"], last["statistic"], last["effect"], last["p_value"]]
    figure["points"] = _joined([*points, point])


def _joined(points: list[list[float]]) -> list[list[float]]:
    """Return at most ``POINTS`` of the points: two near ones are joined, or else the oldest is dropped."""
    if len(points) <= POINTS:
        return points
    for n in range(1, len(points) - 1):
        if points[n + 1][0] - points[n - 1][0] <= TOGETHER.total_seconds():
            before, after = points[n], points[n + 1]
            joined = [after[0], before[1] + after[1], after[2], after[3], min(before[4], after[4])]
            return [*points[:n], joined, *points[n + 2 :]]
    return points[1:]


def _told(figure: State, detector: Detector, *, project: str, **where: Any) -> WindowJudged:
    ended, items, statistics, effects, p_values = list(zip(*figure["points"], strict=True)) or [()] * 5
    return WindowJudged(
        project=project,
        figure_id=f"{project}/{detector.name}",
        detector=detector.name,
        family=detector.family,
        state=figure["state"],
        windows=figure["windows"],
        judged_at=datetime.fromisoformat(figure["judged_at"]),
        **figure["last"],
        series=FigureSeries(
            ended_at=tuple(datetime.fromtimestamp(seconds, UTC) for seconds in ended),
            items=items,
            statistic=statistics,
            effect=effects,
            p_value=p_values,
        ),
        **where,
    )


def _short(number: float) -> float:
    """Return ``number`` with four significant digits."""
    return float(f"{number:.4g}")
