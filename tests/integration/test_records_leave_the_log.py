"""Records leave the log once curate's table has them; the index reads them there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.identity import content_id
from tunewheel_curate.main import make_app
from tunewheel_curate.records.log import GROUP
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.settings import Settings
from tunewheel_runtime.log import ends
from tunewheel_runtime.partitions import group_backlog
from tunewheel_runtime.service import Service
from tunewheel_testing.specs import declared

from .bus import Bus, running, until
from .test_index import Reader, documents, index, published

pytestmark = pytest.mark.integration


def ticket(project: str) -> Envelope[RecordIngested]:
    data = RecordIngested(
        project=project, record_id=content_id("rec", project), kind=RecordKind.TICKET, source_id="T-1",
        source_event_id="e", input="text", output="{}", group="jane",
    )  # fmt: skip
    return new_event(data, source="/test")


class Curate:
    """Curate with a setting by which each start deletes what the table has."""

    def __init__(self, kafka: str, store: Path) -> None:
        self._settings = Settings(bootstrap_servers=kafka, store_url=store.as_uri(), record_days=0)
        self._kafka, self._table = {"bootstrap_servers": kafka}, RecordTable(str(store / "records"))

    def app(self) -> Service:
        return make_app(self._settings)

    async def takes(self, count: int) -> None:
        """Run until the table has ``count`` rows and the group has committed them, and once more until they
        have left the log."""
        async with running(self.app()):
            await until(lambda: self._table.arrivals().height == count)
            await until(self._is_committed)
        async with running(self.app()):

            async def left() -> bool:
                return await self.on_log() == 0

            await until(left)

    async def _is_committed(self) -> bool:
        backlog = await group_backlog(self._kafka, topics.RECORD_INGESTED.name, group=GROUP)
        return backlog.kept == backlog.ends

    async def on_log(self) -> int:
        spans = await ends(self._kafka, [topics.RECORD_INGESTED.name])
        return sum(end - begin for begin, end in spans.values())


async def test_the_index_has_every_document_after_its_record_left_the_log(
    fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    curate, seen = Curate(fresh_kafka, tmp_path), {"a.md", "b.md"}
    async with Bus(fresh_kafka) as bus:
        reader = Reader(bus, tmp_path, project)
        await bus.publish(declared(project), ticket(project))
        await bus.publish(*(published(project, name, f"About {name}.") for name in sorted(seen)))
        await curate.takes(3)
        await bus.publish(published(project, "c.md", "About c.md, on the log alone."))
        async with running(index(fresh_kafka, tmp_path)):
            await bus.publish(declared(project, retrieval={}))
            _, first = await reader.next()
            assert documents(first) == seen | {"c.md"}, "a project that begins to retrieve"
            await bus.publish(declared(project, retrieval={"passage_tokens": 16, "budget_tokens": 16}))
            _, other = await reader.next()
            assert documents(other) == documents(first), "another configuration"
        await bus.publish(published(project, "d.md", "About d.md."), published(project, "a.md", "New words."))
        await curate.takes(6)
        async with running(index(fresh_kafka, tmp_path)):
            event, last = await reader.next()
        assert documents(last) == {"a.md", "b.md", "c.md", "d.md"}, "an index that was away"
        assert [row.text for row in last.rows if row.document_id == "a.md"] == ["New words."]
        assert event.changed == 2


@pytest.mark.nightly("matrices")
async def test_a_lost_table_is_told_and_what_is_left_stays_on_the_log(
    fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    curate = Curate(fresh_kafka, tmp_path)
    async with Bus(fresh_kafka) as bus:
        await bus.publish(declared(project), ticket(project))
        await curate.takes(1)
        shutil.move(tmp_path / "records", tmp_path / "backup")
        await bus.publish(published(project, "a.md", "After the loss."))
        for _ in range(2):
            async with running(curate.app()) as service:
                warnings = str(service.health.state()["warnings"])
        assert "a backup is missing: 1 records" in warnings
        assert await curate.on_log() == 1
        shutil.rmtree(tmp_path / "records")
        shutil.move(tmp_path / "backup", tmp_path / "records")
        shutil.rmtree(tmp_path / "missing-records")
        await curate.takes(2)
        assert not (tmp_path / "missing-records").exists()
