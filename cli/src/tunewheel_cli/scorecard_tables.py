"""Prints a scorecard on the terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores
from tunewheel_contracts.formats.scorecard import Finding, Role, Scorecard, Slice

if TYPE_CHECKING:
    from tunewheel_contracts.api.evaluations import EvaluationDetail

_COLOURS = {"met": "green", "missed": "red", "undecided": "yellow"}


def print_evaluation(found: EvaluationDetail, console: Console | None = None) -> None:
    """Print the verdict, each criterion with its interval, and the differences that the criteria name."""
    console = console or Console(highlight=False)
    names = (found.model_id, found.project, found.against or "no champion")
    console.print("{} of {}, against {} and the base".format(*map(escape, names)))
    if found.informs is not None:
        console.print(escape(found.informs))
    if (card := found.scorecard) is not None:
        _print_scorecard(card, console)
    elif found.withheld:
        console.print("the figures are withheld until the open review of answers has ended")
    else:
        console.print(f"{found.outcome}: {escape('; '.join(found.reasons) or 'no scorecard is left')}")


def _print_scorecard(card: Scorecard, console: Console) -> None:
    if card.reason:
        console.print(f"[red]not measured: {escape(card.field or '')} {escape(card.reason)}[/]")
    for check in card.checks:
        outcome = check.end
        console.print(f"  [{_COLOURS.get(outcome, 'white')}]{outcome:9}[/] {escape(check.reason)}")
    named = {check.criterion.metric for check in card.checks}
    findings = [finding for finding in card.findings if finding.metric in named]
    if findings:
        console.print(_table(findings))
    for one in card.slices:
        if one.low is not None and one.high is not None and (one.high < 0 or one.by == "label"):
            console.print(f"  {_slice(one)}")
    if (repeats := _repeats(card, named)) is not None:
        console.print(repeats)
    figures = next((one.metrics for one in card.contestants if one.role is Role.CANDIDATE), {})
    for one in card.rivals:
        console.print(escape(one.against({name: figures[name] for name in figures if name in named})))
    if card.retrieval is not None:
        _print_retrieval(card.retrieval, console)
    if card.unvalidated:
        console.print(f"[yellow]no expert validated {card.unvalidated} of the held-out answers[/]")
    for reason, count in card.left_out.items():
        console.print(f"left out: {count} rows, {escape(reason)}")
    if card.looks is not None:
        console.print(f"look {card.looks} at these held-out rows")


def _slice(one: Slice) -> str:
    """Return a part of the rows in words."""
    figures = ", ".join(f"{role} {value:.2f}" for role, value in one.figures.items())
    part = f"{one.by} {one.value} ({one.rows} rows)"
    return escape(f"{one.metric}, {part}: {figures}; {one.low:+.2f} to {one.high:+.2f} against the champion")


def _print_retrieval(scores: RetrievalScores, console: Console) -> None:
    """Print the ranking metrics, the four cells with the metric that compares them, and the advice."""
    if (ranking := scores.ranking) is not None:
        figures = ", ".join(
            f"{name} {value:.3g} ({ranking.low[name]:.3g} to {ranking.high[name]:.3g})"
            for name, value in ranking.figures.items()
        )
        rows = f"{ranking.questions} questions whose document is known"
        console.print(f"{escape(scores.index_id)}, k {ranking.top_k}, {rows}: {figures}")
    if scores.reason is not None:
        console.print(f"not compared with passages and without: {escape(scores.reason)}")
    if scores.metric is not None:
        console.print(_cells(scores, scores.metric))
    if scores.advice is not None:
        advice = scores.advice
        console.print(f"advice {advice.approach}: {advice.outcome}, {escape(advice.reason)}")


def _cells(scores: RetrievalScores, metric: str) -> Table:
    shown = [metric, *(name for name in ("groundedness",) if name != metric)]
    table = Table("cell", *map(escape, shown), "stale", "", title=f"{scores.rows} questions", box=None)
    for one in scores.cells:
        figures = [one.figures.get(name) for name in shown]
        notes = ["serves"] * one.serves + ["best"] * (one.cell in scores.best)
        table.add_row(one.cell.value, *map(_figure, figures), _figure(one.stale), ", ".join(notes))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _repeats(card: Scorecard, named: Collection[str]) -> str | None:
    """Return how far two measurements of the candidate differ, as text; None if nothing was measured."""
    if card.bundle is None:
        return None
    if card.bundle.decoding.temperature == 0:
        return "greedy: repeats do not differ"
    spreads = [
        f"{name} {facts.repeat_spread:.3g}"
        for name, facts in card.metrics.items()
        if name in named and facts.repeat_spread is not None
    ]
    return "repeats by other seeds differ by: " + (", ".join(spreads) or "not measured")


def _table(findings: list[Finding]) -> Table:
    table = Table("metric", "against", "difference", "interval", "p", "rows", "independent", box=None)
    for one in findings:
        interval = f"{one.low:+.3g} … {one.high:+.3g}"
        table.add_row(
            escape(one.metric), escape(one.against), f"{one.difference:+.3g}", interval, f"{one.p_value:.2g}",
            str(one.rows), str(one.clusters),
        )  # fmt: skip
    return table
