"""The lineage graph of every project, in memory. It is rebuilt from the log at each start.

Only topics with few events per run are read. Topics with an event per record or request are not: the records
of a dataset are in its own files, and users' requests are not part of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.fields import ArtifactRef

from tunewheel_registry.lineage.events import TELLS, Kind, Told, told_by

TOPICS = tuple(topic for topic in topics.TOPICS if topic.event in TELLS)


@dataclass(slots=True)
class Node:
    """One node: an artifact or an event."""

    key: str
    kind: Kind
    at: datetime
    """Time of its newest event."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    parents: dict[str, None] = field(default_factory=dict[str, None])
    """Names of its parents, in the order in which events named them. A parent may have no node."""
    event_ids: dict[str, None] = field(default_factory=dict[str, None])
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict[str, ArtifactRef])


@dataclass(slots=True)
class Graph:
    """The graph of one project."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Maps every name of a node to its key. Names include the key and the ids of the node's events."""

    def find(self, name: str) -> Node | None:
        key = self.names.get(name)
        return None if key is None else self.nodes[key]

    def of_kind(self, kind: Kind) -> list[Node]:
        return [node for node in self.nodes.values() if node.kind is kind]

    def parents(self, node: Node) -> list[Node]:
        """Return the parents of ``node`` that have a node."""
        found = (self.find(name) for name in node.parents)
        return [parent for parent in found if parent is not None and parent is not node]

    def children(self) -> dict[str, list[Node]]:
        """Return the children of every node, by its key."""
        children: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for parent in self.parents(node):
                children.setdefault(parent.key, []).append(node)
        return children


class LineageIndex:
    """The graphs of all projects. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}

    def graph(self, project: str) -> Graph:
        return self._graphs.get(project, Graph())

    def apply(self, event: Envelope[Any]) -> None:
        """Add one event. Events may arrive in any order."""
        for told in told_by(event):
            _add(self._graphs.setdefault(event.project, Graph()), told, event)


def _add(graph: Graph, told: Told, event: Envelope[Any]) -> None:
    node = graph.nodes.get(told.key)
    if node is None:
        node = graph.nodes[told.key] = Node(told.key, told.kind, event.time)
    older, newer = (told.facts, node.facts) if event.time < node.at else (node.facts, told.facts)
    node.facts = _merged(older, newer)
    node.at = max(node.at, event.time)
    node.parents |= dict.fromkeys(told.parents)
    node.event_ids[event.id] = None
    node.artifacts |= told.artifacts
    for name in (told.key, event.id, *told.names):
        graph.names.setdefault(name, told.key)


def _merged(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of both. Newer values replace older ones; nested objects are merged."""
    merged = dict(older)
    for name, value in newer.items():
        before = older.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _merged(before, value)
        elif isinstance(before, set) and isinstance(value, set):
            merged[name] = before | value
        else:
            merged[name] = value
    return merged
