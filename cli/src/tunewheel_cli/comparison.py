"""Prints the differences between two models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_cli.texts import flat, print_table

SHOWN = 60


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print the registry's answer to ``GET …/models/{first}/comparison/{second}``."""
    print(f"first: {found['first']}, second: {found['second']}")
    metrics = [
        (name, one["first"], one["second"], one["repeat_spread"] and f"± {one['repeat_spread']:.3g}")
        for name, one in found["metrics"].items()
    ]
    print_table(("metric", "first", "second", "between two measurements of one model"), metrics)
    if not found["same_holdout"]:
        print("the figures are of different held-out rows: their difference says little")
    for one in found["direct"]:
        print(
            f"  {one['metric']}: {one['difference']:+.3g} for the second, row by row "
            f"({one['low']:+.3g} … {one['high']:+.3g}, {one['rows']} rows in {one['clusters']} groups)"
        )
    dataset = found["dataset"]
    print(f"data: {' → '.join(map(_word, dataset['datasets']))}")
    if dataset["records_added"] is not None:
        added, removed = dataset["records_added"], dataset["records_removed"]
        print(f"  {added} records are new, {removed} are gone from training")
    for title, changes in (
        ("examples by label", dataset["labels"]), ("counts", dataset["counts"]), ("recipe", found["recipe"]),
        ("criteria", found["criteria"]), ("what serves", found["bundle"]),
        ("rest of the spec", dataset["spec"]),
    ):  # fmt: skip
        if changes:
            rows = [(name, _word(one), _word(other)) for name, (one, other) in changes.items()]
            print_table((title, "first", "second"), rows)
    for name, reason in found["missing"].items():
        print(f"{flat(name)} cannot be read: {flat(reason)}")


def _word(value: Any) -> str:
    text = "" if value is None else flat(str(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
