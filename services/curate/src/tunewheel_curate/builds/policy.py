"""When a new version is built without anybody asking: enough new records, or some and then silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.events.data import BuildReason, RecordKind
from tunewheel_contracts.formats.spec import BuildPolicy
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.withdrawals import Withdrawal

from tunewheel_curate.records.table import ends_of
from tunewheel_curate.records.withdrawals import not_taken_back


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
    withdrawals: Iterable[Withdrawal] = (),
) -> Pending:
    """Compare one project's ``RecordTable.arrivals`` with what its last build covered.

    ``documents`` says whether examples are made of documents, so that a new one, or another text of an old
    one, counts too; ``ratings`` whether they are made of answers rated up. A record that was there before and
    is delivered again is not new, unless ``withdrawals`` took it back meanwhile.
    """
    limits = {int(partition): end for partition, end in built_upto.items()}
    limit = pl.col("partition").replace_strict(limits, default=0, return_dtype=pl.Int64)
    rated_up = (pl.col("rating") == "up").fill_null(False)
    document = (pl.col("kind") == RecordKind.DOCUMENT.value) & pl.lit(documents)
    usable = arrivals.filter(pl.col("usable") | document | (rated_up & pl.lit(ratings)))
    known = usable.filter(pl.col("offset") < limit)
    before, live = not_taken_back(known, withdrawals), not_taken_back(usable, withdrawals)
    new = live.filter(pl.col("offset") >= limit).join(before, on="record_id", how="anti")
    ids = sorted(_named(new, known))
    return Pending(
        count=len(ids),
        request=f"{len(ids)} new records, sha256 {content_sha256(ids)}",
        upto=ends_of(arrivals),
    )


def _named(new: pl.DataFrame, known: pl.DataFrame) -> Iterator[str]:
    """Name each record once; one that was known, withdrawn and is back also by its place on the log, or
    asking for it would look like what was asked and answered before."""
    back = set(new.join(known, on="record_id", how="semi")["record_id"])
    last = new.sort("partition", "offset").unique("record_id", keep="last", maintain_order=True)
    for record_id, partition, offset in last.select("record_id", "partition", "offset").iter_rows():
        yield f"{record_id} again at {partition}-{offset}" if record_id in back else record_id


def due(policy: BuildPolicy, *, count: int, quiet_seconds: float) -> BuildReason | None:
    """Return why a build is due, or None: ``count`` new records, the last of them ``quiet_seconds`` ago."""
    if count >= policy.min_new_records:
        return BuildReason.COUNT
    is_quiet = policy.quiet_seconds is not None and quiet_seconds >= policy.quiet_seconds
    return BuildReason.QUIET if is_quiet and count >= policy.quiet_min_records else None
