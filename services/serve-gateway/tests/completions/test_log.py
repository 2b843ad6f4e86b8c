from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_serve_gateway.completions import log as completion_log
from tunewheel_serve_gateway.completions import recording, writing
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.log import CompletionLog
from tunewheel_serve_gateway.completions.recall import RecentCompletions
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Spool
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_testing.waiting import until

SPEC = ProjectSpec.model_validate(
    {
        "project": "desk",
        "base_model": "any/model",
        "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
    }
)


def exchange(n: int, *, text: str = "hi") -> Exchange:
    made = Exchange("desk", f"c-{n}", "desk-1", RouteRole.PRODUCTION, (("user", text),))
    made.output = text
    made.finish(0.1)
    return made


class Log:
    """A completion log, its broker and its metrics."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.telemetry = make_telemetry("serve-gateway", None)
        self.metrics = Metrics(self.telemetry.meter)
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.errors: list[Exception] = []
        self.warnings: dict[str, str | None] = {}
        self.event_ids: list[str] = []
        self.asked = 0
        self.remembered: list[str] = []
        spool = {name: options.pop(name) for name in ("limit_bytes", "segment_bytes") if name in options}
        self.spool = Spool(directory, **spool)
        spec_of = options.pop("spec_of", lambda _: SPEC)
        recorder = Recorder(spec_of, lambda: "")
        self.log = CompletionLog(
            recorder,
            self._publish,
            self.metrics,
            self.spool,
            remember=lambda kept: self.remembered.append(kept.completion_id),
            warn=self.warnings.__setitem__,
            **options,
        )

    async def _publish(self, records: Any) -> None:
        self.asked += 1
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        if any(b"x" * 150 in r.value for r in records):
            raise InvalidEvent(field="(body)", reason="is over the limit")
        self.event_ids += [r.headers["ce_id"].decode() for r in records]
        self.batches.append([r.key.decode() for r in records])

    async def keep(self, *exchanges: Exchange) -> None:
        """Have all of them written, in their order."""
        await asyncio.gather(*map(self.log.keep, exchanges))

    @property
    def published(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def tells(self, name: str) -> int:
        """Return what Prometheus would read."""
        start = f'tunewheel_gateway_{name}{{service="serve-gateway"}} '
        (line,) = (one for one in self.telemetry.metrics_text().splitlines() if one.startswith(start))
        return int(line.removeprefix(start))


@pytest.fixture
def make_log(tmp_path: Path) -> Any:
    """Return a maker of logs over one folder: the second is the first one's next process."""

    async def make(**options: Any) -> Log:
        made = Log(tmp_path / "spool", **options)
        await made.log.recover()
        return made

    return make


async def test_completions_are_published_in_batches_and_in_order(make_log: Any):
    log = await make_log(batch=4)
    await log.keep(*map(exchange, range(10)))
    log.log.start()
    await until(lambda: len(log.published) == 10)
    assert log.published == log.remembered == [f"c-{n}" for n in range(10)]
    assert max(len(batch) for batch in log.batches) == 4
    await log.log.close(timeout_seconds=60)


async def test_a_full_disk_drops_the_newest_counts_it_and_tells(make_log: Any):
    log = await make_log(limit_bytes=5_000)
    log.open.clear()
    log.log.start()
    await log.keep(*map(exchange, range(50)))
    taken = log.spool.count
    assert 0 < taken < 50
    assert log.metrics.value("log.dropped") == log.tells("log_dropped_total") == 50 - taken
    assert log.tells("log_full") == 1
    assert log.tells("log_waiting") == taken
    assert len(log.remembered) == 50, "feedback reaches those that were dropped too"
    log.open.set()
    await until(lambda: log.published == [f"c-{n}" for n in range(taken)])
    await until(lambda: log.tells("log_waiting") == 0)  # the spool forgets what was published a moment later
    await log.keep(exchange(99))
    assert log.tells("log_full") == 0
    await log.log.close(timeout_seconds=60)
    assert log.published[-1] == "c-99"


async def test_a_broker_that_is_away_for_long_gets_everything_in_its_order(make_log: Any):
    log = await make_log(segment_bytes=1 << 20)
    log.errors = [TransientError("away")]
    log.open.clear()
    log.log.start()
    for first in range(0, 30_000, 500):
        for n in range(first, first + 499):
            log.log.offer(exchange(n))
        await log.keep(exchange(first + 499))
    await until(lambda: log.asked == 1)
    assert (log.spool.count, log.published) == (30_000, [])
    log.open.set()
    await until(lambda: len(log.published) == 30_000)
    assert log.published == [f"c-{n}" for n in range(30_000)]
    assert log.metrics.value("log.dropped") == 0
    await until(lambda: log.spool.size_bytes == 0)
    await log.log.close(timeout_seconds=60)


