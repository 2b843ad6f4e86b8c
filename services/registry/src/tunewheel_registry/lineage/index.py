"""The graph of every project, folded from the log. It is a cache: each start reads it anew.

Only topics are read that grow by the run, not by the record or the request: which records a version was made
of stands in the version's own files, and what users asked is not part of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.fields import ArtifactRef

from tunewheel_registry.lineage.events import Kind, Told, told_by

TOPICS = (
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.ERASURE_COMPLETED,
    topics.TRAIN_STARTED,
    topics.TRAIN_COMPLETED,
    topics.TRAIN_FAILED,
    topics.MODEL_REGISTERED,
    topics.EVAL_REQUESTED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
    topics.REVIEW_REQUESTED,
    topics.REVIEW_ANSWERED,
    topics.REVIEW_SUBMITTED,
    topics.ROLLOUT_JUDGED,
    topics.MODEL_COMMANDED,
    topics.COMMAND_REFUSED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.MODEL_PINNED,
    topics.DRIFT_DETECTED,
)


@dataclass(slots=True)
class Node:
    """One thing that happened, or came of it."""

    key: str
    kind: Kind
    at: datetime
    """Of its newest event."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    parents: dict[str, None] = field(default_factory=dict[str, None])
    """Names of what it came from, in the order in which they were told. Some may have no node."""
    event_ids: dict[str, None] = field(default_factory=dict[str, None])
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict[str, ArtifactRef])


@dataclass(slots=True)
class Graph:
    """Of one project."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Every name of a node, its own key and the ids of its events included → its key."""

    def find(self, name: str) -> Node | None:
        key = self.names.get(name)
        return None if key is None else self.nodes[key]

    def of_kind(self, kind: Kind) -> list[Node]:
        return [node for node in self.nodes.values() if node.kind is kind]

    def parents(self, node: Node) -> list[Node]:
        """Return what ``node`` came from, as far as the log tells of it."""
        found = (self.find(name) for name in node.parents)
        return [parent for parent in found if parent is not None and parent is not node]

    def children(self) -> dict[str, list[Node]]:
        """Return, by key, what came of each node."""
        children: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for parent in self.parents(node):
                children.setdefault(parent.key, []).append(node)
        return children


class LineageIndex:
    """The graphs of all projects; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}

    def graph(self, project: str) -> Graph:
        return self._graphs.get(project, Graph())

    def apply(self, event: Envelope[Any]) -> None:
        """Take one event from the log, in any order."""
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
    """Return the facts of both: the newer counts where they differ, what is nested is merged."""
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
