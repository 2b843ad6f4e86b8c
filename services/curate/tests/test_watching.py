"""Silence is a table that does not grow although nothing is left on the log; no clock but the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.erasures import Erasure, erasure_of
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRejected, DatasetRequested, RecordJudged
from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.events.turns import AlarmAnswer, TurnDecided
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_curate import watching
from tunewheel_curate.builds.log_state import LogState
from tunewheel_curate.builds.policy import Pending, pending_records
from tunewheel_curate.records.log import Backlog
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.watching import TELL_AGAIN_SECONDS, Watch
from tunewheel_runtime.service import Position

HOUR = 3_600.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALARM = DriftDetected(
    project="shop", detector="input", statistic_name="novel", statistic=0.5, p_value=0.001, threshold=0.1,
    dataset_id="ds-1", model_id="m", alarm_id="alarm-1",
    window=DriftWindow(
        first_completion_id="a", last_completion_id="b", completions=9, started_at=NOON, ended_at=NOON
    ),
)  # fmt: skip


class Shop:
    """One project, what is on the log of its records, and what of that is in the table."""

    def __init__(self, folder: Path, spec: Any, records: Any) -> None:
        self.table = RecordTable(str(folder / "records"))
        self.published: list[Envelope[Any]] = []
        self.now = 0.0
        self._records = records
        self.logged = self.kept = 0
        self.asked = 0
        self.state = LogState()
        declared = new_event(
            ProjectDeclared(
                project="shop",
                spec=spec(build={"min_new_records": 99, "quiet_seconds": 5, "quiet_min_records": 3}),
            ),
            source="/test",
        )
        curation: Any = SimpleNamespace(
            table=self.table,
            projects={"shop": declared},
            state=self.state,
            request_for_policy=lambda project, reason, pending: new_event(
                DatasetRequested(
                    project=project, reason=reason, request=pending.request, records_upto=pending.upto
                ),
                source="/test",
            ),
            request_for_drift=self._due,
            holds=self._holds,
            built_upto=self._built_upto,
            decision=lambda _: self.decided,
            recall_erasures=self._recall,
        )
        self.carried_out: list[Erasure] = []
        """The erasures whose findings are stored."""
        self.decided: TurnDecided | None = None
        self.due: Envelope[DatasetRequested] | None = None
        self.held = False
        self.meanwhile: Envelope[DatasetRequested] | None = None
        """A request that is on the log, and that was not read from it yet."""
        service: Any = SimpleNamespace(
            publish=self._publish, new=lambda data: new_event(data, source="/test")
        )
        self._watch = Watch(
            service, curation, seconds=1, compact_files=99, read_backlog=self._backlog, clock=lambda: self.now
        )

    async def _recall(self) -> list[Erasure]:
        return self.carried_out

    async def _due(self, _: str) -> Envelope[DatasetRequested] | None:
        due, self.due = self.due, None
        return due

    async def _holds(self, _: str, __: BuildReason) -> bool:
        return self.held

    async def _built_upto(self, project: str) -> dict[str, int]:
        if self.meanwhile is not None:
            self.state.requested(self.meanwhile)
        return self.state.history.built_upto(project)

    async def _publish(self, event: Envelope[Any]) -> None:
        self.published.append(event)

    async def _backlog(self) -> Backlog:
        self.asked += 1
        return Backlog({0: self.logged}, {0: self.kept})

    def log(self, count: int) -> None:
        self.logged += count

    def keep(self, count: int) -> None:
        rows = [{"record_id": f"rec-{n}", "partition": 0, "offset": n} for n in range(self.kept + count)]
        self.table.append(self._records(*rows)[self.kept :])
        self.kept += count

    async def look(self, *, times: int = 3) -> None:
        for _ in range(times):
            await self._watch.look()


@pytest.fixture
def shop(tmp_path: Path, spec, records) -> Shop:
    return Shop(tmp_path, spec, records)


def counts(shop: Shop) -> list[dict[str, int] | None]:
    assert {event.data.reason for event in shop.published} <= {BuildReason.QUIET}
    return [event.data.records_upto for event in shop.published]


async def test_what_waits_on_the_log_is_in_the_build_that_silence_asks_for(shop: Shop) -> None:
    shop.log(5)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR  # whoever appends was stalled
    await shop.look()
    assert counts(shop) == []
    shop.keep(2)
    await shop.look()
    assert counts(shop) == [], "the last of them came just now"
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == [{"0": 5}]


async def test_rows_of_an_erasure_stay_until_its_finding_is_stored_and_rows_of_others_always(
    shop: Shop, records: Any
) -> None:
    rows = records(*({"record_id": f"rec-{n}", "offset": n, "group": f"person-{n % 2}"} for n in range(5)))
    shop.table.append(rows.head(4))
    data = ErasureRequested(project="shop", erasure_id="e", customer="person-0", requested_by="privacy")
    asked = new_event(data, source="/test")
    shop.state.apply(asked, Position("erasure.requested", 0, 0))
    await shop.look()
    assert shop.table.arrivals().height == 4, "the finding would count nothing"
    shop.carried_out = [erasure_of(asked)]
    shop.table.append(rows.tail(1))  # by a replica that has not read the erasure
    await shop.look()
    assert sorted(shop.table.arrivals()["record_id"]) == ["rec-1", "rec-3"]


@pytest.mark.parametrize("erased", [1, 3])
async def test_no_build_is_asked_for_records_that_were_erased(shop: Shop, erased: int) -> None:
    """Also if nothing of the project is left."""
    shop.log(3)
    shop.keep(3)
    await shop.look()
    shop.table.erase(shop.table.arrivals().head(erased))
    await shop.look()
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == []
    shop.log(3)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == [{"0": 6}]


async def test_records_are_counted_again_only_after_a_change(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a million records, a count every half second would keep a processor busy for ever."""
    counted: list[int] = []

    def count(rows: pl.DataFrame, *arguments: Any, **options: Any) -> Pending:
        counted.append(rows.height)
        return pending_records(rows, *arguments, **options)

    monkeypatch.setattr(watching, "pending_records", count)
    shop.keep(2)
    await shop.look(times=5)
    shop.keep(3)
    await shop.look(times=5)
    assert counted == [], "while records arrive, even all of them are too few"
    shop.log(5)
    shop.now += HOUR
    shop.held = True
    await shop.look(times=5)
    assert counted == [5]
    withdrawn = DocumentWithdrawn(project="shop", document_id="T-0", kind="ticket")
    shop.state.apply(new_event(withdrawn, source="/test"), Position("document.withdrawn", 0, 0))
    await shop.look(times=5)
    assert counted == [5, 5]
    shop.held = False
    await shop.look(times=5)
    assert counts(shop) == [{"0": 5}]
    assert counted == [5, 5, 5], "once more for the request's name"


