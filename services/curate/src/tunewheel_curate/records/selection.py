"""Selects the records that count: one copy of each record, the newest record of each source, with an output.

The rules use only the records' content and the time of their events, never their place in Kafka. So the order
of delivery and the partitions do not matter.

1. Of several copies of one ``record_id`` the latest published counts: it may mend the customer or a date.
   The copy keeps the time of the earliest publication after the last other record of the same source, so that
   an export that is sent again changes nothing. A source that returns to an earlier content says it anew.
2. Of several records of one source (same kind and ``source_id``) the newest counts. "Newest" is decided by,
   in this order: the trust of its answer, since an answer never replaces one that is trusted more; the
   record's own date (for a ticket when it was validated, otherwise ``occurred_at``); a correction in a
   review; later publication; greater ``record_id``. The record's own date is used only if every record
   of the source has one. Otherwise a file without a date would lose to the dated file that it replaces, or
   the other way round. ingest publishes the versions of a source in order, so "later published" holds even
   between partitions.
3. A newer answer that loses by its trust waits for a person. So does one of another caller than the source's
   first answer, unless an expert gave it: callers choose ids freely. A record that a person released counts
   as trusted as the best of its source.

Ratings without a correction become outputs and rejected outputs. They count only if ``dataset.ratings`` is
on; otherwise a build ignores them, and they are not in its funnel. ``contracts`` folds withdrawals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.formats.document import ALLOWED_GROUPS
from tunewheel_contracts.formats.label_prompts import TAUGHT_BY
from tunewheel_contracts.judgements import NOBODY_JUDGED, Judged
from tunewheel_contracts.withdrawals import Withdrawal

from tunewheel_curate.stage import (
    DOCUMENT,
    RATED,
    RATED_DOWN,
    TAUGHT,
    TRUST_RANK,
    Stage,
    drop,
    dropped_frame,
    trust_rank,
)

_MARK = f'"{TAUGHT_BY}":'
"""The key as canonical JSON writes it. In a value the quotes would be escaped, so only the key matches."""

RATING_COLUMNS = ("rating", "rated_output")
TOLD = ("validated_at", "validated_by", "source_event_id", "attributes")
"""Columns that lineage and card show but that do not enter the record's id."""
SOURCE = ("kind", "source_id")
WITHDRAWN = "withdrawn"
"""The drop reason of a record that was taken back and not published again."""


def distinct_records(records: pl.DataFrame) -> pl.DataFrame:
    """Return one row per ``record_id``, sorted by it (rule 1)."""
    ties = ["occurred_at", "group", "title", "input", "output", *TOLD]
    ranked = records.join(_said_last(records), on="record_id", how="left").sort(
        ["record_id", "published_at", *ties],
        descending=[False, True, *(False for _ in ties)],
        nulls_last=True,
    )
    latest = ranked.unique("record_id", keep="first", maintain_order=True)
    return latest.with_columns(pl.coalesce("_since", "published_at").alias("published_at")).drop("_since")


def _said_last(records: pl.DataFrame) -> pl.DataFrame:
    """Return (record_id, _since): when the source last began to have this content."""
    published = records.select(*SOURCE, "published_at", "record_id").sort(
        *SOURCE, "published_at", "record_id"
    )
    begins = pl.col("record_id") != pl.col("record_id").shift().over(SOURCE)
    return (
        published.filter(begins.fill_null(True))
        .group_by("record_id")
        .agg(pl.col("published_at").max().alias("_since"))
    )


def _dated() -> pl.Expr:
    """Return the record's own date; null unless every record of its source has one."""
    ticket = pl.col("kind") == "ticket"
    said = pl.when(ticket).then(pl.col("validated_at")).otherwise(pl.col("occurred_at"))
    return pl.when(said.is_not_null().all().over(SOURCE)).then(said)