LARGE = "x" * 3_000


@pytest.mark.parametrize(
    "changes",
    [
        {"user": LARGE},
        {"error": LARGE},
        {"finish_reason": LARGE},
        {"output": LARGE},
        {"output": "🚲" * 700},  # four bytes each
        {"messages": (("user", "🚲" * 700),)},
        {"messages": (("user", ""),) * 40},
    ],
    ids=["user", "error", "finish_reason", "output", "wide output", "wide text", "many messages"],
)
async def test_whatever_makes_a_completion_large_counts(
    make_log: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
):
    monkeypatch.setattr(writing, "PENDING_BYTES", 6_500)
    log = await make_log()
    for n in range(2):  # the loop is held: the thread can tell of nothing yet
        large = exchange(n)
        for name, value in changes.items():
            setattr(large, name, value)
        log.log.offer(large)
    assert log.metrics.value("log.dropped") == 1
    await log.log.close(timeout_seconds=60)


def test_completions_in_memory_are_limited_in_number_and_bytes():
    made = Recorder(lambda _: SPEC, lambda: "").record([exchange(n, text="y" * 2_000) for n in range(3)])
    by_bytes, by_number = (
        RecentCompletions(limit=100, limit_bytes=13_000),
        RecentCompletions(limit=1, limit_bytes=1 << 20),
    )
    for kept in made:
        assert kept is not None
        by_bytes.remember(kept)
        by_number.remember(kept)
    assert (len(by_bytes), by_bytes.get("c-0")) == (2, None)
    assert (len(by_number), by_number.get("c-1")) == (1, None)
    found = by_number.get("c-2")
    assert found is not None
    assert found.data().output == "y" * 2_000


async def test_closing_flushes(make_log: Any):
    log = await make_log(linger_seconds=3600)
    log.log.start()
    for n in range(7):
        log.log.offer(exchange(n))
    await log.log.close(timeout_seconds=60)
    assert len(log.published) == 7


async def test_what_is_being_sent_at_the_close_is_not_sent_again(
    make_log: Any, monkeypatch: pytest.MonkeyPatch
):
    log = await make_log(batch=2)
    writer_stopped, stop = asyncio.Event(), writing.Writer.stop

    async def stopping(writer: writing.Writer) -> None:
        await stop(writer)
        writer_stopped.set()

    monkeypatch.setattr(writing.Writer, "stop", stopping)
    log.open.clear()
    log.log.start()
    await log.keep(*map(exchange, range(5)))
    await until(lambda: log.asked == 1)
    closing = asyncio.create_task(log.log.close(timeout_seconds=60))
    await writer_stopped.wait()
    for _ in range(10):  # Were the worker ended, it would be by now.
        await asyncio.sleep(0)
    log.open.set()
    await closing
    assert (log.asked, log.published) == (3, [f"c-{n}" for n in range(5)])


async def test_closing_without_a_broker_ends_and_the_next_process_publishes(make_log: Any):
    log = await make_log()
    log.open.clear()
    log.log.start()
    log.log.offer(exchange(0))
    await log.log.close(timeout_seconds=0.05)
    assert (log.published, log.metrics.value("log.dropped")) == ([], 0)
    after = await make_log()
    assert after.metrics.value("log.recovered") == 1
    await after.keep(exchange(1))
    after.log.start()
    await until(lambda: after.published == ["c-0", "c-1"])
    await after.log.close(timeout_seconds=60)
    assert after.spool.size_bytes == 0


async def test_an_unacknowledged_completion_is_published_again_under_the_same_id(make_log: Any):
    log = await make_log()
    await log.keep(exchange(0))
    await log._publish([one.record for one in log.spool.read(9).kept])  # and then it is killed
    log.spool.close()
    after = await make_log()
    after.log.start()
    await until(lambda: after.published == ["c-0"])
    assert after.event_ids == log.event_ids
    await after.log.close(timeout_seconds=60)


async def test_a_disk_that_hangs_stops_no_answer(make_log: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completion_log, "DISK_SECONDS", 0.01)
    log = await make_log()
    with log.spool._lock:
        await log.keep(exchange(0))
        assert log.metrics.value("log.unspooled") == 1
    await log.log.close(timeout_seconds=60)
    assert log.published == ["c-0"]


