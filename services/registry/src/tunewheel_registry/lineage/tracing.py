"""Walks the lineage graph in both directions: from any name to its ancestors and its descendants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import polars as pl
from pydantic import BaseModel
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact

from tunewheel_registry.lineage.events import Kind
from tunewheel_registry.lineage.index import Graph, Node
from tunewheel_registry.lineage.records import ASKED_BY, RecordFiles


class LineageNode(BaseModel):
    id: str
    kind: Kind
    at: datetime | None = None
    """Time of its newest event; null for a record."""
    event_ids: list[str] = []
    facts: dict[str, Any] = {}


class LineageEdge(BaseModel):
    source: str
    """The id of the node that ``target`` was made from."""
    target: str
    relation: str = "led to"
    """``used in`` or ``left out of`` between a record and a dataset, ``erased by`` between a record and an
    erasure."""
    facts: dict[str, Any] = {}


class RecordCounts(BaseModel):
    """Number of records behind the requested node. ``nodes`` holds the first ``shown`` of them."""

    used: int = 0
    left_out: int = 0
    shown: int = 0
    by_kind: dict[str, int] = {}
    """Number of used records by kind."""


class Lineage(BaseModel):
    """All ancestors and descendants of the requested nodes."""

    project: str
    asked: str
    found: list[str]
    """The ids of the nodes that ``asked`` names."""
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    records: RecordCounts = RecordCounts()
    unreadable: dict[str, str] = {}
    """Datasets whose records cannot be read, and why."""


ENDS = frozenset({Kind.DRIFT, Kind.ERASURE})
"""Kinds at which a walk ends. A drift alarm, for example, leads from one model to the next, but the next
model was not trained on the first one's data."""


async def trace(
    graph: Graph, files: RecordFiles, asked: str, *, project: str, most_records: int
) -> Lineage | None:
    """Return the lineage of ``asked``: the name of a record, a source, an example, a dataset, a run, a model,
    an evaluation, a scorecard, a review, an erasure, or the id of an event of one of them. None: the name is
    unknown. Raises TransientError: the store is unavailable."""
    start = graph.find(asked)
    erased = await _erased(graph, files)
    if start is None:
        return await _of_records(graph, files, asked, erased, project=project, most=most_records)
    before = _walk([start], graph.parents)
    after = _walk([start], _children(graph))
    lineage = _lineage(graph, [*before, *after], project=project, asked=asked, found=[start.key])
    for dataset in [node for node in before.values() if node.kind is Kind.DATASET]:
        await _add_records(lineage, files, dataset, erased, _deleted(graph), most=most_records)
    return lineage


async def _of_records(
    graph: Graph, files: RecordFiles, asked: str, erased: dict[str, str], *, project: str, most: int
) -> Lineage | None:
    datasets, deleted = graph.of_kind(Kind.DATASET), _deleted(graph)
    tables = await asyncio.gather(*(_rows(files, node, deleted) for node in datasets))
    lineage = Lineage(project=project, asked=asked, found=[], nodes=[], edges=[])
    used: list[Node] = []
    held: list[Node] = []
    for dataset, table in zip(datasets, tables, strict=True):
        if isinstance(table, str):
            lineage.unreadable[dataset.key] = table
            continue
        rows = table.filter(pl.any_horizontal(pl.col(name) == asked for name in ASKED_BY))
        if rows.is_empty():
            continue
        held.append(dataset)
        if rows["example_id"].null_count() < len(rows):
            used.append(dataset)
        _show(lineage, dataset.key, rows, erased, most=most)
    if asked in erased:
        _add_erased(lineage, graph, asked, erased[asked])
    if not lineage.nodes:
        return None
    lineage.found = [node.id for node in lineage.nodes]
    after = _walk(used, _children(graph))
    graphed = _lineage(graph, [*(node.key for node in held), *after], project=project, asked=asked, found=[])
    listed = {node.id for node in lineage.nodes}
    lineage.nodes += [node for node in graphed.nodes if node.id not in listed]
    lineage.edges += graphed.edges
    return lineage


def _walk(starts: Iterable[Node], step: Callable[[Node], list[Node]]) -> dict[str, Node]:
    """Return all nodes that ``step`` reaches from ``starts``, by key, including ``starts``."""
    found = {node.key: node for node in starts}
    left = list(found.values())
    first = set(found)
    while left:
        node = left.pop()
        if node.kind in ENDS and node.key not in first:
            continue
        new = {other.key: other for other in step(node) if other.key not in found}
        found |= new
        left += new.values()
    return found


def _children(graph: Graph) -> Callable[[Node], list[Node]]:
    children = graph.children()
    return lambda node: children.get(node.key, [])


