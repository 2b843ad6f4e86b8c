"""Checks Kafka: its brokers, topics, rights and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_local.connection import WANTED_KAFKA, unreachable
from tunewheel_local.topics import TopicRefused, read_configs, wanted_topics
from tunewheel_runtime.cluster import (
    Cluster,
    Operations,
    SeenGroup,
    admin_client,
    describe_cluster,
    describe_groups,
)
from tunewheel_runtime.lag import groups_of_services

from tunewheel_cli.acls import SERVICES, Acl, least_acls
from tunewheel_cli.doctor.findings import Finding, fine, listed, unknown, wrong
from tunewheel_cli.doctor.topics import MIN_IN_SYNC, topic_findings

NEEDED = {
    0: ("Produce", 3),
    1: ("Fetch", 4),
    11: ("JoinGroup", 5),
    19: ("CreateTopics", 1),
    21: ("DeleteRecords", 0),
    22: ("InitProducerId", 0),
    32: ("DescribeConfigs", 1),
    44: ("IncrementalAlterConfigs", 0),
}
"""By API key of the Kafka protocol, a request and the least version that Tunewheel needs: for headers,
idempotent producers, static members, erasing records, and altering single settings. Requests that this check
itself sends are not listed, because it fails earlier without them."""


async def kafka_findings(
    options: Mapping[str, Any], names: Sequence[str], *, prefix: str = ""
) -> list[Finding]:
    """Return the findings about a Kafka, good and bad. ``options``: of an aiokafka client.

    Args:
        names: the principals whose rights this client must have, keys of ``acls.PRINCIPALS``.
    """
    from tunewheel_runtime.kafka_refusals import failing_addresses

    wanted = wanted_topics()
    try:
        async with admin_client(options, explain=unreachable) as admin:
            cluster = await describe_cluster(admin, [topic.name for topic in wanted])
            groups = await describe_groups(admin, sorted(groups_of_services()))
            settings = {t.name: (*t.configs, MIN_IN_SYNC) for t in wanted if cluster.topics[t.name].exists}
            try:
                configs = await read_configs(admin, settings)
            except TopicRefused:
                configs = None
    except TunewheelError as error:
        return [wrong("kafka", str(error), "mend what the reason names")]
    failing = await failing_addresses(options)
    return [
        *broker_findings(cluster, failing),
        *topic_findings(cluster, configs, prefix=prefix),
        *rights_findings(names, cluster, groups, prefix=prefix),
        *process_findings(groups),
    ]


def broker_findings(cluster: Cluster, failing: Mapping[str, str]) -> list[Finding]:
    """Return findings about broker addresses that cannot be reached from here (``failing``), and about
    requests that a broker does not support."""
    fix = "each broker's advertised.listeners must be an address that services reach"
    found = [wrong("kafka", f"{address} {reason}", fix) for address, reason in failing.items()]
    lacks = [
        f"{name} {version}"
        for key, (name, version) in NEEDED.items()
        if cluster.apis and cluster.apis.get(key, (0, -1))[1] < version
    ]
    if lacks:
        text = f"it does not speak {listed(lacks)} of Kafka's protocol"
        found.append(wrong("kafka", text, WANTED_KAFKA))
    return found or [fine("kafka", f"{len(cluster.brokers)} brokers: {listed(cluster.brokers.values())}")]


def process_findings(groups: Mapping[str, SeenGroup]) -> list[Finding]:
    """Return findings about services without a process that reads the log.

    A service that never read the log may be switched off on purpose. So may one that read it before: Kafka
    keeps its groups for ``offsets.retention.minutes``, and cannot tell whether the service was switched off
    or crashed.
    """
    by_service = {
        service: [group for name, group in groups.items() if name.partition(".")[0] == service]
        for service in SERVICES
    }
    hidden = [name for name, own in by_service.items() if own and not all(group.visible for group in own)]
    seen = {name: own for name, own in by_service.items() if own and name not in hidden}
    found: list[Finding] = []
    if hidden:
        found.append(unknown("services", f"this client may not see the groups of {listed(hidden)}"))
    new = [name for name, own in seen.items() if not any(group.exists for group in own)]
    if new:
        found.append(unknown("services", f"never came to this Kafka: {listed(new)}", "start what is wanted"))
    came = {name: own for name, own in seen.items() if name not in new}
    absent = [name for name, own in came.items() if not any(group.hosts for group in own)]
    if absent:
        text = f"no process reads the log for {listed(absent)}, and Kafka remembers that some did"
        fix = (
            "start the service; its log says why where it does not stay. Of a service that you switched off "
            "for good, delete the consumer groups (kafka-consumer-groups.sh --delete)"
        )
        if "train" in absent:
            fix += "; keep those of train if it may come back: without them it trains again what failed"
        found.append(wrong("services", text, fix))
    elif came:
        found.append(fine("services", f"processes read the log for {listed(came)}"))
    return found


def rights_findings(
    names: Sequence[str], cluster: Cluster, groups: Mapping[str, SeenGroup], *, prefix: str = ""
) -> list[Finding]:
    """Return findings about rights of ``names``, keys of ``acls.PRINCIPALS``, that this client lacks.

    Rights on topics that do not exist yet cannot be checked, nor those on transactional ids.
    """
    found: list[Finding] = []
    for name in names:
        lacks: dict[tuple[str, str], list[str]] = {}
        not_told = 0
        wanted = [acl for acl in least_acls([name]) if acl.kind != "transactionalId"]
        acls = [acl for acl in wanted if _exists(acl, cluster)]
        for acl in acls:
            granted = _granted(acl, cluster, groups)
            if granted is None:
                not_told += 1
                continue
            for operation in sorted(set(acl.operations) - granted):
                lacks.setdefault((operation, acl.kind), []).append(prefix + acl.resource)
        found += _lacking(name, lacks)
        if not_told:
            found.append(
                unknown("rights", f"Kafka does not tell this client's rights on {not_told} topics or groups")
            )
        if missing := len(wanted) - len(acls):
            text = f"{missing} topics do not exist yet, and what {name} may do with them is not known"
            found.append(
                unknown("rights", text, "run `tunewheel admin topics --apply`, then the doctor again")
            )
        if not (lacks or not_told or missing):
            found.append(
                fine("rights", f"this client may do what {name} must, on {len(acls)} topics and groups")
            )
    return found


def _lacking(name: str, lacks: Mapping[tuple[str, str], list[str]]) -> Iterator[Finding]:
    for (operation, kind), resources in lacks.items():
        text = (
            f"{name} must be allowed {operation} on the {kind}s {listed(resources)}, and this client is not"
        )
        yield wrong("rights", text, f"run what `tunewheel admin acls {name} --commands` prints")


def _exists(acl: Acl, cluster: Cluster) -> bool:
    topic = cluster.topics.get(acl.resource)
    return acl.kind == "group" or topic is None or topic.exists or not topic.visible


def _granted(acl: Acl, cluster: Cluster, groups: Mapping[str, SeenGroup]) -> Operations:
    seen = groups[acl.resource] if acl.kind == "group" else cluster.topics[acl.resource]
    return seen.operations if seen.visible else frozenset()
