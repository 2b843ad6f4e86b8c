"""What the API says of a lineage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from tunewheel_registry.lineage.events import Kind


class LineageNode(BaseModel):
    id: str
    kind: Kind
    at: datetime | None = None
    """Of its newest event; null for a record."""
    event_ids: list[str] = []
    facts: dict[str, Any] = {}


class LineageEdge(BaseModel):
    source: str
    """What ``target`` came from."""
    target: str
    relation: str = "led to"
    """Of a record and a dataset: ``used in`` or ``left out of``."""
    facts: dict[str, Any] = {}


class RecordCounts(BaseModel):
    """Of the records behind what was asked for; ``nodes`` has the first ``shown`` of them."""

    used: int = 0
    left_out: int = 0
    shown: int = 0
    by_kind: dict[str, int] = {}
    """Of the used ones."""


class Lineage(BaseModel):
    """What led to the nodes that were asked for, and what came of them."""

    project: str
    asked: str
    found: list[str]
    """The nodes that bear the name ``asked``."""
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    records: RecordCounts = RecordCounts()
    unreadable: dict[str, str] = {}
    """Dataset → why its records cannot be told."""
