"""Checks that a cluster's topics exist, have the settings of their specs, and survive the loss of a
broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunewheel_local.topics import PARTITIONS, REPLICAS, Topic, compare, wanted_topics
from tunewheel_runtime.cluster import Cluster, SeenTopic

from tunewheel_cli.doctor.findings import Finding, fine, listed, unknown, wrong

MIN_IN_SYNC = "min.insync.replicas"
_APPLY = "`tunewheel admin topics --apply`, as a principal with the rights of `topics`"

Configs = Mapping[str, Mapping[str, str]]
"""Settings by topic."""


def topic_findings(cluster: Cluster, configs: Configs | None, *, prefix: str = "") -> list[Finding]:
    """Return the findings about the topics of ``cluster``, good and bad.

    Args:
        configs: the topics' settings; None: this client may not read them.
        prefix: the prefix of the topics' names on the brokers.
    """
    visible = {name: topic for name, topic in cluster.topics.items() if topic.visible}
    if not visible:
        return [unknown("topics", "this client may see none of them", "see rights")]
    if not any(topic.exists for topic in visible.values()):
        return [wrong("topics", f"there are none with the prefix {prefix!r}", f"{_APPLY}, or --topic-prefix")]
    wanted = [topic for topic in wanted_topics() if topic.name in visible]
    found = list(_unlike_their_specs(wanted, visible, configs, prefix))
    if configs is None:
        fix = "run `tunewheel admin topics` as a principal with the rights of `topics`"
        found.append(unknown("topics", "this client may not read their settings", fix))
    elif unread := [prefix + t.name for t in wanted if visible[t.name].exists and t.name not in configs]:
        text = f"the broker that was asked does not know these yet: {listed(unread)}"
        found.append(unknown("topics", text, "run this again; if it stays so, look at that broker's log"))
    elif not found:
        found.append(fine("topics", f"{len(wanted)} exist, with the settings of their specs"))
    return found + _copies(cluster, visible, configs, prefix)


def _unlike_their_specs(
    wanted: list[Topic], visible: Mapping[str, SeenTopic], configs: Configs | None, prefix: str
) -> Iterator[Finding]:
    actual = {
        topic.name: Topic(
            topic.name,
            len(visible[topic.name].partitions),
            (configs or {}).get(topic.name, topic.configs),
        )
        for topic in wanted
        if visible[topic.name].exists
    }
    report = compare(wanted, actual).under(prefix)
    if report.missing:
        yield wrong("topics", f"missing: {listed(report.missing)}", _APPLY)
    for difference in report.differences:
        if difference.setting != PARTITIONS or difference.curable:  # more partitions than the spec's are fine
            yield wrong("topics", str(difference), _APPLY)


def _copies(
    cluster: Cluster, visible: Mapping[str, SeenTopic], configs: Configs | None, prefix: str
) -> list[Finding]:
    copies = min(REPLICAS, len(cluster.brokers))
    topics = {prefix + name: topic for name, topic in visible.items() if topic.exists}
    dead = [n for n, t in topics.items() if any(p.leader < 0 for p in t.partitions)]
    few = [n for n, t in topics.items() if any(len(p.replicas) < copies for p in t.partitions)]
    late = [n for n, t in topics.items() if any(len(p.in_sync) < len(p.replicas) for p in t.partitions)]
    found: list[Finding] = []
    if dead:
        found.append(
            wrong(
                "copies", f"partitions without a leader: {listed(dead)}", "start the brokers that have them"
            )
        )
    if late:
        fix = "start the brokers that lack them, and wait until these have caught up"
        found.append(wrong("copies", f"copies are missing or behind: {listed(late)}", fix))
    if few:
        text = f"fewer than {copies} copies on {len(cluster.brokers)} brokers: {listed(few)}"
        found.append(wrong("copies", text, "kafka-reassign-partitions.sh adds copies"))
    found += _in_sync(topics, configs, prefix)
    if not found:
        lost = "" if copies > 1 else "; what this only broker loses is lost"
        found.append(fine("copies", f"{copies} of each partition, all in sync{lost}"))
    return found


def _in_sync(topics: Mapping[str, SeenTopic], configs: Configs | None, prefix: str) -> Iterator[Finding]:
    where = "on the brokers or on these topics (deploy/kafka/server.properties)"
    least = {
        prefix + name: int(held[MIN_IN_SYNC]) for name, held in (configs or {}).items() if MIN_IN_SYNC in held
    }
    copies = {name: min(len(p.replicas) for p in topics[name].partitions) for name in least if name in topics}
    if loses := [name for name, count in copies.items() if count > 2 and least[name] < 2]:
        yield wrong(
            "copies",
            f"an acknowledged event can be lost with one broker ({MIN_IN_SYNC}=1): {listed(loses)}",
            f"set {MIN_IN_SYNC}=2 {where}",
        )
    stops = {name: count for name, count in copies.items() if 1 < count <= least[name]}
    for count in sorted(set(stops.values())):
        names = listed(name for name, own in stops.items() if own == count)
        text = f"nobody can write while a broker is down ({MIN_IN_SYNC} = the copies): {names}"
        # with two replicas, every setting either stops writers or can lose acknowledged events
        fix = "add a third broker and copies" if count == 2 else f"set {MIN_IN_SYNC}={count - 1} {where}"
        yield wrong("copies", text, fix)
