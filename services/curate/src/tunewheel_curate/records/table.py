"""The record table: every record that was ever ingested, in Delta Lake on the object store.

Appends are idempotent by application transactions (Delta protocol, "Transaction Identifiers"). For each
partition of ``record.ingested`` the table keeps the last appended offset, in the same atomic commit as the
rows. A redelivered batch appends only the rows after that offset.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.record_table import transaction_of

from tunewheel_curate.records.selection import Copy, erased, erased_until
from tunewheel_curate.stage import RECORD_SCHEMA

SUBJECT_COLUMNS = (
    "project", "record_id", "kind", "source_id", "group", "published_at", "occurred_at", "partition",
    "offset",
)  # fmt: skip
"""The columns that erasures compare, and those that identify a row."""
STATISTICS = {"delta.dataSkippingStatsColumns": "partition,offset"}
"""Delta writes the least and greatest value of columns into its log, which an erasure does not reach. So it
may do this only for columns without personal data."""
IN_FLIGHT_HOURS = 1
ARRIVAL_COLUMNS = (
    "project", "record_id", "kind", "output", "rating", "trust", "source_id", "published_at", "partition",
    "offset",
)  # fmt: skip


class ForeignRecordTable(TunewheelError):
    """The table was filled from another log than the one being read."""


class TableReplaced(TunewheelError):
    """The table was deleted, or replaced by an older one, while this process ran. The process must start
    again: only a start fills the table from the log and notes what the log lacks."""


class TableBehind(TransientError):
    """Records that the build asks for have not reached the table yet."""


class RecordTable:
    """One table of ``RECORD_SCHEMA``, partitioned by project. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.RLock()
        self._opened: DeltaTable | None = None
        self._farthest: dict[int, int] = {}
        """By partition, the last offset that the table was ever seen to have."""
        self._erased: dict[Copy, datetime] = {}
        """Up to when the copies of a record are erased. The table itself forgets an erased record."""
        self._came_erased = pl.DataFrame(schema={name: RECORD_SCHEMA[name] for name in SUBJECT_COLUMNS})
        """The erased rows that ``append`` met, and the copies that it erased for them. Their request may not
        have been carried out yet, and its proof counts them."""

    def append(self, rows: pl.DataFrame, *, erasures: Sequence[Erasure] = ()) -> int:
        """Append the rows that are neither in the table nor erased; return how many.

        Raises:
            TransientError: another writer was faster, or the store is away.
            ForeignRecordTable: the table's offsets cover records that it does not hold.
            TableReplaced: the table's offsets are before those of an earlier call.
        """
        if rows.is_empty():
            return 0
        with self._lock:
            self._take_copies(rows, erasures)
            table = self._open()
            seen = {p: self._last_offset(table, p) for p in rows["partition"].unique().to_list()}
            reached = pl.col("partition").replace_strict(seen, return_dtype=pl.Int64)
            old, new = rows.filter(pl.col("offset") <= reached), rows.filter(pl.col("offset") > reached)
            kept = ~erased(erasures, self._erased)
            if table is not None and not old.is_empty():
                self._check_same_log(table, old.filter(kept))
            if not new.is_empty():
                self._write(table, new.filter(kept), reached=_last_offsets(new))
                self._farthest |= _last_offsets(new)
            return new.filter(kept).height

    def remember(self, project: str, record_ids: Iterable[str], until: datetime) -> None:
        """Erase copies of these records that come later and were published up to ``until``, whoever they
        name."""
        for copy in ((project, record_id) for record_id in record_ids):
            self._erased[copy] = max(until, self._erased.get(copy, until))

    def _take_copies(self, rows: pl.DataFrame, erasures: Collection[Erasure]) -> None:
        """Remember the records and sources of erased ``rows``, and erase their earlier copies from the
        table."""
        places = pl.concat_list("record_id", pl.concat_str("kind", "source_id", separator="/"))
        taken = rows.select("project", places.alias("places"), erased_until(erasures).alias("until"))
        taken = taken.drop_nulls("until")
        for project, copies, moment in taken.iter_rows():
            self.remember(project, copies, moment)
        if taken.height:
            earlier = self.held_subjects(())
            came = rows.filter(erased(erasures, self._erased)).select(SUBJECT_COLUMNS)
            self._came_erased = pl.concat([self._came_erased, came, earlier]).unique()
            if earlier.height:
                self.erase(earlier)

    def reached(self, partition: int) -> int:
        """Return the offset of ``record.ingested`` after the last one appended from ``partition``. Raises as
        ``append``."""
        with self._lock:
            return self._last_offset(self._open(), partition) + 1

    def version(self) -> int | None:
        """Return the table's version, which every append raises; None before the first append."""
        with self._lock:
            table = self._open()
            return None if table is None else table.version()

    def arrivals(self) -> pl.DataFrame:
        """Return the columns that the build policy needs: the log position of every row, whether it can
        become an example by itself (``usable``), its ``kind``, ``trust`` and ``rating``, and its source and
        time, by which a withdrawal finds it."""
        return self._collected(self._chosen_arrivals())

    def later_arrivals(self, ends: Mapping[str, int], *, known: int) -> pl.DataFrame | None:
        """Return the rows of ``arrivals`` at or after the offsets ``ends`` (by partition). None: the table
        does not hold ``known`` rows before them, or its log does not say how many rows there are."""
        later = [
            (pl.col("partition") != int(partition)) | (pl.col("offset") >= end)
            for partition, end in ends.items()
        ]
        with self._lock:
            chosen, height = self._chosen_arrivals(), self._height()
            rows = self._collected(chosen.filter(*later))
        return rows if known + rows.height == height else None

    def _chosen_arrivals(self) -> pl.LazyFrame:
        document = pl.col("kind") == "document"
        usable = ~document & pl.col("output").is_not_null()
        return self._scan(ARRIVAL_COLUMNS).select(
            "project",
            "record_id",
            usable.alias("usable"),
            "kind",
            "trust",
            "rating",
            "source_id",
            "published_at",
            "partition",
            "offset",
        )

    def _height(self) -> int | None:
        """Return how many rows the opened version of the table has; None: its log does not say."""
        if self._opened is None:
            return 0
        with self._reaching("open"):
            heights = pl.DataFrame(self._opened.get_add_actions(flatten=True))["num_records"].to_list()
        return None if None in heights else sum(heights)

    def subjects(self, erasures: Sequence[Erasure]) -> pl.DataFrame:
        """Return ``SUBJECT_COLUMNS`` of the rows that ``erasures`` concern, or that are copies of erased
        records, and of rows that ``erasures`` concern and that ``append`` left out or erased already."""
        with self._lock:
            came = self._came_erased.filter(erased(erasures))
            return pl.concat([self.held_subjects(erasures), came]).unique(maintain_order=True)

    def held_subjects(self, erasures: Sequence[Erasure]) -> pl.DataFrame:
        """Return those rows of ``subjects`` that the table holds."""
        with self._lock:
            return self._collected(self._scan(SUBJECT_COLUMNS).filter(erased(erasures, self._erased)))

    def erase(self, rows: pl.DataFrame) -> None:
        """Delete ``rows`` (from ``subjects``) and every file that held them, including files of older table
        versions.

        A concurrent reader fails with ``TransientError``. Repeating it is harmless.

        Raises:
            TransientError: another writer was faster, or the store is away.
        """
        with self._lock:
            table = self._open()
            if table is None:
                return
            with self._reaching("erase in"):
                if not rows.is_empty():
                    table.delete(_predicate(rows))
                table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
                # Also delete files that Delta's log no longer names. Recent ones may belong to a running
                # append.
                table.vacuum(IN_FLIGHT_HOURS, enforce_retention_duration=False, dry_run=False, full=True)

    def read(self, project: str, upto: Mapping[str, int]) -> pl.DataFrame:
        """Return the rows of ``project`` before the offsets ``upto`` (by partition).

        Raises:
            TableBehind: the table does not reach that far.
            TransientError: a concurrent erasure deleted the files.
        """
        for partition, end in upto.items():
            # The offset of the last row does not tell: that row may have been erased.
            if (reached := self.reached(int(partition))) < end:
                raise TableBehind(
                    f"partition {partition} of record.ingested is in the table up to {reached}, "
                    f"the build asks for {end}"
                )
        rows = self._collected(self._scan(tuple(RECORD_SCHEMA)).filter(pl.col("project") == project))
        limits = {int(partition): end for partition, end in upto.items()}
        limit = pl.col("partition").replace_strict(limits, default=0, return_dtype=pl.Int64)
        return rows.filter(pl.col("offset") < limit)

    def newer(self, project: str, upto: Mapping[str, int], columns: Sequence[str]) -> pl.DataFrame:
        """Return ``columns`` of the rows of ``project`` at or after the offsets ``upto`` (by partition). A
        partition that is not named is returned whole.

        Raises:
            TransientError: an erasure took the files away meanwhile.
        """
        named = {int(partition): end for partition, end in upto.items()}
        limit = pl.col("partition").replace_strict(named, default=0, return_dtype=pl.Int64)
        rows = self._scan(tuple(RECORD_SCHEMA)).filter(pl.col("project") == project)
        return self._collected(rows.filter(pl.col("offset") >= limit).select(columns))

    def compact(self, *, min_files: int) -> bool:
        """Merge small files once there are ``min_files``. The first merge after a week (Delta's
        ``deletedFileRetentionDuration``) deletes the merged ones. Until then older versions stay readable.

        Return whether files were merged. Losing a race against an append is no error.

        Raises:
            TransientError: the store is away.
        """
        with self._lock, self._reaching("compact"):
            table = self._open()
            if table is None or len(table.file_uris()) < min_files:
                return False
            try:
                merged = table.optimize.compact()["numFilesRemoved"]
            except CommitFailedError:
                return False
            if merged:  # a vacuum raises the version, even if it deletes the same files again
                # full: a checkpoint of Delta's log forgets removed files once their time is over
                table.vacuum(dry_run=False, full=True)
            return bool(merged)

    @contextmanager
    def _reaching(self, purpose: str) -> Iterator[None]:
        """Turn errors of the store into ``TransientError``, and open the table anew at the next use."""
        try:
            yield
        except (DeltaError, OSError, pl.exceptions.ComputeError) as error:
            self._opened = None
            raise TransientError(f"cannot {purpose} the record table at {self.url}: {error}") from error

    def _open(self) -> DeltaTable | None:
        with self._reaching("open"):
            try:
                if self._opened is None:
                    self._opened = DeltaTable(self.url)
                else:
                    self._opened.update_incremental()
            except TableNotFoundError:
                self._opened = None
            return self._opened

    def _scan(self, columns: tuple[str, ...]) -> pl.LazyFrame:
        with self._lock:
            table = self._open()
            if table is None:
                return pl.LazyFrame(schema={name: RECORD_SCHEMA[name] for name in columns})
            with self._reaching("open"):
                # Pin the version to be read: compaction and appends go on.
                rows = pl.scan_delta(DeltaTable(self.url, version=table.version()))
                present = rows.collect_schema().names()
        # A column that is newer than the table reads as null.
        return rows.select(
            pl.col(name) if name in present else pl.lit(None, dtype=RECORD_SCHEMA[name]).alias(name)
            for name in columns
        )

    def _collected(self, rows: pl.LazyFrame) -> pl.DataFrame:
        with self._reaching("read"):
            return rows.collect()

    def _last_offset(self, table: DeltaTable | None, partition: int) -> int:
        with self._reaching("open"):  # this reads the table's log in the store
            found = None if table is None else table.transaction_version(transaction_of(partition))
        last = -1 if found is None else found
        if last < self._farthest.get(partition, -1):
            raise TableReplaced(
                f"the record table at {self.url} had partition {partition} of record.ingested up to "
                f"{self._farthest[partition]}, and has it up to {last} now: it was lost or replaced while "
                "curate ran. Stop every curate before a backup is restored"
            )
        self._farthest[partition] = last
        return last

    def _write(self, table: DeltaTable | None, rows: pl.DataFrame, *, reached: Mapping[int, int]) -> None:
        properties = CommitProperties(
            app_transactions=[Transaction(transaction_of(p), offset) for p, offset in reached.items()]
        )
        with self._reaching("append to"):
            write_deltalake(
                self.url if table is None else table,
                rows,
                mode="append",
                schema_mode="merge",  # an older table may have fewer columns
                partition_by=["project"],
                configuration=STATISTICS if table is None else None,
                commit_properties=properties,
            )

    def _check_same_log(self, table: DeltaTable, old: pl.DataFrame) -> None:
        """Compare one record per partition with the table. That is enough to detect another log, and keeps a
        long redelivery quick."""
        for row in old.sort("offset").unique("partition", keep="last").iter_rows(named=True):
            place = (pl.col("partition") == row["partition"]) & (pl.col("offset") == row["offset"])
            held = self._collected(pl.scan_delta(table).filter(place).select("record_id"))["record_id"]
            if row["record_id"] in held.to_list():
                continue
            raise ForeignRecordTable(
                f"the record table at {self.url} claims offset {row['offset']} of record.ingested but does "
                f"not hold {row['record_id']}: it was filled from another log. Point store_url elsewhere, or "
                "restore records/ from a copy that is older than the log's. Only if the log still has all "
                "records, delete the table: it is rebuilt at the next start"
            )


def ends_of(rows: pl.DataFrame) -> dict[str, int]:
    """Return, by partition, the offset after the last of ``rows``."""
    return {str(partition): offset + 1 for partition, offset in _last_offsets(rows).items()}


def _last_offsets(rows: pl.DataFrame) -> dict[int, int]:
    last: list[Any] = rows.group_by("partition").agg(pl.col("offset").max()).rows()
    return {int(partition): int(offset) for partition, offset in sorted(last)}


def _predicate(rows: pl.DataFrame) -> str:
    """Return a predicate that selects rows by their place on the log: it holds numbers and no personal
    data."""
    places = rows.group_by("partition").agg(pl.col("offset").unique().sort()).sort("partition")
    return " OR ".join(
        f"(partition = {int(partition)} AND offset IN ({', '.join(str(int(offset)) for offset in offsets)}))"
        for partition, offsets in places.iter_rows()
    )


def store_of(table_url: str) -> str:
    """Return the URL, or path, of the store that the table at ``table_url`` lies in."""
    return table_url.rstrip("/").rpartition("/")[0]
