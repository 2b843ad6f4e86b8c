"""The rules by which a record waits for a person: see ``SetAside``. A person's decision goes before a rule.

Two rules stand elsewhere, because they decide about more than one record: ``records/selection.py`` finds the
records that would take a source over, and ``labels/conflicts.py`` the labels that most others contradict.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

import polars as pl
from tunewheel_contracts.formats.dataset_spec import RecordLimits
from tunewheel_contracts.formats.quarantine import SetAside
from tunewheel_retrieval.injections import PROMPT_INJECTION, found_injection

from tunewheel_curate.stage import TRUST_RANK, Stage, drop

LISTED: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "reason": pl.String(),
    "evidence": pl.String(),
    "kind": pl.String(),
    "trust": pl.String(),
    "origin": pl.String(),
    "published_at": pl.Datetime("us", "UTC"),
    "input": pl.String(),
    "output": pl.String(),
    "instead_of": pl.String(),
}
"""The columns of the list of quarantined records."""
REFUSED, LESS_TRUSTED = "refused", "less_trusted"
"""Reasons for which a record is dropped and does not wait."""
CORRECTED = (pl.col("kind") == "feedback") & (pl.col("trust") == "corrected")
"""An end user wrote the answer."""
TEXTS = ("title", "input", "output", "history")


def set_aside(
    records: pl.DataFrame,
    *,
    corrections: str,
    injections: str,
    min_trust: str,
    released: Collection[str],
    refused: Collection[str],
) -> Stage:
    """Set aside the records that would take over a source, that address the model, or that end users
    corrected. Drop those that a person refused, and those with less trust than ``min_trust``."""
    name = pl.coalesce("document", "record_id")
    injected = pl.coalesce(found_injection(pl.col(text)) for text in TEXTS)
    rank = pl.col("trust").replace_strict(TRUST_RANK, default=0, return_dtype=pl.Int32)
    reason = (
        pl.when(name.is_in(list(refused)))
        .then(pl.lit(REFUSED))
        .when((rank < TRUST_RANK[min_trust]) & pl.lit(min_trust != "unverified"))
        .then(pl.lit(LESS_TRUSTED))
        .when(name.is_in(list(released)))
        .then(None)
        .when(pl.col("instead_of").is_not_null())
        .then(pl.lit(SetAside.TAKEOVER.value))
        .when(injected.is_not_null() & pl.lit(injections == "quarantine"))
        .then(pl.lit(SetAside.INJECTION.value))
        .when(injected.is_not_null() & pl.lit(injections == "drop"))
        .then(pl.lit(PROMPT_INJECTION))
        .when(CORRECTED & pl.lit(corrections == "wait"))
        .then(pl.lit(SetAside.CORRECTION.value))
    )
    evidence = (
        pl.when(pl.col("instead_of").is_not_null())
        .then(pl.lit("a record of the same source is trusted more, or another caller published it"))
        .when(injected.is_not_null())
        .then(pl.format('the text says "{}"', injected.str.slice(0, 80)))
        .otherwise(pl.lit("an end user wrote the answer"))
    )
    return _shown_if_any(waiting(drop("quarantine", records, reason), records, evidence))


def _shown_if_any(stage: Stage) -> Stage:
    """Return ``stage``, which is in the funnel only if it dropped a record. So a version that no rule touches
    is the same, to the byte, as before there were rules."""
    return replace(stage, shown=not stage.dropped.is_empty())


def drop_injected(passages: pl.DataFrame, released: Collection[str]) -> Stage:
    """Drop passages that address the model and that nobody released: the index may have been built with an
    earlier spec."""
    injected = found_injection(pl.col("input")).is_not_null() & ~pl.col("document").is_in(list(released))
    return drop("injections", passages, pl.when(injected).then(pl.lit(PROMPT_INJECTION)))


def waiting(stage: Stage, records: pl.DataFrame, evidence: pl.Expr) -> Stage:
    """Return ``stage`` with the list of those of ``records`` that it dropped and that wait for a person."""
    reasons = stage.dropped.filter(pl.col("reason").is_in([one.value for one in SetAside]))
    rows = records.join(reasons.select("record_id", "reason"), on="record_id", maintain_order="left")
    columns = rows.columns
    rows = rows.with_columns(
        evidence.alias("evidence"),
        pl.col("principal").alias("origin"),
        *([] if "instead_of" in columns else [pl.lit(None, dtype=pl.String).alias("instead_of")]),
        *([pl.coalesce("document", "record_id").alias("record_id")] if "document" in columns else []),
    )
    return replace(stage, waiting=(rows.select(pl.col(name).cast(kind) for name, kind in LISTED.items()),))


def limit_origins(
    records: pl.DataFrame, *, limits: RecordLimits, held_out: float, released: Collection[str]
) -> Stage:
    """Set aside what one origin sent beyond ``limits``. ``held_out``: the share of experts' records that will
    be held out, so that a limit is a share of the training rows.

    Of the records of an origin those stay that are trusted most, and among them as many of every day and
    label as possible, by ``record_id``, which is a hash of the content. The order of arrival has no effect.
    """
    experts = records.filter(pl.col("trust") == "expert").height
    rows = records.filter((pl.col("trust") != "expert") & ~pl.col("record_id").is_in(list(released)))
    over: dict[str, str] = {}
    for setting, origin, share in _limits(limits) if experts and rows.height else ():
        most = max(limits.small - experts, math.floor(share / (1 - share) * experts * (1 - held_out)))
        surplus = rows.with_columns(origin.alias("_origin")).drop_nulls("_origin")
        for name, sent in surplus.group_by("_origin", maintain_order=True):
            if sent.height > most:
                text = f"{sent.height} records of {name[0]}, and dataset.limits.{setting} allows {most}"
                over |= dict.fromkeys(_spread(sent)[most:], text)
        rows = rows.filter(~pl.col("record_id").is_in(list(over)))
    found = pl.col("record_id").replace_strict(
        list(over), list(over.values()), default=None, return_dtype=pl.String
    )
    reason = pl.when(found.is_not_null()).then(pl.lit(SetAside.FLOOD.value))
    return _shown_if_any(waiting(drop("flood", records, reason), records, found))


def _limits(limits: RecordLimits) -> Iterator[tuple[str, pl.Expr, float]]:
    origins = {
        "principal": pl.col("principal"),
        "customer": pl.col("group"),
        "day": pl.col("published_at").dt.date().cast(pl.String),
        "kind": pl.col("kind"),
    }
    for setting, origin in origins.items():
        share: float | None = getattr(limits, setting)
        if share is not None and share < 1:
            yield setting, origin, share


def _spread(rows: pl.DataFrame) -> list[str]:
    """Return the ids of ``rows``, the first to keep first."""
    rank = pl.col("trust").replace_strict(TRUST_RANK, default=0, return_dtype=pl.Int32)
    day = pl.col("published_at").dt.date()
    turn = pl.col("record_id").rank("ordinal").over(rank, day, "label")
    ranked = rows.with_columns(rank.alias("_rank"), turn.alias("_turn"))
    ordered = ranked.sort("_rank", "_turn", "record_id", descending=[True, False, False])
    return ordered["record_id"].to_list()
