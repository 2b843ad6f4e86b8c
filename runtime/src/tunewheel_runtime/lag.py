"""Reads the members of consumer groups, and how far each group is behind the end of the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topic import Service
from tunewheel_contracts.topics import BY_NAME, TOPICS

from tunewheel_runtime.cluster import Explain, SeenGroup, admin_client, describe_cluster, describe_groups
from tunewheel_runtime.kafka_refusals import unreachable
from tunewheel_runtime.log import ends
from tunewheel_runtime.partitions import each


class TopicsMissing(TunewheelError):
    """The cluster has none of the topics."""

    def __init__(self, prefix: str) -> None:
        super().__init__(
            f"--topic-prefix: this Kafka has no topic of Tunewheel under the prefix {prefix!r}; name the "
            "installation's prefix, or make topics with `tunewheel admin topics --apply`"
        )


@cache
def groups_of_services() -> dict[str, set[str]]:
    """Return the topics of each consumer group of a complete installation."""
    groups: dict[str, set[str]] = defaultdict(set)
    for spec in TOPICS:
        for service in get_args(Service):
            for group in spec.groups_of(service):
                groups[group].add(spec.name)
    return dict(groups)


async def read_lag(options: Mapping[str, Any], *, explain: Explain = unreachable) -> list[GroupLag]:
    """Return the lag and the members of consumer groups, sorted by group.

    They are all groups of services, even of those that never ran, and all other groups that read a topic of
    Tunewheel.

    Raises:
        TransientError: no Kafka answers.
        NotAllowed: this client may not see a topic.
        TopicsMissing: the cluster has none of the topics.
    """
    wanted = groups_of_services()
    async with admin_client(options, explain=explain) as admin:
        cluster = await describe_cluster(admin, [spec.name for spec in TOPICS])
        if not any(topic.exists or not topic.visible for topic in cluster.topics.values()):
            raise TopicsMissing(getattr(options.get("client_id"), "prefix", ""))
        listed = {group[0] for group in await admin.list_consumer_groups()}
        groups = await describe_groups(admin, sorted(listed | wanted.keys()))
        committed = await committed_offsets(admin, groups)
    names = {topic for topics in wanted.values() for topic in topics}
    names |= {topic for offsets in committed.values() for topic, _ in offsets}
    spans = await ends(options, sorted(names & BY_NAME.keys()), missing_ok=True)
    found = [
        lag_of(group, topic, visible=False)
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
            found.append(lag_of(group, topic, behind=behind, hosts=groups[group].hosts))
    return sorted(found, key=lambda lag: lag.group)


def silent_services(lags: Sequence[GroupLag]) -> list[str]:
    """Return the services whose consumer groups have no member. A service with a hidden group is left out,
    because it may have a process there."""
    with_groups = {group.partition(".")[0] for group in groups_of_services()}
    absent = with_groups - {lag.service for lag in lags if lag.hosts or not lag.visible}
    return [service for service in get_args(Service) if service in absent]


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


def lag_of(
    group: str, topic: str, behind: int = 0, hosts: Sequence[str] = (), *, visible: bool = True
) -> GroupLag:
    """Return what is known of a group on one topic."""
    service = group.partition(".")[0] if group in groups_of_services() else ""
    return GroupLag(
        group=group, service=service, topic=topic, behind=behind, hosts=tuple(hosts), visible=visible
    )