async def test_records_that_are_enough_only_with_those_that_teach_nothing_are_not_asked_for(
    shop: Shop, records: Any
) -> None:
    rows = [{"record_id": f"rec-{n}", "partition": 0, "offset": n} for n in range(5)]
    shop.table.append(records(*rows[:2], *(row | {"output": None} for row in rows[2:])))
    shop.log(5)
    shop.kept = 5
    await shop.look()
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == []


async def test_what_others_publish_meanwhile_is_not_waited_for(shop: Shop) -> None:
    shop.log(5)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR
    await shop.look()
    shop.log(100)
    shop.kept = 5  # two of another project
    await shop.look()
    assert counts(shop) == [{"0": 3}]


async def test_what_is_appended_between_two_looks_is_in_the_build(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.log(5)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR
    read = shop._watch._read_backlog

    async def after_the_last_came() -> Backlog:
        shop.keep(2)  # this look has read the table already
        return await read()

    with monkeypatch.context() as patched:
        patched.setattr(shop._watch, "_read_backlog", after_the_last_came)
        await shop.look(times=1)
    await shop.look()
    assert counts(shop) == []
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == [{"0": 5}]


async def test_the_log_is_asked_when_silence_is_at_hand_and_not_before(shop: Shop) -> None:
    shop.log(3)
    shop.keep(3)
    await shop.look()
    assert shop.asked == 0
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == [{"0": 3}]
    await shop.look()
    assert shop.asked == 1


async def test_fewer_records_than_the_floor_wait_for_others(shop: Shop) -> None:
    for kept in (3, 2, 1):
        shop.log(kept)
        shop.keep(kept)
        await shop.look()
        shop.now += HOUR
        await shop.look()
    assert counts(shop) == [{"0": 3}, {"0": 6}], "two waited, and then were three with the next"


async def test_records_that_a_request_on_the_log_names_are_not_asked_for_again(shop: Shop) -> None:
    shop.log(3)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR
    asked = DatasetRequested(project="shop", reason=BuildReason.COMMAND, request="r", records_upto={"0": 3})
    shop.meanwhile = new_event(asked, source="/test")
    await shop.look()
    assert counts(shop) == []


async def test_a_release_asks_for_a_build_once_and_again_for_what_that_build_lacks(shop: Shop) -> None:
    """The decisions that a build knew are in its answer."""
    history, judgements = shop.state.history, shop.state.judgements

    def decide(number: int, offset: int, verdict: str = "release") -> None:
        data = RecordJudged(project="shop", record_id=f"rec-{number}", verdict=verdict, request=f"r{offset}")
        judgements.apply(new_event(data, source="/test"), 0, offset)

    async def answered(judged_upto: int) -> None:
        data = DatasetRejected(
            project="shop", spec_sha256="0" * 64, rows_sha256="0" * 64, reasons=("no",),
            records_upto={"0": 12}, judged_upto={"0": judged_upto},
        )  # fmt: skip
        history.apply(new_event(data, source="/test", cause=shop.published[-1]))
        shop.now += 100
        await shop.look()

    shop.log(12)
    shop.keep(12)
    await shop.look()
    shop.now += 100
    await shop.look()
    assert len(shop.published) == 1
    for number in range(10):
        decide(number, number)
    shop.now += 100
    await shop.look()
    assert len(shop.published) == 1, "a build is under way"
    await answered(0)
    assert len(shop.published) == 2
    await shop.look()
    decide(0, 10, "refuse")
    decide(11, 11)
    await answered(10)
    assert len(shop.published) == 2, "one release is fewer than quiet_min_records"
    for number in range(10):
        decide(number, 12 + number)
    await shop.look()
    assert len(shop.published) == 2, "more may be released at once"
    await answered(10)
    assert len(shop.published) == 3
    assert len({event.id for event in shop.published}) == 3


async def test_what_records_ask_for_waits_for_as_long_as_a_turn_holds_it_up(shop: Shop) -> None:
    shop.held = True
    shop.log(3)
    shop.keep(3)
    await shop.look()
    shop.now += HOUR
    await shop.look()
    assert counts(shop) == []
    shop.held = False
    await shop.look()
    assert counts(shop) == [{"0": 3}]


async def test_the_turn_that_an_alarm_leads_to_is_asked_for_when_it_is_due(shop: Shop) -> None:
    """Cooldown, labels and month end without an event: the watch looks again."""
    asked = DatasetRequested(
        project="shop",
        reason=BuildReason.DRIFT,
        request="alarm-1",
        records_upto={"0": 3},
        alarm_ids=("alarm-1",),
    )
    shop.due = new_event(asked, source="/test")
    await shop.look()
    assert shop.published == [], "no alarm is open"
    shop.state.turns.apply(new_event(ALARM, source="/test"))
    await shop.look()
    assert [event.data.request for event in shop.published] == ["alarm-1"]
    assert shop.state.history.has_requested("shop", shop.published[0].id)


def decision(step: str, *alarms: str) -> TurnDecided:
    answers = (AlarmAnswer(alarm_id=name, detector="input", follows="retrain") for name in alarms)
    return TurnDecided(project="shop", step=step, alarm_ids=alarms, alarms=tuple(answers))


async def test_a_decision_is_told_when_it_changes_and_once_when_the_alarms_are_over(shop: Shop) -> None:
    shop.state.turns.apply(new_event(ALARM, source="/test"))
    for step in ("waits for labels", "cools down", "waits for labels"):
        shop.decided = decision(step, "alarm-1")
        await shop.look()
    over = DriftResolved(
        project="shop", alarm_id="alarm-1", detector="input", dataset_id="ds-1", model_id="m",
        reason="calm", raised_at=NOON, resolved_at=NOON,
    )  # fmt: skip
    shop.state.turns.apply(new_event(over, source="/test"))
    shop.decided = decision("no alarm is open")
    await shop.look()
    steps = [event.data.step for event in shop.published]
    assert steps == ["waits for labels", "cools down", "waits for labels", "no alarm is open"]


async def test_what_another_replica_or_the_process_before_told_is_not_told_again(shop: Shop) -> None:
    shop.state.turns.apply(new_event(ALARM, source="/test"))
    shop.decided = decision("waits for labels", "alarm-1")
    shop.state.decided(new_event(shop.decided, source="/test"))
    await shop.look()
    assert shop.published == []
    shop.state.decided(new_event(decision("cools down", "alarm-1"), source="/test"))
    await shop.look()
    assert shop.published == [], "two that disagree would contradict each other for ever"
    shop.now += TELL_AGAIN_SECONDS - 1
    await shop.look()
    assert shop.published == []
    shop.now += 1
    await shop.look()
    assert [event.data.step for event in shop.published] == ["waits for labels"], "the other may be gone"
    assert shop.state.decision("shop") == shop.decided


def test_the_last_decision_on_the_log_holds_whatever_its_clock_said() -> None:
    known = LogState()

    def read(step: str, hour: int, partition: int, offset: int) -> str:
        event = new_event(decision(step), source="/test", time=NOON + timedelta(hours=hour))
        for _ in range(2):
            known.apply(event, Position(event.data.type, partition, offset))
        held = known.decision("shop")
        assert held is not None
        return held.step

    assert read("cools down", 1, 0, 7) == "cools down"
    assert read("retrains", 0, 0, 8) == "retrains", "told later, by a clock that is behind"
    assert read("cools down", 1, 0, 7) == "retrains", "was read before"
    assert read("no alarm is open", -1, 1, 9) == "retrains", "of another partition: time decides"
    assert read("no alarm is open", 1, 1, 10) == "no alarm is open"
