"""A scorecard at the terminal."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tunewheel_contracts.formats.scorecard import Finding, Scorecard

from tunewheel_cli.evaluations import Judged

_COLOURS = {"met": "green", "missed": "red", "undecided": "yellow"}


def print_scorecard(judged: Judged, console: Console | None = None) -> None:
    """Print what was decided, each criterion with its interval, and the differences that criteria name."""
    console = console or Console(highlight=False)
    card, plan = judged.scorecard, judged.plan
    champion = plan.champion.adapter.model_id if plan.champion else "no champion"
    names = (card.model_id, card.project, champion)
    console.print("{} of {}, against {} and the base".format(*map(escape, names)))
    if plan.informs is not None:
        console.print(plan.informs)
    if card.reason:
        console.print(f"[red]not measured: {escape(card.field or '')} {escape(card.reason)}[/]")
    for check in card.checks:
        outcome = check.outcome or ("met" if check.passed else "missed")
        console.print(f"  [{_COLOURS.get(outcome, 'white')}]{outcome:9}[/] {escape(check.reason)}")
    named = {check.criterion.metric for check in card.checks}
    findings = [finding for finding in card.findings if finding.metric in named]
    if findings:
        console.print(_table(findings))
    if (told := _repeats(card, named)) is not None:
        console.print(told)
    for reason, count in card.left_out.items():
        console.print(f"left out: {count} rows, {escape(reason)}")
    if card.looks is not None:
        console.print(f"look {card.looks} of 10 at these held-out rows")


def _repeats(card: Scorecard, named: Collection[str]) -> str | None:
    """Say how far two measurements of the candidate lie apart; None where nothing was measured."""
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
