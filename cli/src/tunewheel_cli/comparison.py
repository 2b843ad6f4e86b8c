"""Prints the differences between two models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN = 60


def print_comparison(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the registry's answer to ``GET …/models/{first}/comparison/{second}``."""
    console = console or Console(highlight=False)
    first, second = found["first"], found["second"]
    _print_metrics(console, found)
    dataset = found["dataset"]
    console.print(f"data: {_word(dataset['datasets'][0])} → {_word(dataset['datasets'][1])}")
    if dataset["records_added"] is not None:
        added, removed = dataset["records_added"], dataset["records_removed"]
        console.print(f"  {added} records are new, {removed} are gone from training")
    for title, changes in (
        ("examples by label", dataset["labels"]), ("counts", dataset["counts"]), ("recipe", found["recipe"]),
        ("criteria", found["criteria"]), ("what serves", found["bundle"]),
        ("rest of the spec", dataset["spec"]),
    ):  # fmt: skip
        if changes:
            rows = ((name, _word(one), _word(other)) for name, (one, other) in changes.items())
            console.print(_table(title, (first, second), rows))
    for name, reason in found["missing"].items():
        console.print(f"[red]{escape(name)} cannot be read: {escape(reason)}[/]")


def _print_metrics(console: Console, found: Mapping[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for name, figures in found["metrics"].items():
        spread = figures["repeat_spread"]
        rows.append(
            (
                name,
                _figure(figures["first"]),
                _figure(figures["second"]),
                "" if spread is None else f"± {spread:.3g}",
            )
        )
    heads = (found["first"], found["second"], "between two measurements of one model")
    console.print(_table("metrics", heads, rows))
    if not found["same_holdout"]:
        console.print("the figures are of different held-out rows: their difference says little")
    for finding in found["direct"]:
        console.print(
            f"  {finding['metric']}: {finding['difference']:+.3g} for the second, row by row "
            f"({finding['low']:+.3g} … {finding['high']:+.3g}, {finding['rows']} rows in "
            f"{finding['clusters']} groups)"
        )


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table("", *map(escape, heads), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _word(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
