"""What was removed from the log unread is told at every start, until somebody takes the note away."""

from __future__ import annotations

from pathlib import Path

from tunewheel_curate.records.missing import Gap, MissingRecords
from tunewheel_runtime.store import ObjectStore


class Start:
    """The gaps as one start of curate sees them."""

    def __init__(self, folder: Path) -> None:
        self.store = ObjectStore(folder.as_uri())
        self.warned: dict[str, str] = {}
        self.missing = MissingRecords(self.store, self.warned.__setitem__)


async def test_a_log_that_begins_where_the_table_ends_or_before_misses_nothing(tmp_path: Path) -> None:
    start = Start(tmp_path)
    await start.missing.compare(begins={0: 0, 1: 5, 2: 5}, reached={0: 0, 1: 5, 2: 9})
    await start.missing.recall()
    assert (start.missing.count, start.warned) == (0, {})


async def test_a_gap_is_told_at_every_start_until_its_note_is_removed(tmp_path: Path) -> None:
    first = Start(tmp_path)
    await first.missing.compare(begins={0: 9}, reached={0: 2})
    path = "missing-records/0-2-9.json"
    assert "7 records of record.ingested, partition 0, offsets 2 to 8" in first.warned[path]
    assert f"remove {path} from the store" in first.warned[path]

    later = Start(tmp_path)  # the table has moved past the gap by now
    await later.missing.recall()
    await later.missing.compare(begins={0: 9}, reached={0: 40})
    assert (later.missing.count, later.warned) == (7, first.warned)

    await later.store.delete([path])
    mended = Start(tmp_path)
    await mended.missing.recall()
    assert (mended.missing.count, mended.warned) == (0, {})


async def test_what_two_gaps_share_counts_once(tmp_path: Path) -> None:
    start = Start(tmp_path)
    for gap in (Gap(0, 0, 10), Gap(0, 4, 12), Gap(0, 20, 21), Gap(1, 0, 5)):
        await start.missing.compare(begins={gap.partition: gap.end}, reached={gap.partition: gap.first})
    assert start.missing.count == 12 + 1 + 5
