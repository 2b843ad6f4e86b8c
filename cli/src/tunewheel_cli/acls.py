"""The least rights of each principal in Kafka, from the ``TopicSpec``s and the requests that the code sends.

Implied operations are not listed (Kafka's ``AclAuthorizer``): Read, Write, Delete and Alter imply Describe,
and AlterConfigs implies DescribeConfigs. An idempotent producer needs no IdempotentWrite if it may write one
topic (KIP-679, Kafka 2.8). Groups and topics are named in full, so that no right covers more than it should.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tunewheel_contracts.formats.source_spec import group_of
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.generation.asyncapi import consumed_by, produced_by
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    DOCUMENT_WITHDRAWN,
    ERASED_LETTERS,
    ERASES_LETTERS,
    ERASURE_REQUESTED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TAKEN_AGAIN,
    TICKET_PUBLISHED,
    TOPICS,
)
from tunewheel_local.connection import InvalidOption

NAME = "{name}"
SERVICES = ("ingest", "curate", "train", "eval", "registry", "serve-gateway", "monitor", "index", "console")
UPSTREAM = {
    "upstream-tickets": (TICKET_PUBLISHED,),
    "upstream-documents": (DOCUMENT_PUBLISHED, DOCUMENT_WITHDRAWN),
    "upstream-examples": (EXAMPLE_PUBLISHED,),
    "upstream-feedback": (FEEDBACK_RECEIVED,),
    "upstream-privacy": (ERASURE_REQUESTED,),
}
"""By principal of an upstream system, what it writes. The ticket system, say, cannot erase anything."""
PRINCIPALS = {
    "upstream-tickets": "the ticket system",
    "upstream-documents": "programs that publish and withdraw documents",
    "upstream-examples": "programs that publish examples",
    "upstream-feedback": "programs that pass on what users say of answers",
    "upstream-privacy": "whoever requests erasures",
    **{service: f"the service {service}" for service in SERVICES},
    "cli": "people who examine Kafka itself (doctor), and programs of yours that only read topics",
    "topics": "whoever runs `tunewheel admin topics --apply`, or `up` with --bootstrap-servers",
}
"""By principal, who it is."""

Kind = Literal["topic", "group", "transactionalId"]


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """The rights of one principal on one topic, consumer group or transactional id."""

    name: str
    """The principal, a key of ``PRINCIPALS``."""
    kind: Kind
    resource: str
    operations: tuple[str, ...]
    """Kafka's names of the operations, sorted."""


def least_acls(
    names: Collection[str] = tuple(PRINCIPALS), *, prefix: str = "", specs: Iterable[ProjectSpec] = ()
) -> tuple[Acl, ...]:
    """Return the rights that ``names`` need, sorted by principal as in ``PRINCIPALS``, then by resource.

    ``prefix``: of topics, groups and transactional ids (``KafkaSettings.topic_prefix``). ``specs``: of the
    projects whose sources ingest reads.

    Raises:
        InvalidOption: there is no such principal.
    """
    if unknown := sorted(set(names) - set(PRINCIPALS)):
        raise InvalidOption(
            f"NAME: there is no principal {unknown[0]!r}; choose from {', '.join(PRINCIPALS)}"
        )
    read = dict.fromkeys((s.topic, group_of(p.project, s.name)) for p in specs for s in p.sources if s.topic)
    groups = {"ingest": sorted(group for _, group in read)}
    found: list[Acl] = []
    for name in (name for name in PRINCIPALS if name in names):
        found += (replace(acl, resource=prefix + acl.resource) for acl in _of(name, groups.get(name, ())))
        if name == "ingest":  # Names of other systems' topics have no prefix.
            found += (Acl(name, "topic", topic, ("Read",)) for topic in sorted({topic for topic, _ in read}))
    return tuple(found)


def _of(name: str, of_sources: Iterable[str]) -> list[Acl]:
    needs: dict[tuple[Kind, str], set[str]] = {}

    def allow(operation: str, kind: Kind, resources: Iterable[str]) -> None:
        for resource in resources:
            needs.setdefault((kind, resource), set()).add(operation)

    allow("Read", "group", of_sources)
    letters = [spec.dead_letter for spec in TOPICS if spec.dead_letter_exists]
    allow("Write", "topic", (spec.name for spec in UPSTREAM.get(name) or produced_by(name)))
    if name in SERVICES:
        allow("Read", "topic", (spec.name for spec in consumed_by(name)))
        allow("Read", "group", (group for spec in TOPICS for group in spec.groups_of(name)))
        allow("Write", "topic", (spec.dead_letter for spec in TOPICS if name in spec.handled_by))
        allow("Write", "transactionalId", (f"{name}.active" for spec in TOPICS if name in spec.elects))
    if name == ERASES_LETTERS:
        for operation in ("Read", "Write", "Delete"):
            allow(operation, "topic", ERASED_LETTERS)
        allow("Write", "topic", (spec.name for spec in TAKEN_AGAIN))  # refused messages, once more
    for spec in (spec for spec in TOPICS if spec.deleted_by == name):
        allow("Delete", "topic", [spec.name])
        allow("Describe", "group", (group for other in SERVICES for group in spec.groups_of(other)))
    if name == "console":
        allow("Read", "topic", (*letters, DOCUMENT_PUBLISHED.name))
        # the console compares their ends with ingest's place, before it asks for a version
        allow("Describe", "topic", (TICKET_PUBLISHED.name, EXAMPLE_PUBLISHED.name))
    if name == "cli":
        allow("Read", "topic", (*(spec.name for spec in TOPICS), *letters))
    if name in ("cli", "console"):
        groups = (spec.groups_of(service) for spec in TOPICS for service in SERVICES)
        allow("Describe", "group", (group for found in groups for group in found))
    if name == "topics":
        for operation in ("Create", "Alter", "AlterConfigs"):
            allow(operation, "topic", (*(spec.name for spec in TOPICS), *letters))
    return [
        Acl(name, kind, resource, tuple(sorted(operations)))
        for (kind, resource), operations in sorted(needs.items())
    ]


def principal(name: str, template: str) -> str:
    """Return Kafka's name of a principal, such as ``User:acme-ingest`` for ``acme-{name}``.

    Raises:
        InvalidOption: the template has no place for the name.
    """
    if template.count(NAME) != 1:
        raise InvalidOption(f"--principals: {template!r} must have {NAME} in it once, such as acme-{NAME}")
    return f"User:{template.removeprefix('User:').replace(NAME, name)}"


def commands(acls: Iterable[Acl], *, template: str, bootstrap_servers: str) -> list[str]:
    """Return ``kafka-acls.sh`` commands: one for all resources on which a principal needs the same rights."""
    alike: dict[tuple[str, Kind, tuple[str, ...]], list[str]] = {}
    for acl in acls:
        alike.setdefault((acl.name, acl.kind, acl.operations), []).append(acl.resource)
    tool = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--command-config", "admin.properties"]
    lines: list[str] = []
    for (name, kind, operations), resources in alike.items():
        words = [*tool, "--add", "--allow-principal", principal(name, template)]
        words += [word for operation in operations for word in ("--operation", operation)]
        option = "--transactional-id" if kind == "transactionalId" else f"--{kind}"
        words += [word for resource in resources for word in (option, resource)]
        lines.append(shlex.join(words))
    return lines
