"""Creates the log's topics from the ``TopicSpec``s, and compares them with a cluster's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import (
    DAY_MS,
    DEAD_LETTER_OVERHEAD,
    ERASED_LETTERS,
    FOREVER,
    TOPICS,
    TopicSpec,
)
from tunewheel_runtime.cluster import admin_client

from tunewheel_local.connection import unreachable
from tunewheel_local.topic_configs import set_configs

REPLICAS = 3
"""Replicas of each partition, if the cluster has so many brokers."""
SETTLE_SECONDS = 30.0
_NOT_KNOWN, _ALREADY_EXISTS = 3, 36
"""Kafka protocol, error codes UNKNOWN_TOPIC_OR_PARTITION and TOPIC_ALREADY_EXISTS."""
PARTITIONS = "partitions"
ROLLED = {"segment.ms": str(DAY_MS)}
"""Of topics from which records are deleted. Kafka removes deleted records from the disk once their segment is
closed."""
# aiokafka types what its admin client returns as a response without fields; hence Any below.


class TopicRefused(TunewheelError):
    """The cluster does not create or alter a topic. The message holds its reason."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as specified, or as found in a cluster."""

    name: str
    partitions: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting of one topic that differs from the spec."""

    topic: str
    setting: str
    wanted: str
    actual: str

    @property
    def curable(self) -> bool:
        """Whether Kafka can alter the setting. It cannot remove partitions."""
        return self.setting != PARTITIONS or int(self.wanted) > int(self.actual)

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.actual}, the spec says {self.wanted}"


@dataclass(frozen=True, slots=True)
class TopicReport:
    missing: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    altered: tuple[Difference, ...] = ()
    differences: tuple[Difference, ...] = field(default=())
    """The differences that remain."""

    @property
    def in_order(self) -> bool:
        return not self.missing and not self.differences

    def under(self, prefix: str) -> TopicReport:
        """Return the report with the topics' names on the cluster (``KafkaSettings.topic_prefix``)."""

        def named(found: Iterable[Difference]) -> tuple[Difference, ...]:
            return tuple(replace(difference, topic=prefix + difference.topic) for difference in found)

        missing, created = (tuple(prefix + name for name in names) for names in (self.missing, self.created))
        return TopicReport(missing, created, named(self.altered), named(self.differences))


def wanted_topics(specs: Iterable[TopicSpec] = TOPICS) -> tuple[Topic, ...]:
    """Return the topics of ``specs``, and a dead-letter topic for each topic with consumers."""
    topics: list[Topic] = []
    for spec in specs:
        configs = {
            "cleanup.policy": spec.cleanup,
            "retention.ms": str(spec.retention_ms),
            "max.message.bytes": str(spec.max_message_bytes),
        }
        if spec.is_from_upstream:
            configs["message.timestamp.type"] = "LogAppendTime"
        if spec.deleted_by is not None:
            configs |= ROLLED
        topics.append(Topic(spec.name, spec.partitions, configs))
        if spec.dead_letter_exists:
            largest = str(spec.max_message_bytes + DEAD_LETTER_OVERHEAD)
            kept = {"cleanup.policy": "delete", "retention.ms": str(FOREVER), "max.message.bytes": largest}
            rolled = ROLLED if spec.dead_letter in ERASED_LETTERS else {}
            topics.append(Topic(spec.dead_letter, 1, kept | rolled))
    return tuple(topics)


def compare(wanted: Iterable[Topic], actual: Mapping[str, Topic]) -> TopicReport:
    """Return missing topics and different settings. Settings that the specs do not name are not compared."""
    missing: list[str] = []
    differences: list[Difference] = []
    for topic in wanted:
        found = actual.get(topic.name)
        if found is None:
            missing.append(topic.name)
            continue
        if found.partitions != topic.partitions:
            differences.append(
                Difference(topic.name, PARTITIONS, str(topic.partitions), str(found.partitions))
            )
        for setting, value in topic.configs.items():
            has = found.configs.get(setting, "(unset)")
            if has != value:
                differences.append(Difference(topic.name, setting, value, has))
    return TopicReport(missing=tuple(missing), differences=tuple(differences))


async def check_topics(options: Mapping[str, Any], topics: Iterable[Topic] | None = None) -> TopicReport:
    """Compare the cluster's topics with the specs, without changes. ``options`` are aiokafka's."""
    async with admin_client(options, explain=unreachable) as admin:
        wanted = wanted_topics() if topics is None else tuple(topics)
        return compare(wanted, await read_topics(admin, wanted))


