"""When new records alone make a version due: once there are enough, or some followed by silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.dataset_spec import BuildPolicy
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.withdrawals import Withdrawal

from tunewheel_curate.quarantine.rules import CORRECTED
from tunewheel_curate.records.arrivals import DOCUMENT, RATED_UP
from tunewheel_curate.records.selection import not_taken_back
from tunewheel_curate.records.table import ends_of


@dataclass(frozen=True, slots=True)
class Pending:
    """The records of one project since its last build."""

    count: int
    """How many distinct new records could become examples; unanswered tickets do not count."""
    upto: dict[str, int]
    """By partition, the offset after the project's last record. A build uses the records before it."""
    names: Callable[[], Iterable[str]]
    """Returns a name for each new record. Many thousands are asked for only once a build is due."""

    @property
    def request(self) -> str:
        """A name of this set of new records; the same set has the same name."""
        return f"{self.count} new records, sha256 {content_sha256(sorted(self.names()))}"


NOBODY: Mapping[str, str] = MappingProxyType({})


def pending_records(
    arrivals: pl.DataFrame,
    built_upto: Mapping[str, int],
    *,
    documents: bool = False,
    ratings: bool = False,
    corrections: bool = True,
    released: Mapping[str, str] = NOBODY,
    withdrawals: Iterable[Withdrawal] = (),
) -> Pending:
    """Return the records in one project's ``Arrived.rows`` that its last build did not cover.

    With ``documents``, new documents and new texts of old documents count too. With ``ratings``, answers that
    were rated up count too. Without ``corrections``, end users' corrections wait for a person and do not
    count. The records that a person ``released`` since count; with each stands
    the place of that decision on the log. A record that is delivered again is not new,
    unless one of ``withdrawals`` took it back in between.
    """
    limit = _limit(built_upto)
    chosen = pl.col("record_id").is_in(list(released))
    teaches = pl.col("usable") | (DOCUMENT & pl.lit(documents)) | (RATED_UP & pl.lit(ratings))
    usable = arrivals.filter(teaches)
    usable = usable.filter(~CORRECTED | pl.lit(corrections) | chosen)
    built = usable.filter(pl.col("offset") < limit)
    before, live = not_taken_back(built, withdrawals), not_taken_back(usable, withdrawals)
    new = live.filter(pl.col("offset") >= limit).join(before, on="record_id", how="anti")
    freed = before.filter(chosen)["record_id"].unique()
    return Pending(
        count=new["record_id"].n_unique() + len(freed),
        upto=ends_of(arrivals),
        names=lambda: (*_named(new, built), *(f"{name} released at {released[name]}" for name in freed)),
    )


def most_pending(arrivals: pl.DataFrame, built_upto: Mapping[str, int], released: Mapping[str, str]) -> int:
    """Return a number that the count of ``pending_records`` does not exceed. It takes no joins."""
    return arrivals.select((pl.col("offset") >= _limit(built_upto)).sum()).item() + len(released)


def _limit(built_upto: Mapping[str, int]) -> pl.Expr:
    limits = {int(partition): end for partition, end in built_upto.items()}
    return pl.col("partition").replace_strict(limits, default=0, return_dtype=pl.Int64)


def _named(new: pl.DataFrame, built: pl.DataFrame) -> Iterator[str]:
    """Yield a name for each record, once. The name of a record that was withdrawn and is back includes its
    place on the log. Otherwise the request for it would have the id of an earlier, answered request."""
    back = set(new.join(built, on="record_id", how="semi")["record_id"])
    last = new.sort("partition", "offset").unique("record_id", keep="last", maintain_order=True)
    for record_id, partition, offset in last.select("record_id", "partition", "offset").iter_rows():
        yield f"{record_id} again at {partition}-{offset}" if record_id in back else record_id


def due(policy: BuildPolicy, *, count: int, quiet_seconds: float) -> BuildReason | None:
    """Return why a build is due, or None. There are ``count`` new records; the last came ``quiet_seconds``
    ago."""
    if count >= policy.min_new_records:
        return BuildReason.COUNT
    is_quiet = policy.quiet_seconds is not None and quiet_seconds >= policy.quiet_seconds
    return BuildReason.QUIET if is_quiet and count >= policy.quiet_min_records else None
