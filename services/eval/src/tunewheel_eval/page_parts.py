"""Parts of a scorecard's page: tables and escaped texts, forest plots (one SVG picture per unit, no script),
and the part about passages."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from tunewheel_contracts.formats.retrieval_scores import CellScores, RetrievalScores
from tunewheel_contracts.formats.scorecard import Finding, MetricFacts, Role, Scorecard

MOST_CHARACTERS = 4_000
"""The most characters of one text. The whole text is in the generations beside the scorecard."""
_KEPT = frozenset("\n\t")


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, tone: int | None = None) -> str:
    """Return a table. ``tone``: the column whose values are also used as style classes."""
    parts = ["<table><tr>", *(f"<th>{as_text(name)}</th>" for name in head), "</tr>"]
    for line in lines:
        parts.append("<tr>")
        for column, cell in enumerate(line):
            shown = f' class="{as_text(cell)}"' if column == tone else ""
            parts.append(f"<td{shown}>{as_text(cell)}</td>")
        parts.append("</tr>")
    return "".join([*parts, "</table>"])


def cut(text: str) -> str:
    """Return the beginning of ``text``, escaped, and how many characters were cut."""
    more = len(text) - MOST_CHARACTERS
    return as_text(text) if more <= 0 else f"{as_text(text[:MOST_CHARACTERS])}… and {more:,} more characters"


def as_text(text: str) -> str:
    """Return ``text`` escaped, with invisible characters replaced by their code."""
    plain = "".join(
        letter if letter in _KEPT or _shows(letter) else f"\\u{ord(letter):04x}" for letter in text
    )
    return escape(plain, quote=True)


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shows(letter: str) -> bool:
    """Return whether a character is visible: no control character, no format character (such as those that
    change the direction of writing), and no half of a surrogate pair."""
    return letter == "\u200d" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")


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
        criterion, name = check.criterion, check.criterion.metric
        if criterion.by_label:
            continue
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
    finding: Finding, y: int, place: Callable[[float], float], bound: float | None, facts: MetricFacts | None
) -> list[str]:
    better = finding.low > 0 if facts is None or not facts.lower_is_better else finding.high < 0
    worse = finding.high < 0 if facts is None or not facts.lower_is_better else finding.low > 0
    tone = "better" if better else "worse" if worse else "open"
    figures = f"{finding.difference:+.3g} [{finding.low:+.3g}, {finding.high:+.3g}]"
    low, high, middle = place(finding.low), place(finding.high), place(finding.difference)
    parts = [
        f'<g class="{tone}">',
        f'<text x="0" y="{y + 4}">{escape(finding.metric)} against the {escape(finding.against)}</text>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="4"/>',
        f'<text x="{_WIDTH}" y="{y + 4}" text-anchor="end">{figures}</text>',
    ]
    if bound is not None:
        x = place(bound)
        parts.append(f'<line class="asked" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{y + 9}"/>')
    return [*parts, "</g>"]


def retrieval_part(scores: RetrievalScores | None) -> Iterable[str]:
    """Yield the quality of search, the four cells, and whether the plan's advice was right."""
    if scores is None:
        return
    judged = "with passages" if scores.with_passages else "without passages"
    yield f"<h2>Passages</h2><p>Of the index {as_text(scores.index_id)}. Judged were answers {judged}."
    if scores.reason is not None:
        yield f" The cells were not compared: {as_text(scores.reason)}."
    yield "</p>"
    if (ranking := scores.ranking) is not None:
        yield f"<p>How often the index finds the document, of {ranking.questions} questions of which it is "
        yield f"known; k is {ranking.top_k}.</p>"
        lines = [
            (name, figure(value), f"{ranking.low[name]:.4g} to {ranking.high[name]:.4g}")
            for name, value in ranking.figures.items()
        ]
        yield table(("metric", "figure", "interval"), lines)
    if scores.cells:
        yield from _cells(scores)


def _cells(scores: RetrievalScores) -> Iterable[str]:
    yield f"<p>Base and tuned model, with passages and without, on the same {scores.rows} questions.</p>"
    names = list(dict.fromkeys(name for cell in scores.cells for name in cell.figures))
    lines = [(name, *(figure(cell.figures.get(name)) for cell in scores.cells)) for name in names]
    if (stale := scores.staleness) is not None:
        lines.append(("stale answers", *(figure(cell.stale) for cell in scores.cells)))
        lines.append(("answers by the new version", *(figure(cell.current) for cell in scores.cells)))
    yield table(("metric", *map(_title, scores.cells)), lines)
    if stale is not None:
        yield f"<p>{stale.documents} documents changed since the index {as_text(stale.before)}; they answer "
        yield f"{stale.questions} of these questions, and of {stale.telling} an answer can show by which "
        yield "version it was given. Stale: it holds a number, a name or an identifier that only the old "
        yield "passage holds.</p>"
    if scores.metric is not None:
        best = ", ".join(cell.value for cell in scores.best)
        yield f"<p>No cell is shown to be better than: {best}, by {as_text(scores.metric)}.</p>"
    if scores.advice is not None:
        yield f"<p>The advice {as_text(scores.advice.approach)}, which the spec follows, was "
        yield f"{scores.advice.outcome}: {as_text(scores.advice.reason)}.</p>"
    yield table(
        ("metric", "cell", "against", "difference", "interval", "p", "test", "sample"),
        [
            (one.metric, one.cell.value, one.against.value, f"{one.difference:+.4g}",
             f"{one.low:+.4g} to {one.high:+.4g}", f"{one.p_value:.3g}", one.test,
             f"{one.rows} rows, {one.clusters} independent")
            for one in scores.differences
        ],
    )  # fmt: skip


def _title(cell: CellScores) -> str:
    return cell.cell.value.replace("_", " ") + (" (serves)" if cell.serves else "")
