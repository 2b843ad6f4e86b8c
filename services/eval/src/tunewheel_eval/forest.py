"""Differences with their intervals, drawn as a forest plot: one SVG picture per unit, no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from tunewheel_contracts.formats.scorecard import Finding, MetricFacts, Role, Scorecard

_WIDTH, _LEFT, _RIGHT, _ROW = 860, 300, 150, 26


def forest_plots(scorecard: Scorecard) -> str:
    """Return a picture per unit, each with its own axis."""
    by_unit: dict[str, list[Finding]] = {}
    for finding in scorecard.findings:
        facts = scorecard.metrics.get(finding.metric)
        by_unit.setdefault(facts.unit if facts else "difference", []).append(finding)
    bounds = _bounds(scorecard)
    plots = [_plot(unit, found, scorecard.metrics, bounds) for unit, found in by_unit.items()]
    return "\n".join(plots)


def _bounds(scorecard: Scorecard) -> dict[tuple[str, str], float]:
    """What is asked of each difference, as candidate minus other."""
    found: dict[tuple[str, str], float] = {}
    for check in scorecard.checks:
        criterion, name = check.criterion, str(check.criterion.metric)
        facts = scorecard.metrics.get(name)
        sign = -1 if facts is not None and facts.lower_is_better else 1
        asked = ((Role.BASE, criterion.over_base), (Role.CHAMPION, criterion.over_champion))
        found |= {(name, role.value): sign * bound for role, bound in asked if bound is not None}
    return found


def _plot(
    unit: str,
    findings: Sequence[Finding],
    metrics: Mapping[str, MetricFacts],
    bounds: Mapping[tuple[str, str], float],
) -> str:
    asked = [bounds[key] for one in findings if (key := (one.metric, one.against)) in bounds]
    ends = [0.0, *asked, *(end for one in findings for end in (one.low, one.high, one.difference))]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return _LEFT + (value - low) / span * (_WIDTH - _LEFT - _RIGHT)

    height = _ROW * (len(findings) + 2)
    zero = place(0.0)
    parts = [
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" width="100%" xmlns="http://www.w3.org/2000/svg">',
        f"<title>Candidate minus other, in {escape(unit)}</title>",
        f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="8" y2="{height - _ROW}"/>',
        f'<text x="{zero:.1f}" y="{height - 10}" text-anchor="middle">0</text>',
        f'<text x="0" y="{height - 10}">candidate minus other, {escape(unit)}</text>',
    ]
    for number, one in enumerate(findings):
        y = 18 + _ROW * number
        parts += _row(one, y, place, bounds.get((one.metric, one.against)), metrics.get(one.metric))
    return "\n".join([*parts, "</svg>"])


def _row(
    finding: Finding,
    y: int,
    place: Callable[[float], float],
    bound: float | None,
    facts: MetricFacts | None,
) -> list[str]:
    better = finding.low > 0 if facts is None or not facts.lower_is_better else finding.high < 0
    worse = finding.high < 0 if facts is None or not facts.lower_is_better else finding.low > 0
    tone = "better" if better else "worse" if worse else "open"
    told = f"{finding.difference:+.3g} [{finding.low:+.3g}, {finding.high:+.3g}]"
    low, high, middle = place(finding.low), place(finding.high), place(finding.difference)
    parts = [
        f'<g class="{tone}">',
        f'<text x="0" y="{y + 4}">{escape(finding.metric)} against the {escape(finding.against)}</text>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="4"/>',
        f'<text x="{_WIDTH}" y="{y + 4}" text-anchor="end">{told}</text>',
    ]
    if bound is not None:
        x = place(bound)
        parts.append(f'<line class="asked" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{y + 9}"/>')
    return [*parts, "</g>"]
