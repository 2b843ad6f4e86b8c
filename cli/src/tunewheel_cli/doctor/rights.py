"""Checks that this client has a principal's rights in Kafka, as reported by the brokers (KIP-430)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunewheel_cli.acls import Acl, least_acls
from tunewheel_cli.cluster import Cluster, Operations, SeenGroup
from tunewheel_cli.doctor.findings import Finding, fine, listed, unknown, wrong


def rights_findings(
    names: Sequence[str], cluster: Cluster, groups: Mapping[str, SeenGroup], *, prefix: str = ""
) -> list[Finding]:
    """Return findings about rights of ``names``, keys of ``acls.PRINCIPALS``, that this client lacks.

    Rights on topics that do not exist yet cannot be checked.
    """
    found: list[Finding] = []
    for name in names:
        lacks: dict[tuple[str, str], list[str]] = {}
        not_told = 0
        wanted = least_acls([name])
        acls = [acl for acl in wanted if _exists(acl, cluster)]
        for acl in acls:
            granted = _granted(acl, cluster, groups)
            if granted is None:
                not_told += 1
                continue
            for operation in sorted(set(acl.operations) - granted):
                lacks.setdefault((operation, acl.kind), []).append(prefix + acl.resource)
        found += _of(name, lacks)
        if not_told:
            found.append(
                unknown("rights", f"Kafka does not tell this client's rights on {not_told} topics or groups")
            )
        if missing := len(wanted) - len(acls):
            text = f"{missing} topics do not exist yet, and what {name} may do with them is not known"
            found.append(unknown("rights", text, "run `tunewheel topics --apply`, then the doctor again"))
        if not (lacks or not_told or missing):
            found.append(
                fine("rights", f"this client may do what {name} must, on {len(acls)} topics and groups")
            )
    return found


def _of(name: str, lacks: Mapping[tuple[str, str], list[str]]) -> Iterator[Finding]:
    for (operation, kind), resources in lacks.items():
        text = (
            f"{name} must be allowed {operation} on the {kind}s {listed(resources)}, and this client is not"
        )
        yield wrong("rights", text, f"run what `tunewheel topics acls {name} --commands` prints")


def _exists(acl: Acl, cluster: Cluster) -> bool:
    topic = cluster.topics.get(acl.resource)
    return acl.kind == "group" or topic is None or topic.exists or not topic.visible


def _granted(acl: Acl, cluster: Cluster, groups: Mapping[str, SeenGroup]) -> Operations:
    seen = groups[acl.resource] if acl.kind == "group" else cluster.topics[acl.resource]
    return seen.operations if seen.visible else frozenset()