async def test_completions_that_cannot_be_read_wait_with_a_warning_and_damaged_ones_are_counted(
    make_log: Any, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    log = await make_log()
    await log.keep(*map(exchange, range(3)))
    (file,) = log.spool._directory.rglob("*.segment")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        log.log.start()
        await until(lambda: log.warnings.get("completions_unread"))
        await log.keep(exchange(3))
        assert (log.published, log.tells("log_waiting"), log.tells("log_dropped_total")) == ([], 4, 0)
    await until(lambda: log.published == ["c-0", "c-2", "c-3"])
    await until(lambda: log.tells("log_dropped_total") == 1)
    assert log.warnings["completions_unread"] is None
    await log.log.close(timeout_seconds=60)


@pytest.mark.parametrize("text", ["x" * 200, "\ud800"], ids=["too large", "no unicode"])
async def test_an_event_that_is_not_acceptable_does_not_hold_up_the_others(make_log: Any, text: str):
    log = await make_log()
    await log.keep(exchange(0), exchange(1, text=text), exchange(2))
    log.log.start()
    await until(lambda: log.published == ["c-0", "c-2"])
    assert log.metrics.value("log.dropped") == 1
    await until(lambda: log.spool.size_bytes == 0)
    await log.log.close(timeout_seconds=60)


def test_the_pieces_of_a_stream_are_not_held_once_it_is_over():
    streamed = Exchange("desk", "c-0", "desk-1", RouteRole.PRODUCTION, (("user", "hi"),))
    for piece in ("Good", " day"):
        assert streamed.take_chunk({"choices": [{"delta": {"content": piece}}]})
    streamed.finish(0.1)
    assert (streamed.output, streamed._parts) == ("Good day", [])


@pytest.mark.parametrize(
    "delta", [{"content": "a"}, {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}]
)
def test_the_pieces_of_all_answers_count_where_the_client_leaves_before_the_usage(delta: dict[str, Any]):
    left = Exchange("desk", "c-0", "desk-1", RouteRole.PRODUCTION, (("user", "hi"),))
    for n in range(48):
        assert left.take_chunk({"choices": [{"index": n % 16, "delta": delta}]})
    assert left.said_tokens == 48
    left.cancel()
    left.finish(0.1)
    assert left.said_tokens == 48


async def test_a_log_that_breaks_stops_the_service(world: Any):
    async def broken(_: Any) -> None:
        raise RuntimeError("a bug")

    whole, world.gateway.log._publish_records = world.gateway.log._publish_records, broken
    await world.said()
    await until(lambda: world.broker.failures)
    assert str(world.broker.failures[0]) == "a bug"
    assert await world.said() == "desk-1: hello"
    world.gateway.log._publish_records = whole


async def test_a_thread_that_breaks_stops_the_service_and_no_answer(
    world: Any, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(completion_log, "DISK_SECONDS", 0.01)
    monkeypatch.setattr(Recorder, "record", broken)
    assert await world.said() == "desk-1: hello"
    await until(lambda: world.broker.failures)
    assert str(world.broker.failures[0]) == "a bug"
    assert await world.said() == "desk-1: hello"


def by(n: int, user: str) -> Exchange:
    made = exchange(n, text=f"I am {user}")
    made.user = user
    return made


def is_erased(one: Kept) -> bool:
    return one.customer == "C-7"


def on_disk(log: Any) -> bytes:
    return b"".join(path.read_bytes() for path in log.spool._directory.rglob("*.segment"))


async def test_erased_completions_leave_the_queue_and_the_disk(make_log: Any):
    erased: set[str] = set()
    log = await make_log(batch=2, is_erased=lambda one: one.customer in erased)
    log.open.clear()
    await log.keep(*(by(n, user) for n, user in enumerate(("C-1", "C-7", "C-7", "C-2"))))
    log.log.start()
    await until(lambda: log.asked == 1)
    erased.add("C-7")
    log.log.forget()
    await log.keep(by(4, "C-3"))
    with pytest.raises(TransientError):
        await log.log.forgotten(timeout_seconds=0.01)
    log.open.set()
    await log.log.forgotten(timeout_seconds=60)
    assert b"C-7" not in on_disk(log)
    await until(lambda: log.published == ["c-0", "c-1", "c-3", "c-4"])  # c-1 was on its way
    await log.log.close(timeout_seconds=60)
    assert log.spool.size_bytes == 0


async def test_completions_erased_while_the_process_was_down_are_not_published(make_log: Any):
    log = await make_log()
    log.open.clear()
    await log.keep(by(0, "C-7"), by(1, "C-1"))
    await log.log.close(timeout_seconds=0.01)
    after = await make_log(is_erased=is_erased)
    after.log.forget()
    after.log.start()
    await after.log.forgotten(timeout_seconds=60)
    assert after.published == ["c-1"]
    assert b"C-7" not in on_disk(after)
    await after.log.close(timeout_seconds=60)


async def test_completions_left_behind_by_an_ended_process_are_erased_too(make_log: Any):
    gone, log = await make_log(), await make_log(is_erased=is_erased)
    gone.open.clear()
    await gone.keep(by(0, "C-7"), by(1, "C-1"))
    await gone.log.close(timeout_seconds=0.01)
    log.log.start()
    log.log.forget()
    await log.keep(by(2, "C-2"))
    await log.log.forgotten(timeout_seconds=60)
    assert b"C-7" not in on_disk(log)
    assert log.metrics.value("log.recovered") == 2
    await log.log.close(timeout_seconds=60)
    assert sorted(log.published) == ["c-1", "c-2"]


async def test_no_erasure_is_told_done_while_the_folders_cannot_be_looked_at(
    make_log: Any, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: Any) -> None:
        raise OSError(24, "Too many open files")

    log = await make_log()
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse)
        log.log.forget()
        with pytest.raises(TransientError):
            await log.log.forgotten(timeout_seconds=0.01)
        await until(lambda: not log.log._marks)
        assert await log.keep(exchange(0)) is None
    log.log.start()
    await log.log.forgotten(timeout_seconds=60)
    await log.log.close(timeout_seconds=60)
    assert log.published == ["c-0"]


async def test_completions_of_ended_processes_are_published_by_a_running_one(
    make_log: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(completion_log, "ADOPT_SECONDS", 0.0)
    gone, log = await make_log(), await make_log()
    await gone.keep(exchange(0))
    log.log.start()
    gone.spool.close()
    await until(lambda: log.published == ["c-0"])
    await gone.log._writer.stop()
    await log.log.close(timeout_seconds=60)
    assert not list(log.spool._directory.iterdir())


@pytest.fixture
def redaction(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Redaction of project ``slow`` that lasts until it is let go."""
    let_go = threading.Event()

    def redacted(_: Any, exchanges: Any) -> Any:
        let_go.wait()
        return [recording.without_texts(one) for one in exchanges]

    monkeypatch.setattr(recording, "redacted", redacted)
    monkeypatch.setattr(completion_log, "DISK_SECONDS", 3_600.0)  # whoever waits for another waits for ever
    yield let_go
    let_go.set()


def spec_of(project: str) -> Any:
    serving = SPEC.serving.model_copy(update={"log": "redacted" if project == "slow" else "full"})
    return SPEC.model_copy(update={"project": project, "serving": serving})


def redacted_one(n: int) -> Exchange:
    made = by(n, "C-7")
    made.project = "slow"
    return made


async def test_no_answer_waits_for_the_redaction_of_another_project_or_is_dropped_for_it(
    make_log: Any, redaction: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writing, "PENDING_BYTES", 2_000)
    log = await make_log(spec_of=spec_of)
    for n in range(3):
        log.log.offer(redacted_one(n))
    assert log.metrics.value("log.dropped") == 1, "of the project itself"
    for n in (3, 4):
        await log.keep(exchange(n))
    assert log.remembered == ["c-3", "c-4"]
    redaction.set()
    await log.log.close(timeout_seconds=60)
    assert sorted(log.published) == ["c-0", "c-1", "c-3", "c-4"]


async def test_an_erasure_is_not_told_done_before_what_is_being_redacted_is_dropped(
    make_log: Any, redaction: threading.Event
):
    log = await make_log(spec_of=spec_of, is_erased=is_erased)
    log.log.start()
    log.log.offer(redacted_one(0))
    log.log.forget()
    await log.keep(exchange(1))
    with pytest.raises(TransientError):
        await log.log.forgotten(timeout_seconds=0.01)
    redaction.set()
    await log.log.forgotten(timeout_seconds=60)
    assert b"C-7" not in on_disk(log)
    await log.log.close(timeout_seconds=60)
    assert log.published == ["c-1"]


async def test_an_erasure_does_not_wait_if_the_disk_is_empty(make_log: Any):
    log = await make_log()
    log.log.forget()
    await log.log.forgotten(timeout_seconds=60)
    await log.log.close(timeout_seconds=60)


async def test_a_client_s_name_for_the_user_that_no_event_can_hold_loses_no_completion(make_log: Any):
    log, odd = await make_log(), exchange(0)
    odd.user = LARGE
    await log.keep(odd, by(1, "C-1"))
    assert [one.customer for one in log.spool.read(9).kept] == [None, "C-1"]
    log.log.start()
    await until(lambda: log.published == ["c-0", "c-1"])
    await log.log.close(timeout_seconds=60)
