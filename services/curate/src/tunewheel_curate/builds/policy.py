"""When a new version is built without anybody asking: enough new records, or some and then silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.spec import BuildPolicy
from tunewheel_contracts.identity import content_sha256

from tunewheel_curate.records.table import ends_of


@dataclass(frozen=True, slots=True)
class Pending:
    """What arrived for one project since its last build."""

    count: int
    """Distinct records that could become examples; unanswered tickets do not count."""
    request: str
    """Names this set of records."""
    upto: dict[str, int]
    """By partition, the offset after the project's last record: all that a build would see."""


def pending_records(
    arrivals: pl.DataFrame,
    built_upto: Mapping[str, int],
    *,
    documents: bool = False,
    ratings: bool = False,
) -> Pending:
    """Compare one project's ``RecordTable.arrivals`` with what its last build covered.

    ``documents`` says whether examples are made of documents, so that a new one, or another text of an old
    one, counts too; ``ratings`` whether they are made of answers rated up. A record that was there before and
    is delivered again is not new.
    """
    limits = {int(partition): end for partition, end in built_upto.items()}
    limit = pl.col("partition").replace_strict(limits, default=0, return_dtype=pl.Int64)
    rated_up = (pl.col("rating") == "up").fill_null(False)
    usable = arrivals.filter(
        pl.col("usable") | (pl.col("document") & documents) | (rated_up & pl.lit(ratings))
    )
    before = usable.filter(pl.col("offset") < limit)
    new = usable.filter(pl.col("offset") >= limit).join(before, on="record_id", how="anti")
    ids = sorted(new["record_id"].unique())
    return Pending(
        count=len(ids),
        request=f"{len(ids)} new records, sha256 {content_sha256(ids)}",
        upto=ends_of(arrivals),
    )


def due(policy: BuildPolicy, *, count: int, quiet_seconds: float) -> BuildReason | None:
    """Return why a build is due, or None: ``count`` new records, the last of them ``quiet_seconds`` ago."""
    if count >= policy.min_new_records:
        return BuildReason.COUNT
    if count and policy.quiet_seconds is not None and quiet_seconds >= policy.quiet_seconds:
        return BuildReason.QUIET
    return None