async def ensure_topics(
    options: Mapping[str, Any], topics: Iterable[Topic] | None = None, *, apply: bool = False
) -> TopicReport:
    """Create missing topics. With ``apply``, also alter different settings that Kafka can alter.

    Raises:
        TransientError: the cluster does not answer.
        TopicRefused: the cluster refuses a topic, for example because this client lacks rights.
        NotAllowed: this client may not see a topic.
    """
    wanted = wanted_topics() if topics is None else tuple(topics)
    async with admin_client(options, explain=unreachable) as admin:
        before = compare(wanted, await read_topics(admin, wanted))
        made = await create_topics(admin, [topic for topic in wanted if topic.name in before.missing])
        curable = [d for d in before.differences if apply and d.curable]
        await _alter(admin, curable)
        after = await settled(lambda: read_topics(admin, wanted), wanted, altered=curable)
    return TopicReport(after.missing, made, tuple(curable), after.differences)


async def read_topics(admin: Any, wanted: Iterable[Topic]) -> dict[str, Topic]:
    """Return those of ``wanted`` that exist, as they are. A topic counts as missing if no broker that was
    asked knew its settings within ``SETTLE_SECONDS``."""
    from tunewheel_runtime.partitions import require_sight

    names = {topic.name: topic for topic in wanted}
    described = await admin.describe_topics(None)
    partitions = {d["topic"]: len(d["partitions"]) for d in described if d["topic"] in names}
    await require_sight(admin, [name for name in names if name not in partitions])
    asked, deadline = {name: names[name].configs for name in partitions}, time.monotonic() + SETTLE_SECONDS
    while True:
        configs = await read_configs(admin, asked)
        if len(configs) == len(asked) or time.monotonic() > deadline:
            return {name: Topic(name, partitions[name], config) for name, config in configs.items()}
        await asyncio.sleep(0.05)


async def read_configs(admin: Any, settings: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Return, by topic, the values of the settings that ``settings`` names, without topics that the broker
    that answers does not know (yet). Raises TopicRefused: this client may not read the settings."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    if not settings:
        return {}
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(names, ""))
        for topic, names in settings.items()
    ]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code not in (0, _NOT_KNOWN):
                reason = f"Kafka does not tell its settings ({message}); ask for DescribeConfigs"
                raise TopicRefused(f"{name}: {reason}")
            if code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def settled(
    read: Callable[[], Awaitable[Mapping[str, Topic]]],
    wanted: tuple[Topic, ...],
    *,
    altered: Collection[Difference],
) -> TopicReport:
    """Compare once the brokers know the topics that were created and ``altered``. Changes that they do not
    know within ``SETTLE_SECONDS`` are in the report."""
    deadline = time.monotonic() + SETTLE_SECONDS
    mended = {(difference.topic, difference.setting) for difference in altered}
    while True:
        report = compare(wanted, await read())
        stale = mended & {(difference.topic, difference.setting) for difference in report.differences}
        if not (report.missing or stale) or time.monotonic() > deadline:
            return report
        await asyncio.sleep(0.05)


async def create_topics(admin: Any, topics: list[Topic]) -> tuple[str, ...]:
    """Return the names of the topics that did not exist. The broker that was read may lag behind others."""
    from aiokafka.admin import NewTopic

    if not topics:
        return ()
    replicas = min(REPLICAS, len((await admin.describe_cluster())["brokers"]))
    new = [NewTopic(t.name, t.partitions, replicas, topic_configs=dict(t.configs)) for t in topics]
    response = await admin.create_topics(new)
    for name, code, message in response.topic_errors:
        # Another `up` may have created the topic meanwhile.
        if code not in (0, _ALREADY_EXISTS):
            raise TopicRefused(f"{name}: Kafka does not make the topic ({message or f'error {code}'})")
    return tuple(name for name, code, _ in response.topic_errors if code == 0)


async def _alter(admin: Any, differences: list[Difference]) -> None:
    from aiokafka.admin import NewPartitions
    from aiokafka.errors import KafkaError

    more = {d.topic: NewPartitions(int(d.wanted)) for d in differences if d.setting == PARTITIONS}
    changes: dict[str, dict[str, str]] = {}
    for difference in differences:
        if difference.setting != PARTITIONS:
            changes.setdefault(difference.topic, {})[difference.setting] = difference.wanted
    try:
        if more:
            await admin.create_partitions(more)
    except KafkaError as error:
        raise TopicRefused(f"partitions: {error}") from error
    for code, message, _, name in await set_configs(admin, changes) if changes else ():
        if code:
            raise TopicRefused(f"{name}: Kafka does not alter its settings ({message or f'error {code}'})")
