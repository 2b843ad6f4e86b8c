"""Records from the record table and from the log after it (both for real: tests/integration)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import new_event
from tunewheel_contracts.record_table import row_of, transaction_of
from tunewheel_index import records
from tunewheel_index.documents import Documents
from tunewheel_index.project import Project
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.log import Span

from .records import record
from .world import spec

TOPIC = "record.ingested"
COLUMNS = (
    "project",
    "record_id",
    "kind",
    "source_id",
    "source_event_id",
    "input",
    "group",
    "trust",
    "attributes",
    "published_at",
    "partition",
    "offset",
)


def write(folder: Path, *names: str, first: int = 0) -> str:
    """Append documents of one partition to a table, as curate does."""
    events = [new_event(record(name, f"About {name}."), source="/test") for name in names]
    rows = [row_of(event, partition=0, offset=first + at) for at, event in enumerate(events)]
    frame = pl.DataFrame([{name: row[name] for name in COLUMNS} for row in rows])
    reached = Transaction(transaction_of(0), first + len(names) - 1)
    write_deltalake(
        str(folder), frame, mode="append", commit_properties=CommitProperties(app_transactions=[reached])
    )
    return str(folder)


class Log:
    """A cursor on one partition that begins at ``begin``."""

    def __init__(self, begin: int, *names: str) -> None:
        self._begin, self._names = begin, names
        self.spans = {(TOPIC, 0): Span(begin, begin + len(names))}

    async def __aenter__(self) -> Log:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def start_from(self, begins: Mapping[Any, int]) -> None:
        self._at = dict(begins)

    async def upto(self, ends: Mapping[Any, int]) -> AsyncIterator[list[Undecoded]]:
        for place in ends:
            for offset in range(self._at[place], self._begin + len(self._names)):
                name = self._names[offset - self._begin]
                sent = new_event(record(name, f"About {name}."), source="/test").to_kafka()
                yield [Undecoded(Position(TOPIC, 0, offset), sent.key, sent.value, sent.headers, logged_ms=0)]


async def seen(url: str, log: Log, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the documents that a project reads which has seen nothing yet."""
    monkeypatch.setattr(records, "Cursor", lambda *_, **__: log)
    monkeypatch.setattr(records, "client_options", lambda _: {})
    project = Project(spec(), Documents(lambda _: False), is_whole=False)
    await records.read_again(project, None, settings=None, table_url=url)  # type: ignore[arg-type]
    return set(project.documents.current())


@pytest.mark.parametrize("begin", [0, 2, 3])
async def test_table_and_log_give_each_document_whether_they_overlap_or_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    url = write(tmp_path, "a", "b", "c")
    assert await seen(url, Log(begin, *"abcde"[begin:]), monkeypatch) == set("abcde")


async def test_a_gap_between_table_and_log_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransientError, match="lacks records"):
        await seen(write(tmp_path, "a", "b", "c"), Log(4, "e"), monkeypatch)
    with pytest.raises(TransientError, match="lacks records"):
        await seen(str(tmp_path / "none"), Log(1, "b"), monkeypatch)


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write(tmp_path, "a", "b", "c")
    assert await seen(url, Log(0, "x", "y"), monkeypatch) >= {"x", "y"}
    with pytest.raises(TransientError, match="lacks records"):
        await seen(url, Log(1, "y"), monkeypatch)


@pytest.mark.parametrize("lost", [".", "_delta_log"])
async def test_a_table_that_goes_while_it_is_read_is_waited_for(tmp_path: Path, lost: str) -> None:
    write(tmp_path / "t", "a", "b")
    table = records.RecordTable(write(tmp_path / "t", "c", first=2))
    shutil.rmtree(tmp_path / "t" / lost)
    asked = [lambda: table.reached(0), lambda: table.documents("shop", None, {})]
    for answer in await asyncio.gather(*map(asyncio.to_thread, asked), return_exceptions=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, TransientError)