def _competing(records: pl.DataFrame, judged: Judged) -> pl.DataFrame:
    """Return ``records`` with ``_newest``, whether the record is the newest of its source (rule 2), and
    ``instead_of``, the newest record if this one waits to replace it (rule 3)."""
    document, released = pl.col("kind") == DOCUMENT, pl.col("record_id").is_in(judged.released)
    answered = pl.col("output").is_not_null() & ~document
    level = pl.col("trust").replace_strict(TRUST_RANK, default=0, return_dtype=pl.Int32)
    level = pl.when(document).then(0).otherwise(level)
    answers = records.filter(answered).sort("published_at", "record_id")
    owners = answers.group_by(SOURCE, maintain_order=True).agg(pl.col("principal").first().alias("_owner"))
    foreign = pl.col("_owner").is_not_null() & pl.col("principal").ne_missing(pl.col("_owner"))
    taking = answered & foreign & (pl.col("trust") != "expert") & ~released
    order = ["_may", "_level", "_dated", "_rank", "published_at", "record_id"]
    ranked = (
        records.join(owners, on=SOURCE, how="left", maintain_order="left")
        .with_columns(
            (~taking & ~pl.col("record_id").is_in(judged.refused)).fill_null(True).alias("_may"),
            pl.when(released).then(level.max().over(SOURCE)).otherwise(level).alias("_level"),
            _dated().alias("_dated"),
            pl.when(released).then(trust_rank().max().over(SOURCE)).otherwise(trust_rank()).alias("_rank"),
        )
        .sort(order, descending=True, nulls_last=True)
        .with_columns(
            pl.col(name).first().over(SOURCE).alias(f"_best_{name.strip('_')}")
            for name in ("record_id", "_level", "published_at")
        )
    )
    waits = (
        (answered & (pl.col("_level") >= 0) & ~pl.col("record_id").is_in(judged.refused))
        & (pl.col("published_at") > pl.col("_best_published_at"))
        & (~pl.col("_may") | (pl.col("_level") < pl.col("_best_level")))
    )
    return ranked.with_columns(
        (pl.col("record_id") == pl.col("_best_record_id")).alias("_newest"),
        pl.when(waits).then("_best_record_id").alias("instead_of"),
    ).select(*records.columns, "_newest", "instead_of")


def select_usable(records: pl.DataFrame, judged: Judged = NOBODY_JUDGED) -> Stage:
    """Drop superseded records (rule 2), documents, answers rated down, and records without an output. Records
    that wait to replace another (rule 3) stay: the step ``quarantine`` sets them aside.

    ``records`` holds distinct ``record_id``s. Reasons: ``replaced``, ``restricted`` (nothing is learnt from a
    document that not every caller may see), ``document``, ``rated_down``, ``no_output``.
    """
    competing = _competing(records, judged).sort("record_id")
    rated_down = (pl.col("trust") == RATED) & pl.col("rejected_output").is_not_null()
    reason = (
        pl.when(~pl.col("_newest") & pl.col("instead_of").is_null())
        .then(pl.lit("replaced"))
        .when((pl.col("kind") == "document") & _is_restricted())
        .then(pl.lit("restricted"))
        .when(pl.col("kind") == "document")
        .then(pl.lit(DOCUMENT))
        .when(pl.col("output").is_null() & rated_down)
        .then(pl.lit(RATED_DOWN))
        .when(pl.col("output").is_null())
        .then(pl.lit("no_output"))
    )
    stage = drop("selection", competing, reason)
    return replace(stage, kept=stage.kept.drop("_newest"))


@dataclass(frozen=True)
class Selected:
    """The records of a build: which count, and why the others do not."""

    distinct: pl.DataFrame
    """One row per record, withdrawn ones too."""
    live: Stage
    usable: Stage

    def set_aside(self, reason: str) -> pl.DataFrame:
        """Return the records that ``select_usable`` dropped for ``reason``."""
        ids = self.usable.dropped.filter(pl.col("reason") == reason)["record_id"]
        return self.live.kept.filter(pl.col("record_id").is_in(ids.implode()))


def select(
    records: pl.DataFrame,
    withdrawals: Iterable[Withdrawal],
    *,
    ratings: bool,
    judged: Judged = NOBODY_JUDGED,
) -> Selected:
    """Select among ``records`` (``RECORD_SCHEMA``, one project); ``ratings`` says whether ratings count."""
    records = with_taught(with_ratings(records, wanted=ratings))
    withdrawals = tuple(withdrawals)
    live = drop_withdrawn(records, withdrawals)
    distinct = distinct_records(records) if withdrawals else live.kept
    return Selected(distinct, live, select_usable(live.kept, judged))


