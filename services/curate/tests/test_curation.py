"""Which requests follow from what happened: a real table and the handlers' answers; the log is a list."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRejected, DatasetRequested
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_curate.builds.building import Builder
from tunewheel_curate.builds.known import Known
from tunewheel_curate.curation import Curation
from tunewheel_curate.records.missing import MissingRecords
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.settings import Settings
from tunewheel_runtime.service import Position, Service

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Desk:
    """Curation of one project. What is published is known once the log is read again."""

    def __init__(self, folder: Path, spec: Any, records: Any) -> None:
        store = folder / "store"
        self.log: list[Envelope[Any]] = []
        self.known = Known()
        self.table = RecordTable(str(store / "records"))
        self._rows = records(*({"partition": 0, "offset": n} for n in range(5)))
        service = Service("curate", Settings(store_url=store.as_uri()))
        self.curation = Curation(
            service,
            table=self.table,
            projects={"shop": SimpleNamespace(data=SimpleNamespace(spec=spec()))},  # type: ignore[arg-type]
            known=self.known,
            followed=self,  # type: ignore[arg-type]
            builder=Builder(),
            missing=MissingRecords(service.store, service.warn),
            catch_up=self.catch_up,
        )
        self.arrived = 3

    async def refresh(self) -> None:
        for offset, event in enumerate(self.log):
            self.known.apply(event, Position(event.data.type, 0, offset))

    async def catch_up(self) -> None:
        self.table.append(self._rows[: self.arrived])

    async def drift(self, detector: str) -> Envelope[DatasetRequested] | None:
        return await self.curation.request_for_drift(alarm(detector))


def alarm(detector: str) -> Envelope[DriftDetected]:
    window = DriftWindow(
        first_completion_id="a", last_completion_id="b", completions=10, started_at=NOON, ended_at=NOON
    )
    data = DriftDetected.model_validate(
        {
            "project": "shop",
            "detector": detector,
            "statistic_name": "ks",
            "statistic": 0.5,
            "p_value": 0.001,
            "threshold": 0.01,
            "dataset_id": "ds-before",
            "model_id": "m",
            "window": window,
        }
    )
    return new_event(data, source="/test")


def rejected(request: Envelope[DatasetRequested]) -> Envelope[DatasetRejected]:
    data = DatasetRejected(project="shop", spec_sha256="0" * 64, rows_sha256="0" * 64, reasons=("no",))
    return new_event(data, source="/test", cause=request)


@pytest.fixture
def desk(tmp_path: Path, spec, records) -> Desk:
    return Desk(tmp_path, spec, records)


async def test_an_alarm_is_one_request_that_names_its_records(desk: Desk) -> None:
    request = await desk.drift("input")
    assert request is not None
    assert (request.data.reason, request.data.records_upto) == (BuildReason.DRIFT, {"0": 3})
    desk.log.append(request)
    desk.arrived = 5
    assert await desk.drift("input") is None, "delivered again"
    desk.log.append(rejected(request))
    assert await desk.drift("input") is None, "delivered again, after all"


async def test_no_build_is_asked_for_while_one_is_open(desk: Desk) -> None:
    command = DatasetRequested(
        project="shop", reason=BuildReason.COMMAND, request="by hand", records_upto={"0": 1}
    )
    first = new_event(command, source="/test")
    desk.log.append(first)
    assert await desk.drift("input") is None
    desk.log.append(rejected(first))
    request = await desk.drift("format")
    assert request is not None
    desk.log.append(request)
    assert await desk.drift("feedback") is None
    desk.log.append(rejected(request))
    assert await desk.drift("feedback") is not None


async def test_a_withdrawal_is_one_request_too(desk: Desk) -> None:
    open_build = DatasetRequested(
        project="shop", reason=BuildReason.COMMAND, request="by hand", records_upto={"0": 1}
    )
    desk.log.append(new_event(open_build, source="/test"))
    withdrawn = new_event(DocumentWithdrawn(project="shop", document_id="sop.md"), source="/test")
    request = await desk.curation.withdraw(withdrawn)
    assert request is not None
    assert request.data.records_upto == {"0": 3}
    desk.log.append(request)
    desk.arrived = 5
    assert await desk.curation.withdraw(withdrawn) is None
