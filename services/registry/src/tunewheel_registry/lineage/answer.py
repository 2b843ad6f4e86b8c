"""Response models of the lineage API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from tunewheel_registry.lineage.events import Kind


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
