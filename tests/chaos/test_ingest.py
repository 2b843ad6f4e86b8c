"""Ingest killed with -9 right after it deleted handled tickets from the log: no ticket is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_testing.specs import declared

from ..integration.bus import Bus, process, until

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("kills")]
AT_ONCE = {"TUNEWHEEL_UPSTREAM_DAYS": "0", "TUNEWHEEL_IDENTITY": "open"}
COUNT = 100
DELETED = b"records_deleted"
PATIENCE_SECONDS = 300


async def test_every_ticket_becomes_a_record_although_each_start_deletes_what_was_handled(
    fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    def ticket(number: int) -> Envelope[TicketPublished]:
        data = TicketPublished(project=project, ticket_id=f"T-{number}", body="text")
        return new_event(data, source="/test")

    async def records(count: int) -> set[str]:
        """Wait for the records of so many tickets. A killed process may have said some that come again."""
        seen = set[str]()

        def is_new(event: Envelope[RecordIngested]) -> bool:
            before = len(seen)
            seen.add(event.data.source_id)
            return len(seen) > before

        await bus.collect(topics.RECORD_INGESTED, count, where=is_new, patience=PATIENCE_SECONDS)
        return seen

    log = tmp_path / "log"
    app = ("tunewheel_ingest.main", fresh_kafka, tmp_path / "store", log)
    async with Bus(fresh_kafka) as bus:
        await bus.publish(declared(project), *map(ticket, range(COUNT)))
        with process(*app, **AT_ONCE) as ingest:
            await records(COUNT)
            ingest.terminate()  # and commit
            ingest.wait(PATIENCE_SECONDS)
        await bus.publish(*map(ticket, range(COUNT, 2 * COUNT)))
        with process(*app, **AT_ONCE) as ingest:
            await until(lambda: DELETED in log.read_bytes(), patience=PATIENCE_SECONDS)
            ingest.kill()
        await bus.publish(*map(ticket, range(2 * COUNT, 3 * COUNT)))
        with process(*app, **AT_ONCE):
            seen = await records(3 * COUNT)
    assert seen == {f"T-{number}" for number in range(3 * COUNT)}
