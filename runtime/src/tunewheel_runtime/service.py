"""``Service``: one process that consumes and publishes events. Every service's ``make_app`` builds one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.topics import TOPICS, TopicSpec

from tunewheel_runtime.broker_watch import BrokerWatch
from tunewheel_runtime.consuming import Consumption, Delivery
from tunewheel_runtime.deadletter import DeadLetters, Position, Undecoded
from tunewheel_runtime.erased_letters import is_erased
from tunewheel_runtime.foreign_topics import Foreign, ForeignReader, Handled
from tunewheel_runtime.handling import Instruments
from tunewheel_runtime.health import Health
from tunewheel_runtime.identity.passes import Passes
from tunewheel_runtime.identity.signatures import Signatures
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.leadership import Leadership
from tunewheel_runtime.newer_releases import NewerReleases
from tunewheel_runtime.publishing import Publisher, Tombstone
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service_doors import ServiceDoors
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.subscriptions import Subscriptions
from tunewheel_runtime.telemetry import Telemetry, make_telemetry
from tunewheel_runtime.view import Apply, ApplyAt, Begins, Forget, Keep, LogReader, View

__all__ = ["Delivery", "Lease", "LeaseLost", "Position", "Service"]

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)
H = TypeVar("H", bound=Callable[..., Any])
Hook = Callable[[], Awaitable[None]]


class Service:
    """A process that consumes events, handles them and publishes the results.

    The parts of a service are attributes of this class. ``Lifecycle`` starts and stops the parts.

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
        self.signatures = Signatures(name, settings, self.store)
        self.publisher.sign = self.signatures.sign
        self.publisher.seal = self.signatures.seal
        self.broker_watch = BrokerWatch(
            self.publisher.reach,
            lambda: self.subscriptions.lag(),
            patience_seconds=settings.broker_lost_seconds,
        )
        self.health = Health(name, self.broker_watch)
        self.health.needs_broker = needs_broker
        self.doors = ServiceDoors(name, settings, self.telemetry, self.health)
        self.passes = Passes(name, self.signatures)
        self.access = self.doors.access
        """Identifies callers and the principals of events, with their roles."""
        self.access.read_pass = self.passes.read
        self._backoff = Backoff.of(settings)
        self._dead_letters = self._make_dead_letters()
        instruments = Instruments.of(self.telemetry)
        self._newer = NewerReleases(self.health.warn, self.telemetry.meter)
        check = self.signatures.check
        consumption = self._consumption = Consumption(
            self.publisher, self._dead_letters, self._backoff, instruments, self._newer, check
        )
        self.subscriptions = Subscriptions(name, settings, consumption, failed=self.fail)
        self.leadership: Leadership | None = None
        self.is_hot_standby = False
        self.readers: list[LogReader] = []
        """The readers of views and replays, in the order in which they start."""
        self.startup_hooks: list[Hook] = []
        self.shutdown_hooks: list[Hook] = []
        self.without_broker: tuple[Callable[[], Awaitable[bool]], float] | None = None
        """The hook for a silent broker, and the seconds of silence before it."""
        self.stopping = asyncio.Event()
        """Set once the process was told to stop. Answers without end should end then."""
        self.failure: BaseException | None = None
        self.health.measure(self.telemetry.meter)
        self.subscriptions.measure(self.telemetry.meter)

    def _make_dead_letters(self) -> DeadLetters:
        counter = self.telemetry.meter.create_counter(
            "tunewheel.events.dead_lettered", description="Events refused, by topic and kind"
        )
        return DeadLetters(
            self.publisher,
            self._backoff,
            counter,
            self.health.warn,
            service=self.name,
            limit=self.settings.dead_letter_limit,
            window=self.settings.dead_letter_window,
        )

    def on(self, topic: TopicSpec) -> Callable[[H], H]:
        """Handle events one at a time. The events that the handler returns are published, then the offset is
        committed."""
        return self.subscriptions.single(topic)

    def on_each(self, topic: TopicSpec, *, max_records: int = 2_000) -> Callable[[H], H]:
        """Like ``on``, for high volume: records are fetched, published and committed in batches."""
        return self.subscriptions.each(topic, max_records)

    def on_batch(self, topic: TopicSpec, *, max_records: int = 500) -> Callable[[H], H]:
        """Pass whole batches of ``Delivery`` to the handler."""
        return self.subscriptions.batch(topic, max_records)

    def job(self, topic: TopicSpec, *, in_order: bool = False) -> Callable[[H], H]:
        """Run long work under a ``Lease`` on the event's partition. The handler is called for every event at
        once; ``Slots`` decide which job runs.

        ``in_order``: events with the same record key are handled one after the other, in the order of the
        log. Each finds the events of the one before on the log.
        """
        return self.subscriptions.job(topic, in_order=in_order)

    def withhold(self, erasures: Erasures, followed: LogReader) -> None:
        """Keep erased content out of this service's dead letters. ``followed`` reads the events behind
        ``erasures``."""
        self._dead_letters.withhold(lambda record: is_erased(record, erasures.all()), followed.refresh)

    def foreign_reader(
        self, foreign: Foreign, handle: Callable[[Undecoded], Awaitable[Handled]]
    ) -> ForeignReader:
        """Return a reader of another system's topic; ``handle`` makes events of its records. The caller
        starts it once the service has started, and stops it."""
        members = self.subscriptions.foreign
        return ForeignReader(self.settings, self._consumption, self.health.warn, foreign, handle, members)

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
        self.readers.append(view.reader)
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
            warn=self.health.warn,
            begins=begins,
            newer=self._newer,
            check=self.signatures.check,
            keep=keep,
        )
        self.readers.append(reader)
        return reader

    def one_at_a_time(self, topic: TopicSpec, *, hot_standby: bool = False) -> None:
        """Let only one process of this service be active. Others are standbys until it ends.

        Args:
            topic: the consumer group that elects the active process subscribes to this topic. Any existing
                topic with little traffic will do.
            hot_standby: a standby also follows the log, and answers requests from its memory. Only for
                services whose views and replays change nothing but memory, and whose API only reads.
        """
        self.is_hot_standby = hot_standby
        self.leadership = Leadership(self.settings, topic, group=f"{self.name}.active", lost=self._lose)
        self.health.leadership = self.leadership
        self.publisher.transactional_id, _ = self.leadership.group
        self.publisher.lost = self._lose

    def _lose(self, error: BaseException) -> None:
        # Events that still wait were decided with outdated knowledge of the log.
        self.publisher.drop()
        self.fail(error)

    def require_active(self) -> None:
        """Check that this process is active. Call it right before a write to the store that only the active
        process may do; Kafka itself refuses what another process publishes. Raises LeadershipLost,
        TransientError: see ``Leadership.check``."""
        if self.leadership is not None:
            self.leadership.check()

    def handles(self, topic: TopicSpec, key: str) -> bool:
        """Return whether events on ``topic`` with this record key are assigned to this process, by the latest
        assignment."""
        return self.subscriptions.handles(topic, key)

    @property
    def groups(self) -> set[tuple[str, str]]:
        """The consumer groups of this process, each with its topic."""
        groups = set(self.subscriptions.groups)
        return groups if self.leadership is None else groups | {self.leadership.group}

    @property
    def replayed(self) -> set[str]:
        """The topics that this process reads completely, without a consumer group."""
        return {name for reader in self.readers for name in reader.names}

    @property
    def signed(self) -> list[TopicSpec]:
        """The topics of signed events that this process reads or publishes."""
        read = self.replayed.union(topic for _, topic in self.groups)
        return [t for t in TOPICS if t.is_signed and (t.name in read or self.name in t.producers)]

    def on_startup(self, hook: Hook) -> None:
        """Await ``hook`` after views are complete and before handlers run."""
        self.startup_hooks.append(hook)

    def on_silent_broker(self, hook: Callable[[], Awaitable[bool]], *, after_seconds: float) -> None:
        """Await ``hook`` once if the broker does not answer ``after_seconds`` after the process began. Where
        ``hook`` returns True the service counts as started. The start goes on: views and startup hooks follow
        when the broker answers."""
        self.without_broker = (hook, after_seconds)

    def on_shutdown(self, hook: Hook) -> None:
        """Await ``hook`` after handlers have stopped, while the producer still runs."""
        self.shutdown_hooks.append(hook)

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
            self.health.started = False
            self.failure = not_allowed(error) or error
            log.error("service_failed", error=repr(self.failure), exc_info=error)
            self.stopping.set()

    def stop(self) -> None:
        """Ask the service to stop cleanly."""
        self.stopping.set()
