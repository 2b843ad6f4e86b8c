"""Prints a scorecard on the terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tunewheel_contracts.formats.retrieval_scores import RetrievalScores
from tunewheel_contracts.formats.scorecard import Role, Scorecard, Slice

from tunewheel_cli.texts import flat, print_table

if TYPE_CHECKING:
    from tunewheel_contracts.api.evaluations import EvaluationDetail


def print_evaluation(found: EvaluationDetail) -> None:
    """Print the verdict, each criterion with its interval, and the differences that the criteria name."""
    print(f"{found.model_id} of {found.project}, against {found.against or 'no champion'} and the base")
    if found.informs is not None:
        print(flat(found.informs))
    if (card := found.scorecard) is not None:
        _print_scorecard(card)
    elif found.withheld:
        print("the figures are withheld until the open review of answers has ended")
    else:
        print(f"{found.outcome}: {flat('; '.join(found.reasons)) or 'no scorecard is left'}")


def _print_scorecard(card: Scorecard) -> None:
    if card.reason:
        print(f"not measured: {flat(card.field)} {flat(card.reason)}")
    for check in card.checks:
        print(f"  {check.end:9} {flat(check.reason)}")
    named = {check.criterion.metric for check in card.checks}
    findings = [
        (
            one.metric, one.against, f"{one.difference:+.3g}", f"{one.low:+.3g} … {one.high:+.3g}",
            f"{one.p_value:.2g}", one.rows, one.clusters,
        )
        for one in card.findings
        if one.metric in named
    ]  # fmt: skip
    if findings:
        heads = ("metric", "against", "difference", "interval", "p", "rows", "independent")
        print_table(heads, findings)
    for one in card.slices:
        if one.low is not None and one.high is not None and (one.high < 0 or one.by == "label"):
            print(f"  {_slice(one)}")
    if (repeats := _repeats(card, named)) is not None:
        print(repeats)
    figures = next((one.metrics for one in card.contestants if one.role is Role.CANDIDATE), {})
    for one in card.rivals:
        print(flat(one.against({name: figures[name] for name in figures if name in named})))
    if card.retrieval is not None:
        _print_retrieval(card.retrieval)
    if card.unvalidated:
        print(f"no expert validated {card.unvalidated} of the held-out answers")
    for reason, count in card.left_out.items():
        print(f"left out: {count} rows, {flat(reason)}")
    if card.looks is not None:
        print(f"look {card.looks} at these held-out rows")


def _slice(one: Slice) -> str:
    """Return a part of the rows in words."""
    figures = ", ".join(f"{role} {value:.2f}" for role, value in one.figures.items())
    part = f"{one.by} {one.value} ({one.rows} rows)"
    return flat(f"{one.metric}, {part}: {figures}; {one.low:+.2f} to {one.high:+.2f} against the champion")


def _print_retrieval(scores: RetrievalScores) -> None:
    """Print the ranking metrics, the four cells with the metric that compares them, and the advice."""
    if (ranking := scores.ranking) is not None:
        figures = ", ".join(
            f"{name} {value:.3g} ({ranking.low[name]:.3g} to {ranking.high[name]:.3g})"
            for name, value in ranking.figures.items()
        )
        rows = f"{ranking.questions} questions whose document is known"
        print(f"{flat(scores.index_id)}, k {ranking.top_k}, {rows}: {figures}")
    if scores.reason is not None:
        print(f"not compared with passages and without: {flat(scores.reason)}")
    if scores.metric is not None:
        print(f"{scores.rows} questions")
        shown = [*dict.fromkeys((scores.metric, "groundedness"))]
        cells = [
            (
                one.cell.value, *(_figure(one.figures.get(name)) for name in shown), _figure(one.stale),
                ["serves"] * one.serves + ["best"] * (one.cell in scores.best),
            )
            for one in scores.cells
        ]  # fmt: skip
        print_table(("cell", *shown, "stale", ""), cells)
    if (advice := scores.advice) is not None:
        print(f"advice {advice.approach}: {advice.outcome}, {flat(advice.reason)}")


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