def _lineage(graph: Graph, keys: Iterable[str], *, project: str, asked: str, found: list[str]) -> Lineage:
    """Return the nodes ``keys`` and every edge between two of them."""
    kept = {key: graph.nodes[key] for key in dict.fromkeys(keys)}
    nodes = sorted(kept.values(), key=lambda node: (node.at, node.key))
    edges = [
        LineageEdge(source=parent.key, target=node.key)
        for node in nodes
        for parent in {p.key: p for p in graph.parents(node)}.values()
        if parent.key in kept
    ]
    answered = [
        LineageNode(id=n.key, kind=n.kind, at=n.at, event_ids=list(n.event_ids), facts=_plain(n.facts))
        for n in nodes
    ]
    return Lineage(project=project, asked=asked, found=found, nodes=answered, edges=edges)


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts as JSON values. A set, such as the reviewed items, is replaced by its size."""
    plain: dict[str, Any] = {}
    for name, value in facts.items():
        if value is None or value == []:
            continue
        plain[name] = (
            _plain(value) if isinstance(value, dict) else len(value) if isinstance(value, set) else value
        )
    return plain


def _deleted(graph: Graph) -> frozenset[str]:
    """Return the dataset versions whose files an erasure deleted."""
    erasures = graph.of_kind(Kind.ERASURE)
    return frozenset(name for node in erasures for name in node.facts.get("deleted_datasets", ()))


async def _erased(graph: Graph, files: RecordFiles) -> dict[str, str]:
    """Return the id of the erasure of each erased record."""
    erased: dict[str, str] = {}
    for node in graph.of_kind(Kind.ERASURE):
        finding = node.artifacts.get("finding")
        if finding is not None:
            try:
                erased |= dict.fromkeys(await files.erased(finding), node.key)
            except (ArtifactMissing, CorruptArtifact):
                node.facts["finding"] = "cannot be read"
    return erased


async def _rows(files: RecordFiles, dataset: Node, deleted: frozenset[str]) -> pl.DataFrame | str:
    """Return the rows of a version's lineage file, or the reason why they cannot be read."""
    if dataset.key in deleted:
        return "deleted by an erasure"
    try:
        return await files.rows(dataset.artifacts["manifest"])
    except (ArtifactMissing, CorruptArtifact) as error:
        return str(error)


async def _add_records(
    lineage: Lineage,
    files: RecordFiles,
    dataset: Node,
    erased: dict[str, str],
    deleted: frozenset[str],
    *,
    most: int,
) -> None:
    """Add the records that ``dataset`` used, and the number of records that it left out."""
    table = await _rows(files, dataset, deleted)
    if isinstance(table, str):
        lineage.unreadable[dataset.key] = table
        return
    used = table.filter(pl.col("example_id").is_not_null())
    counts = lineage.records
    kinds = used.unique("record_id").group_by("kind").len().sort("kind")
    by_kind = dict(counts.by_kind)
    for kind, number in kinds.iter_rows():
        by_kind[kind] = by_kind.get(kind, 0) + number
    lineage.records = RecordCounts(
        used=counts.used + used["record_id"].n_unique(),
        left_out=counts.left_out + table["record_id"].n_unique() - used["record_id"].n_unique(),
        shown=counts.shown,
        by_kind=by_kind,
    )
    _show(lineage, dataset.key, used, erased, most=most)


def _show(
    lineage: Lineage, dataset_id: str, rows: pl.DataFrame, erased: dict[str, str], *, most: int
) -> None:
    """Add a node and an edge to the version for each record of ``rows``, up to ``most`` records in all."""
    listed = {node.id for node in lineage.nodes}
    ids = rows["record_id"].unique(maintain_order=True).head(max(0, most - lineage.records.shown))
    for (record_id,), group in rows.filter(rows["record_id"].is_in(ids.implode())).group_by(
        "record_id", maintain_order=True
    ):
        row = group.row(0, named=True)
        examples = sorted(group["example_id"].drop_nulls().to_list())
        if record_id not in listed:
            source = {
                name: row[name]
                for name in ("kind", "source_id", "source_event_id", "validated_by")
                if row[name]
            }
            if record_id in erased:
                source["erased_by"] = erased[str(record_id)]
            lineage.nodes.append(LineageNode(id=str(record_id), kind=Kind.RECORD, facts=source))
            lineage.records.shown += 1
        facts = {"examples": examples} if examples else {n: row[n] for n in ("stage", "reason") if row[n]}
        relation = "used in" if examples else "left out of"
        lineage.edges.append(
            LineageEdge(source=str(record_id), target=dataset_id, relation=relation, facts=facts)
        )


def _add_erased(lineage: Lineage, graph: Graph, record_id: str, erasure_id: str) -> None:
    """Add the erasure of an erased record; add the record too if no version lists it any more."""
    if record_id not in {node.id for node in lineage.nodes}:
        lineage.nodes.append(LineageNode(id=record_id, kind=Kind.RECORD, facts={"erased_by": erasure_id}))
    erasure = _lineage(graph, [erasure_id], project=lineage.project, asked=record_id, found=[])
    lineage.nodes += erasure.nodes
    lineage.edges.append(LineageEdge(source=record_id, target=erasure_id, relation="erased by"))
