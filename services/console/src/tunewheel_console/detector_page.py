"""A page that shows what each detector of a project measures now, with its past as a curve."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_console.state import ConsoleState

COLOURS = {"alarm": "negative", "near": "warning", "calm": "positive", "silent": "grey-5", "off": "grey-6"}
"""By state, in the order in which detectors are drawn."""


async def watched(state: ConsoleState, name: str, caller: Caller) -> list[WindowJudged]:
    """Return the figures of a project's detectors, those with an alarm first, and then the nearest ones."""
    if not caller.may(Role.VIEWER, name):
        return []
    await state.projects.open(name)  # at once, it would keep other requests waiting
    project = state.projects.get(name)
    return sorted(state.detectors_of(project), key=_urgency) if project else []


def _urgency(one: WindowJudged) -> tuple[int, float, str]:
    place = [*COLOURS, one.state].index(one.state)
    return place, 1.0 if one.p_value is None else one.p_value / (one.threshold or 1.0), one.detector


def draw_detectors(found: list[WindowJudged], root: str) -> None:
    if not found:
        ui.label("No window of this project was judged yet.")
    with ui.grid().classes("w-full gap-4 grid-cols-1 lg:grid-cols-3"):
        for one in found:
            with ui.card().classes("w-full gap-1").mark(f"detector-{one.detector}"):
                _draw(one)


def _draw(one: WindowJudged) -> None:
    with ui.row().classes("w-full items-center"):
        ui.label(one.detector).classes("text-subtitle1").props("role=heading aria-level=2")
        ui.badge(one.state, color=COLOURS.get(one.state))
        ui.label(f"{one.judged_at:%Y-%m-%d %H:%M:%S} UTC").classes("text-caption text-grey")
    for line in in_words(one):
        ui.label(line).classes("text-caption")
    if one.series.effect:
        ui.echart(curve(one)).classes("w-full h-32").mark(f"curve-{one.detector}")


def in_words(one: WindowJudged) -> list[str]:
    """Return the figures in words, and the slices of each property."""
    if one.statistic is None:
        return ["It has measured nothing yet, or still learns what is usual."]
    usual = "" if one.usual is None else f", usually {one.usual:.3g}"
    between = "" if one.low is None or one.high is None else f" ({one.low:.3g} to {one.high:.3g})"
    parts = {
        by: ", ".join(f"{of.value} {of.share:.1%} of {of.items:.0f}" for of in one.slices if of.by == by)
        for by in dict.fromkeys(of.by for of in one.slices)
    }
    return [
        f"{one.statistic_name}: {one.statistic:.3g}{between}{usual}, by {one.reference}",
        f"{one.effect_unit}: {one.effect:.3g}; worth an alarm from {one.floor:.3g} on",
        f"p = {one.p_value:.2g}; sure from {one.threshold:.2g} on; {one.items} items in the window",
        *(f"by {by}: {told}" for by, told in parts.items()),
    ]


def curve(one: WindowJudged) -> dict[str, Any]:
    """Return the ECharts options of the effect over time, with a line at the floor."""
    points = zip(one.series.ended_at, one.series.effect, strict=True)
    line = {
        "type": "line",
        "name": one.effect_unit,
        "showSymbol": len(one.series.effect) == 1,
        "data": [[f"{at:%Y-%m-%dT%H:%M:%SZ}", effect] for at, effect in points],
        "markLine": {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "data": [{"yAxis": one.floor}],
        },
    }
    return {
        "animation": False,
        "grid": {"left": 48, "right": 8, "top": 8, "bottom": 24},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "time"},
        "yAxis": {"type": "value", "splitNumber": 2},
        "series": [line],
    }
