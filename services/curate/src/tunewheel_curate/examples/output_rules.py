"""Only answers that hold to every output rule teach. What the rules mean: ``tunewheel_outputs.rules``."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_outputs.rules import rule_complaints

from tunewheel_curate.examples.conversations import asked_text
from tunewheel_curate.stage import Stage, drop


def check_rules(records: pl.DataFrame, rules: Sequence[OutputRule]) -> Stage:
    """Drop answers that break a rule. Reasons: ``<name of the first broken rule>: <what is wrong>``.

    Raises:
        InvalidSpec: a pattern that the engine does not know.
    """
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    reasons: list[str | None] = [None] * records.height
    for rule, complaints in zip(
        rules, rule_complaints(rules, records["output"].to_list(), asked), strict=True
    ):
        for row, complaint in enumerate(complaints):
            if complaint is not None and reasons[row] is None:
                reasons[row] = f"{rule.name or rule.rule}: {complaint}"
    return drop("output_rules", records, pl.Series(reasons, dtype=pl.String))
