"""``Service``: one process that consumes and publishes events. Every service's ``make_app`` builds one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, NoReturn, TypeVar

import structlog
from faststream.kafka import KafkaBroker
from starlette.applications import Starlette
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.topics import TOPICS, TopicSpec

from tunewheel_runtime.broker_watch import BrokerWatch
from tunewheel_runtime.consuming import Consumption, Delivery
from tunewheel_runtime.deadletter import Check, DeadLetters, Position, Undecoded
from tunewheel_runtime.erased_letters import is_erased
from tunewheel_runtime.foreign_topics import Foreign, ForeignReader, Handled
from tunewheel_runtime.handling import Instruments
from tunewheel_runtime.health import Health
from tunewheel_runtime.identity.access import Access, NoIdentity
from tunewheel_runtime.identity.passes import Passes
from tunewheel_runtime.identity.signatures import Signatures
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.leadership import Leadership
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.metrics import gauge
from tunewheel_runtime.newer_releases import NewerReleases
from tunewheel_runtime.partitions import Backlog, Settled
from tunewheel_runtime.publishing import Publisher, Tombstone
from tunewheel_runtime.request_ids import RequestIds
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service_doors import ServiceDoors
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.subscriptions import Subscriptions
from tunewheel_runtime.telemetry import Telemetry, make_telemetry
from tunewheel_runtime.tls import InvalidTls
from tunewheel_runtime.view import Apply, ApplyAt, Begins, Forget, Keep, LogReader, View
from tunewheel_runtime.waiting import end_all

__all__ = ["Delivery", "Lease", "LeaseLost", "Position", "Service"]

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)
H = TypeVar("H", bound=Callable[..., Any])
Hook = Callable[[], Awaitable[None]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@contextlib.contextmanager
def uncollected() -> Generator[None]:
    """Collect no garbage meanwhile, and never look at what was made by then again.

    What is read of the log stays as long as the process. Full collections would look at all of it again and
    again: that took two fifths of the time in which the console read a log, and stopped it for seconds later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Service:
    """A process that consumes events, handles them and publishes the results.

    Start order: telemetry, producer, leadership (if only one process at a time is active), the offsets from
    which commands are signed, views and replays (read to the end), startup hooks, subscriptions. A hot
    standby reads its views and replays before it waits for the leadership. Until the start is complete
    ``/health/ready`` answers 503, except for a standby.

    A handler's ``InvalidEvent`` makes a dead letter, and its ``TransientError`` is retried. Any other
    exception stops the process with exit code 1; the offset is not committed. But a record of an upstream
    topic on which a handler fails again and again becomes a dead letter of the kind ``crashed``.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        *,
        telemetry: Telemetry | None = None,
        needs_broker: bool = True,
    ) -> None:
        self.name = name
        self.settings = settings
        self.telemetry = telemetry or make_telemetry(name, settings.otlp_endpoint, instance=settings.instance)
        self.store = ObjectStore(settings.store_url, self.telemetry.meter)
        self.publisher = Publisher(settings, self.telemetry)
        self._signatures = Signatures(name, settings, self.store)
        self.publisher.sign = self._signatures.sign
        self.publisher.seal = self._signatures.seal
        self._broker_watch = BrokerWatch(
            self.publisher.reach,
            lambda: self._subscriptions.lag(),
            patience_seconds=settings.broker_lost_seconds,
        )
        self._health = Health(name, self._broker_watch)
        self._health.needs_broker = needs_broker
        self._doors = ServiceDoors(name, settings, self.telemetry, self._health)
        self.passes = Passes(name, self._signatures)
        self.access.read_pass = self.passes.read
        self._backoff = Backoff.of(settings)
        self._dead_letters = self._make_dead_letters()
        instruments = Instruments.of(self.telemetry)
        self._newer = NewerReleases(self._health.warn, self.telemetry.meter)
        check = self._signatures.check
        consumption = self._consumption = Consumption(
            self.publisher, self._dead_letters, self._backoff, instruments, self._newer, check
        )
        self._subscriptions = Subscriptions(name, settings, consumption, failed=self.fail)
        self._leadership: Leadership | None = None
        self._is_hot_standby = False
        self._readers: list[LogReader] = []
        self._has_process = False
        """Whether the process is this service's alone. The garbage of others is not its affair."""
        self._startup: list[Hook] = []
        self._shutdown: list[Hook] = []
        self._without_broker: tuple[Callable[[], Awaitable[bool]], float] | None = None
        self._stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self._measure()

    def _measure(self) -> None:
        self._health.measure(self.telemetry.meter)
        gauge(
            self.telemetry.meter,
            "tunewheel.jobs.running",
            "Jobs that are under way, or wait for their turn, in this process",
            lambda: self._subscriptions.running_jobs,
            ("topic",),
        )

    def _make_dead_letters(self) -> DeadLetters:
        counter = self.telemetry.meter.create_counter(
            "tunewheel.events.dead_lettered", description="Events refused, by topic and kind"
        )
        return DeadLetters(
            self.publisher,
            self._backoff,
            counter,
            self._health.warn,
            service=self.name,
            limit=self.settings.dead_letter_limit,
            window=self.settings.dead_letter_window,
        )

    @property
    def access(self) -> Access:
        """Identifies callers and the principals of events, with their roles."""
        return self._doors.access

    @property
    def is_stopping(self) -> bool:
        """Whether the process was told to stop. Answers without end should end then."""
        return self._stopping.is_set()

    @property
    def http_port(self) -> int | None:
        """Port of the API; None until it listens."""
        return self._doors.http_port

    @property
    def health_port(self) -> int | None:
        """Port of health and metrics; None until it listens."""
        return self._doors.health_port

    @property
    def broker(self) -> KafkaBroker:
        """The FastStream broker behind the subscriptions."""
        return self._subscriptions.broker

    def on(self, topic: TopicSpec) -> Callable[[H], H]:
        """Handle events one at a time. The events that the handler returns are published, then the offset is
        committed."""
        return self._subscriptions.single(topic)

    def on_each(self, topic: TopicSpec, *, max_records: int = 2_000) -> Callable[[H], H]:
        """Like ``on``, for high volume: records are fetched, published and committed in batches."""
        return self._subscriptions.each(topic, max_records)

    def on_batch(self, topic: TopicSpec, *, max_records: int = 500) -> Callable[[H], H]:
        """Pass whole batches of ``Delivery`` to the handler."""
        return self._subscriptions.batch(topic, max_records)

    def job(self, topic: TopicSpec, *, in_order: bool = False) -> Callable[[H], H]:
        """Run long work under a ``Lease`` on the event's partition. The handler is called for every event at
        once; ``Slots`` decide which job runs.

        ``in_order``: events with the same record key are handled one after the other, in the order of the
        log. Each finds the events of the one before on the log.
        """
        return self._subscriptions.job(topic, in_order=in_order)

    @property
    def check_signature(self) -> Check:
        """Refuses events by their signatures, as every reader of this process does."""
        return self._signatures.check

    def predates_signatures(self, position: Position) -> bool:
        """Return whether the command at ``position`` is older than signatures, so that it needs none."""
        return self._signatures.predates(position)

    def withhold(self, erasures: Erasures, followed: LogReader) -> None:
        """Keep erased content out of this service's dead letters. ``followed`` reads the events behind
        ``erasures``."""
        self._dead_letters.withhold(lambda record: is_erased(record, erasures.all()), followed.refresh)

    def foreign_reader(
        self, foreign: Foreign, handle: Callable[[Undecoded], Awaitable[Handled]]
    ) -> ForeignReader:
        """Return a reader of another system's topic; ``handle`` makes events of its records. The caller
        starts it once the service has started, and stops it."""
        members = self._subscriptions.foreign
        return ForeignReader(self.settings, self._consumption, self.warn, foreign, handle, members)

    def check(self, topic: TopicSpec) -> None:
        """Write a dead letter for every event of ``topic`` that cannot be decoded.

        For a topic that all its consumers only replay. A replay skips an invalid event, in every process and
        at every start, so nobody would notice it.
        """

        @self.on_batch(topic)
        async def accept(_: Sequence[Delivery[Any]]) -> None:
            """Accept valid events without effect; the replays handle them."""

    def view(self, topic: TopicSpec) -> View[Any]:
        """Keep the latest event per key in memory. The view is complete before any handler runs."""
        view: View[Any] = View(self.settings, topic, failed=self.fail, newer=self._newer)
        self._readers.append(view.reader)
        return view

    def replay(
        self, topics: Sequence[TopicSpec], apply: Apply, *, forget: Forget = lambda _topic, _key: None
    ) -> LogReader:
        """Pass every event of ``topics`` to ``apply``: up to the end before any handler runs, then new ones
        as they arrive. Tombstones of compacted topics are passed to ``forget``."""
        return self.replay_at(topics, lambda envelope, _: apply(envelope), forget=forget)

    def replay_at(
        self,
        topics: Sequence[TopicSpec],
        apply: ApplyAt,
        *,
        forget: Forget = lambda _topic, _key: None,
        begins: Begins | None = None,
        keep: Keep | None = None,
    ) -> LogReader:
        """Like ``replay``, but ``apply`` also gets the position of each event. ``begins`` returns the offsets
        to start from; it is called once the earlier replays are complete. ``keep``: see ``LogReader``."""
        reader = LogReader(
            self.settings,
            topics,
            apply,
            failed=self.fail,
            forget=forget,
            warn=self.warn,
            begins=begins,
            newer=self._newer,
            check=self._signatures.check,
            keep=keep,
        )
        self._readers.append(reader)
        return reader

    def one_at_a_time(self, topic: TopicSpec, *, hot_standby: bool = False) -> None:
        """Let only one process of this service be active. Others are standbys until it ends.

        Args:
            topic: the consumer group that elects the active process subscribes to this topic. Any existing
                topic with little traffic will do.
            hot_standby: a standby also follows the log, and answers requests from its memory. Only for
                services whose views and replays change nothing but memory, and whose API only reads.
        """
        self._is_hot_standby = hot_standby
        self._leadership = Leadership(self.settings, topic, group=f"{self.name}.active", lost=self._lose)
        self._health.leadership = self._leadership
        self.publisher.transactional_id, _ = self._leadership.group
        self.publisher.lost = self._lose

    def _lose(self, error: BaseException) -> None:
        # Events that still wait were decided with outdated knowledge of the log.
        self.publisher.drop()
        self.fail(error)

    def require_active(self) -> None:
        """Check that this process is active. Call it right before a write to the store that only the active
        process may do; Kafka itself refuses what another process publishes. Raises LeadershipLost,
        TransientError: see ``Leadership.check``."""
        if self._leadership is not None:
            self._leadership.check()

    def handles(self, topic: TopicSpec, key: str) -> bool:
        """Return whether events on ``topic`` with this record key are assigned to this process, by the latest
        assignment."""
        return self._subscriptions.handles(topic, key)

    async def settled(self, topic: TopicSpec) -> Settled:
        """Return the partitions of ``topic`` that this process has been assigned and has handled to their
        ends. Raises ``TransientError`` if the broker does not answer."""
        return await self._subscriptions.settled(topic)

    async def backlog(self, topic: TopicSpec) -> Backlog:
        """Return how far all processes of this service together have handled ``topic``. Raises
        ``TransientError`` if the broker does not answer."""
        return await self._subscriptions.backlog(topic)

    @property
    def groups(self) -> set[tuple[str, str]]:
        """The consumer groups of this process, each with its topic."""
        groups = set(self._subscriptions.groups)
        return groups if self._leadership is None else groups | {self._leadership.group}

    @property
    def replayed(self) -> set[str]:
        """The topics that this process reads completely, without a consumer group."""
        return {name for reader in self._readers for name in reader.names}

    @property
    def _signed(self) -> list[TopicSpec]:
        """The topics of signed events that this process reads or publishes."""
        read = self.replayed.union(topic for _, topic in self.groups)
        return [t for t in TOPICS if t.is_signed and (t.name in read or self.name in t.producers)]

    def mount(self, app: Starlette, *, any_content: Sequence[str] = ()) -> None:
        """Serve ``app``, whose routes name the roles that they need (``identity.guard``).

        Args:
            any_content: prefixes of paths that accept bodies other than JSON (``Admission``).

        Raises:
            UnguardedRoute: a route names no role.
        """
        self._doors.mount(app, any_content=any_content)

    def ask_who(self) -> None:
        """Refuse to start if callers cannot be identified. For a service that has callers, or that trusts the
        principals in events."""
        self._doors.ask_who()

    def on_startup(self, hook: Hook) -> None:
        """Await ``hook`` after views are complete and before handlers run."""
        self._startup.append(hook)

    def on_silent_broker(self, hook: Callable[[], Awaitable[bool]], *, after_seconds: float) -> None:
        """Await ``hook`` once if the broker does not answer ``after_seconds`` after the process began. Where
        ``hook`` returns True the service counts as started. The start goes on: views and startup hooks follow
        when the broker answers."""
        self._without_broker = (hook, after_seconds)

    def on_shutdown(self, hook: Hook) -> None:
        """Await ``hook`` after handlers have stopped, while the producer still runs."""
        self._shutdown.append(hook)

    def new(
        self, data: E, *, cause: Envelope[Any] | None = None, correlation_id: str | None = None
    ) -> Envelope[E]:
        """Wrap ``data`` as an event from this service."""
        return new_event(data, source=f"/tunewheel/{self.name}", cause=cause, correlation_id=correlation_id)

    async def publish(self, envelope: Envelope[Any]) -> None:
        """Publish one event and wait for its acknowledgement; see ``Publisher.publish`` for errors."""
        await self.publisher.publish(envelope)

    async def take_back(self, topic: TopicSpec, key: str) -> None:
        """Publish a tombstone, so that views of the compacted ``topic`` forget ``key``; see
        ``Publisher.send`` for errors."""
        await self.publisher.send([Tombstone(topic.name, key.encode())])

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        """Publish events in order, and wait until all are acknowledged."""
        await self.publisher.publish_many(envelopes)

    def fail(self, error: BaseException) -> None:
        """Stop the process because of an error that cannot be handled."""
        if self.failure is None:
            self._health.started = False
            self.failure = not_allowed(error) or error
            log.error("service_failed", error=repr(self.failure), exc_info=error)
            self._stopping.set()

    def stop(self) -> None:
        """Ask the service to stop cleanly."""
        self._stopping.set()

    async def start(self) -> None:
        """Start all parts. After a failure all parts are stopped again, so that ``start`` can be repeated."""
        self._doors.begin()
        try:
            await self.publisher.start()
            self._health.is_reading = True
            self._broker_watch.start()
            if self._leadership is not None and not self._is_hot_standby:
                await self._leadership.gain()
                await self.publisher.fence()
            await self._signatures.begin(self._signed)
            with uncollected() if self._has_process else contextlib.nullcontext():
                for reader in self._readers:
                    await reader.start()
            self._health.is_reading = False
            if self._leadership is not None and self._is_hot_standby:
                await self._leadership.gain()
                await self.publisher.fence()
                await asyncio.gather(*(reader.refresh() for reader in self._readers))
            for hook in self._startup:
                await hook()
            await self._subscriptions.start()
        except BaseException as error:
            await self._disconnect()
            if refusal := not_allowed(error):
                raise TransientError(str(refusal)) from error  # An operator may grant the right meanwhile.
            raise
        self._health.started = self.failure is None
        log.info("ready", http_port=self.http_port, health_port=self.health_port)

    async def close(self) -> None:
        """Stop all parts in reverse order. Running jobs can write a checkpoint."""
        self._health.started = False
        await self._subscriptions.stop()
        for hook in reversed(self._shutdown):
            try:
                await hook()
            except Exception:
                log.exception("shutdown_hook_failed")  # The other hooks must still run.
        await self._disconnect()
        self.telemetry.shutdown()

    async def _disconnect(self) -> None:
        await self._broker_watch.stop()
        for reader in self._readers:
            await reader.stop()
        await self.publisher.stop()
        if self._leadership is not None:
            await self._leadership.resign()

    def warn(self, name: str, text: str | None, *, seconds: float | None = None) -> None:
        """Report a problem that does not stop the service; ``text`` None: it is over. See ``Health.warn``."""
        self._health.warn(name, text, seconds=seconds)

    def state(self) -> dict[str, object]:
        """Return the content of ``/health/ready``."""
        return self._health.state()

    def asgi(self) -> RequestIds:
        """Return the app of the API, with its middleware."""
        return self._doors.asgi()

    def health_asgi(self) -> Starlette:
        """Return the app of health and metrics, which anybody may call."""
        return self._doors.health_asgi()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        starters = (
            asyncio.create_task(self._start_patiently(), name="start"),
            asyncio.create_task(self._start_without_broker(), name="start without broker"),
        )
        async with self._doors.lifespan():
            yield
        await end_all(*starters)
        await self.close()

    async def _start_patiently(self) -> None:
        try:
            await retry(
                self.start, Backoff(2**31, 0.5, 5.0), what=f"connecting to {self.settings.bootstrap_servers}"
            )
        except Exception as error:
            self.fail(error)

    async def _start_without_broker(self) -> None:
        if self._without_broker is None:
            return
        hook, after_seconds = self._without_broker
        while not self._health.started:
            if self._broker_watch.silent_seconds >= after_seconds:
                try:
                    answers = await hook()
                    self._health.started = (answers or self._health.started) and self.failure is None
                except Exception as error:
                    self.fail(error)
                return
            await asyncio.sleep(0.1)

    async def serve(self) -> None:
        """Run until ``stop`` or ``fail`` is called. ``run`` adds signal handling.

        Raises:
            NoIdentity: callers could not be identified, or commands not be signed or verified.
            InvalidTls: the certificate or its key cannot be used.
        """
        self._doors.require_identity()
        if self._signed:
            self._signatures.require_keys()
        self._doors.open()
        async with self._running():
            await self._doors.serve(self._stopping)

    async def _serve_until_signalled(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        await self.serve()

    def run(self, *, loop_factory: LoopFactory | None = None) -> NoReturn:
        """Run the process. The exit code is 0 after a clean stop, 1 after a failure, 2 if it must not start.

        ``loop_factory`` None: asyncio's own event loop.
        """
        self._has_process = True
        configure_logs(
            service=self.name,
            level=self.settings.log_level,
            json=self.settings.log_json,
            exported=self.telemetry.logger_provider,
        )
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self._serve_until_signalled())
        except (NoIdentity, InvalidTls) as error:
            log.error("cannot_start", reason=str(error))
            sys.exit(2)
        sys.exit(1 if self.failure else 0)