def with_ratings(records: pl.DataFrame, *, wanted: bool) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``) without ``RATING_COLUMNS``. An answer rated up becomes the
    output, an answer rated down the rejected output, both with the lowest trust. Unless ratings are
    ``wanted``, these records are left out."""
    rated = pl.col("rating").is_not_null()
    if not wanted:
        return records.filter(~rated).drop(RATING_COLUMNS)
    answer = pl.col("rated_output")
    return records.with_columns(
        pl.when(pl.col("rating") == "up").then(answer).otherwise("output").alias("output"),
        pl.when(pl.col("rating") == "down")
        .then(answer)
        .otherwise("rejected_output")
        .alias("rejected_output"),
        pl.when(rated).then(pl.lit(RATED)).otherwise("trust").alias("trust"),
    ).drop(RATING_COLUMNS)


def drop_withdrawn(rows: pl.DataFrame, withdrawals: Iterable[Withdrawal]) -> Stage:
    """Drop withdrawn records and keep one row for each other record (``distinct_records``). Reason:
    ``withdrawn``.

    ``rows`` has every delivery. A record that was withdrawn and published again with the same text is the
    same record, and its later delivery counts.
    """
    kept = distinct_records(not_taken_back(rows, withdrawals))
    gone = rows.join(kept, on="record_id", how="anti")["record_id"].unique().sort()
    return Stage(
        name="withdrawal",
        kept=kept,
        dropped=dropped_frame(gone, pl.Series([WITHDRAWN] * len(gone), dtype=pl.String)),
    )


def not_taken_back(rows: pl.DataFrame, withdrawals: Iterable[Withdrawal]) -> pl.DataFrame:
    """Return the ``rows`` (with ``kind``, ``source_id``, ``published_at``) that no withdrawal concerns."""
    until = {f"{one.kind}/{one.document_id}": one.until for one in withdrawals}
    if not until:
        return rows
    limit = pl.concat_str(*SOURCE, separator="/").replace_strict(
        list(until), list(until.values()), default=None, return_dtype=pl.Datetime("us", "UTC")
    )
    taken_back = pl.col("published_at") <= limit
    return rows.filter(~taken_back.fill_null(False))


def _is_restricted() -> pl.Expr:
    return pl.col("attributes").str.contains(f'"{ALLOWED_GROUPS}":', literal=True).fill_null(False)


def is_taught() -> pl.Expr:
    """Return for rows of the record table whether a teacher answered and no expert validated the answer."""
    marked = pl.col("attributes").str.contains(_MARK, literal=True).fill_null(False)
    return marked & (pl.col("trust") == "unverified")


def with_taught(records: pl.DataFrame) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``) with the lowest trust for a teacher's answers."""
    trust = pl.when(is_taught()).then(pl.lit(TAUGHT)).otherwise("trust").alias("trust")
    return records.with_columns(trust)


Copy = tuple[str, str]
"""A project and a ``record_id``, which several rows may share: the same content, perhaps under another
customer. Or a project and ``kind/source_id``: the versions of a source that name nobody."""
_MOMENT = pl.Datetime("us", "UTC")


def erased(erasures: Collection[Erasure], remembered: Mapping[Copy, datetime] | None = None) -> pl.Expr:
    """Return, for rows of the record table, whether one of ``erasures`` concerns them: they name the person
    or the source, or they are copies of a row that does. ``remembered``: see ``erased_until``."""
    return _up_to(erased_until(erasures, remembered))


def erased_until(erasures: Collection[Erasure], remembered: Mapping[Copy, datetime] | None = None) -> pl.Expr:
    """Return up to when the copies of a row's record are erased; null: no erasure takes one of them.

    A ticket that was published under a wrong customer and then under the right one is one record in two rows,
    and both hold the text of the person. The same is true of an earlier version of the ticket that names
    nobody. ``remembered`` has the moments of copies that are erased already.
    """
    found = [pl.lit(None, dtype=_MOMENT)]
    for erasure in erasures:
        subject = (
            pl.col("group") == erasure.customer
            if erasure.customer is not None
            else pl.col("source_id") == erasure.source_id
        )
        until = pl.lit(erasure.until, dtype=_MOMENT)
        named = (pl.col("project") == erasure.project) & subject & _up_to(until)
        found.append(pl.when(named).then(until))
    record, source = ("project", "record_id"), ("project", "kind", "source_id")
    moments = remembered or {}
    if moments:
        found.append(_looked_up(moments, record))
    if len(found) == 1:
        return found[0]
    until = pl.max_horizontal(found)
    of_source = pl.max_horizontal(
        until.max().over(source), *([_looked_up(moments, source)] if moments else [])
    )
    of_source = pl.when(pl.col("group") == pl.col("source_id")).then(of_source)
    return pl.max_horizontal(until.max().over(record), of_source)


def _looked_up(moments: Mapping[Copy, datetime], columns: tuple[str, ...]) -> pl.Expr:
    places = ["/".join(copy) for copy in moments]
    return pl.concat_str(columns, separator="/").replace_strict(
        places, list(moments.values()), default=None, return_dtype=_MOMENT
    )


def _up_to(until: pl.Expr) -> pl.Expr:
    return ((pl.col("published_at") <= until) | (pl.col("occurred_at") <= until)).fill_null(False)
