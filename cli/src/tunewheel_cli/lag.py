"""Reads the members of consumer groups, and how far each group is behind the end of the log. Waits until
ingest has made records of everything published so far, so that a build includes them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import (
    BY_NAME,
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TICKET_PUBLISHED,
    TOPICS,
)
from tunewheel_local.cluster import SeenGroup, admin_client, describe_cluster, describe_groups
from tunewheel_runtime.group_queries import each

from tunewheel_cli.acls import SERVICES
from tunewheel_cli.reading import reachable

if TYPE_CHECKING:
    from tunewheel_runtime.log import Span

POLL_SECONDS = 0.2
RECORDS_FROM = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED, FEEDBACK_RECEIVED)
"""The topics from which ingest makes records."""


class IngestBehind(TunewheelError):
    """Ingest has not read everything that was published."""


class TopicsMissing(TunewheelError):
    """The cluster has none of the topics."""


@dataclass(frozen=True, slots=True)
class GroupLag:
    group: str
    topic: str
    behind: int
    """How many records the group has not committed."""
    hosts: tuple[str, ...] = ()
    """The hosts of its members, one per member, so that a host may occur several times."""
    visible: bool = True
    """False: this client may not see the group, so nothing else is known about it."""

    @property
    def service(self) -> str:
        """The service of the group; empty if it belongs to no service of Tunewheel."""
        return self.group.partition(".")[0] if self.group in groups_of_services() else ""


@cache
def groups_of_services() -> dict[str, set[str]]:
    """Return the topics of each consumer group of a complete installation."""
    groups: dict[str, set[str]] = defaultdict(set)
    for spec in TOPICS:
        for service in SERVICES:
            for group in spec.groups_of(service):
                groups[group].add(spec.name)
    return dict(groups)


async def read_lag(options: Mapping[str, Any]) -> list[GroupLag]:
    """Return the lag and the members of consumer groups, sorted by group.

    They are all groups of services, even of those that never ran, and all other groups that read a topic of
    Tunewheel.

    Raises:
        TransientError: no Kafka answers.
        NotAllowed: this client may not see a topic.
        TopicsMissing: the cluster has none of the topics.
    """
    wanted = groups_of_services()
    async with admin_client(options) as admin:
        cluster = await describe_cluster(admin, [spec.name for spec in TOPICS])
        if not any(topic.exists or not topic.visible for topic in cluster.topics.values()):
            raise TopicsMissing(
                "--topic-prefix: this Kafka has no topic of Tunewheel under the prefix "
                f"{_prefix(options)!r}; name the installation's prefix, or make topics with "
                "`tunewheel admin topics --apply`"
            )
        listed = {group[0] for group in await admin.list_consumer_groups()}
        groups = await describe_groups(admin, sorted(listed | wanted.keys()))
        committed = await committed_offsets(admin, groups)
    names = {topic for topics in wanted.values() for topic in topics}
    names |= {topic for offsets in committed.values() for topic, _ in offsets}
    spans = await _spans(options, sorted(names & BY_NAME.keys()))
    found = [
        GroupLag(group, topic, 0, visible=False)
        for group, seen in groups.items()
        if not seen.visible
        for topic in sorted(wanted.get(group, ()))
    ]
    for group, offsets in committed.items():
        for topic in sorted(wanted.get(group, set()) | {topic for topic, _ in offsets} & BY_NAME.keys()):
            behind = 0
            if not group.endswith(".active"):  # such a group elects a leader and reads nothing
                own = ((span, offsets.get(tp, 0)) for tp, span in spans.items() if tp[0] == topic)
                behind = sum(max(0, span.end - max(span.begin, kept)) for span, kept in own)
            found.append(GroupLag(group, topic, behind, groups[group].hosts))
    return sorted(found, key=lambda lag: lag.group)


def silent_services(lags: Sequence[GroupLag]) -> list[str]:
    """Return the services whose consumer groups have no member. A service with a hidden group is left out,
    because it may have a process there."""
    with_groups = {group.partition(".")[0] for group in groups_of_services()}
    absent = with_groups - {lag.service for lag in lags if lag.hosts or not lag.visible}
    return [service for service in SERVICES if service in absent]


async def committed_offsets(
    admin: Any, groups: Mapping[str, SeenGroup]
) -> dict[str, dict[tuple[str, int], int]]:
    """Return the committed offsets of each group, by topic and partition. Hidden groups have none."""
    visible = [name for name, group in groups.items() if group.visible]
    found = await each(
        visible, lambda name: admin.list_consumer_group_offsets(name, groups[name].coordinator)
    )
    return {
        name: {(tp.topic, tp.partition): kept.offset for tp, kept in offsets.items()}
        for name, offsets in zip(visible, found, strict=True)
    }


async def _spans(options: Mapping[str, Any], names: Sequence[str]) -> dict[tuple[str, int], Span]:
    from tunewheel_runtime.log import ends

    async with reachable(options):
        return await ends(options, names, missing_ok=True)


async def settled(
    options: Mapping[str, Any], *, patience_seconds: float, on_behind: Callable[[int], None]
) -> None:
    """Wait until ingest has read the log up to its current end. ``on_behind`` is called with the number of
    events left.

    Raises:
        IngestBehind: ingest was not done within ``patience_seconds``.
        TransientError: no Kafka answers.
    """
    spans = await _spans(options, [topic.name for topic in RECORDS_FROM])
    wanted = {tp: span.end for tp, span in spans.items() if span.end > span.begin}
    deadline = time.monotonic() + patience_seconds
    async with admin_client(options) as admin:
        while behind := await _ingest_behind(admin, wanted):
            on_behind(behind)
            if time.monotonic() >= deadline:
                raise IngestBehind(
                    f"ingest is {behind:,} events behind what was published: is it running (`tunewheel "
                    "status`)? Wait and ask again, or ask for what there is with --no-wait"
                )
            await asyncio.sleep(POLL_SECONDS)


async def _ingest_behind(admin: Any, wanted: Mapping[tuple[str, int], int]) -> int:
    from aiokafka import errors

    # A broker that never had a group creates the topic of groups at the first request.
    not_yet = (
        errors.GroupCoordinatorNotAvailableError,
        errors.GroupLoadInProgressError,
        errors.NotCoordinatorForGroupError,
    )
    reached: dict[tuple[str, int], int] = {}
    for topic in {topic for topic, _ in wanted}:
        try:
            committed = await admin.list_consumer_group_offsets(f"ingest.{topic.replace('.', '-')}")
        except not_yet:
            continue
        reached |= {tp: offset.offset for tp, offset in committed.items()}
    return sum(max(0, end - max(reached.get(tp, 0), 0)) for tp, end in wanted.items())


def _prefix(options: Mapping[str, Any]) -> str:
    return getattr(options["client_id"], "prefix", "") if "client_id" in options else ""
