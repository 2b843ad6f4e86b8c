"""Deletes records from the log once every service has handled them and some days have passed.

Kafka's own retention would also delete records that nobody has handled, as while a service is switched off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.topics import FOREVER, TOPICS, TopicSpec

from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.log import Cursor, Place
from tunewheel_runtime.partitions import group_backlog
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import reporting

if TYPE_CHECKING:
    from tunewheel_runtime.service import Service

log = structlog.get_logger(__name__)
Held = Callable[[int], Awaitable[int]]
"""Returns the offset of a partition before which the service that deletes holds all records itself."""
SWEEP_SECONDS = 3_600.0
FOLDER = "deletes-from"


class Retention:
    """Deletes the beginning of the partitions of ``topic``: what each of its groups has handled, what is
    ``held`` (if given), and what was logged more than ``days`` ago. Any replica may do so: deleting twice
    changes nothing.

    Nothing is deleted in the first ``days`` after the first start, which the store remembers. So whoever
    installs a release that deletes has time to raise the setting. ``FOREVER``: nothing is deleted.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        store: ObjectStore,
        topic: TopicSpec,
        *,
        days: int,
        warn: Warn,
        failed: Callable[[BaseException], None],
        held: Held | None = None,
    ) -> None:
        self._settings, self._store, self._topic, self._held = settings, store, topic, held
        self._days, self._warn, self._failed = days, warn, failed
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Sweep now and every hour."""
        if self._days != FOREVER:
            self._task = asyncio.create_task(self._run(), name=f"retention of {self._topic.name}")
            self._task.add_done_callback(reporting(self._failed))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def sweep(self, now: datetime) -> Mapping[Place, int]:
        """Delete what is due; return by partition the offset of its first record that is left.

        Raises:
            InvalidEvent: this user has no right to delete records in Kafka.
            TransientError: the broker or the store is away.
        """
        age, name = timedelta(days=self._days), self._topic.name
        begun = await self._store.first(f"{FOLDER}/{name}", now.isoformat().encode())
        if now - datetime.fromisoformat(begun.decode()) < age:
            return {}
        handled = await self._handled()
        async with Cursor(client_options(self._settings), [name]) as cursor:
            spans, old = cursor.spans, await cursor.offsets_at(now - age)
            overdue = await cursor.offsets_at(now - age - timedelta(seconds=SWEEP_SECONDS))
        waiting = {place: at for place, end in overdue.items() if (at := handled.get(place, 0)) < end}
        self._tell(waiting)
        upto = {place: min(offset, handled.get(place, 0)) for place, offset in old.items()}
        upto = {place: offset for place, offset in upto.items() if offset > spans[place].begin}
        if upto:
            await delete_records(self._settings, upto)
        return upto

    async def _handled(self) -> dict[Place, int]:
        """Return by partition the offset before which every group has handled every record, and the service
        that deletes holds every record."""
        name, options = self._topic.name, client_options(self._settings)
        groups = [group for service in self._topic.consumers for group in self._topic.groups_of(service)]
        handled: dict[Place, int] = {}
        for backlog in [await group_backlog(options, name, group=group) for group in groups]:
            for number, end in backlog.ends.items():
                reached = [backlog.kept[number], *([await self._held(number)] if self._held else [])]
                # Beyond the end means that the topic was made anew: it will be read from its beginning.
                kept = min(at if at <= end else 0 for at in reached)
                handled[name, number] = min(kept, handled.get((name, number), kept))
        return handled

    def _tell(self, waiting: Mapping[Place, int]) -> None:
        places = ", ".join(f"{name}[{number}] from offset {at}" for (name, number), at in waiting.items())
        text = f"records older than {self._days} days stay on the log, because a service has not handled them"
        self._warn(f"retention {self._topic.name}", f"{text}: {places}" if waiting else None)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep(datetime.now(UTC))
            except InvalidEvent as error:
                self._warn(f"retention {self._topic.name}", str(error))
            except TransientError as error:
                if (refusal := not_allowed(error)) is not None:  # no later sweep mends a missing right
                    self._warn(f"retention {self._topic.name}", f"{error}; {refusal}")
                log.warning("records_not_deleted", topic=self._topic.name, error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)


def delete_handled(service: Service, *, days: int, held: Held | None = None) -> None:
    """Let ``service`` delete, while it runs, from each topic that it is to delete from (``deleted_by``)."""
    for topic in (spec for spec in TOPICS if spec.deleted_by == service.name):
        retention = Retention(
            service.settings,
            service.store,
            topic,
            days=days,
            held=held,
            warn=service.health.warn,
            failed=service.fail,
        )
        service.on_startup(retention.start)
        service.on_shutdown(retention.stop)


async def delete_records(settings: ServiceSettings, upto: Mapping[Place, int]) -> None:
    """Delete by partition all records before an offset.

    Raises:
        InvalidEvent: this user has no right to delete records in Kafka.
        TransientError: the broker does not answer.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        await admin.delete_records(
            {TopicPartition(*place): RecordsToDelete(offset) for place, offset in upto.items()}
        )
    except TopicAuthorizationFailedError as error:
        reason = (
            f"cannot be done: Kafka refuses to delete records of {_names(upto)}; allow it, then ask again"
        )
        raise InvalidEvent(field="(topic)", reason=reason) from error
    except (KafkaError, OSError) as error:
        raise TransientError(f"cannot delete records of {_names(upto)}: {error!r}") from error
    finally:
        await admin.close()
    log.info("records_deleted", upto={f"{name}[{number}]": at for (name, number), at in upto.items()})


def _names(places: Iterable[Place]) -> str:
    return ", ".join(sorted({topic for topic, _ in places}))
