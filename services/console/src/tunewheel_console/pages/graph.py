"""Places the nodes of a lineage for its picture: a column for each kind, in the order of a turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KINDS = (
    "record", "request", "drift", "dataset", "run", "evaluation", "review", "model", "rollout", "step",
    "command", "erasure",
)  # fmt: skip
MOST = 40
"""The most boxes of one column. The list below the picture has all."""
WIDTH, HEIGHT, GAP, STEP = 190, 38, 60, 50
TOP = 30


@dataclass(frozen=True, slots=True)
class Box:
    """A node and the place of its left upper corner, in pixels."""

    node: Mapping[str, Any]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Graph:
    width: int
    height: int
    columns: tuple[tuple[str, int], ...]
    """The kinds, each with the left edge of its column."""
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    """The edges as SVG paths."""
    left_out: int
    """How many nodes are not in the picture."""


def graph_of(lineage: Mapping[str, Any]) -> Graph:
    """Return the picture of an answer about lineage. Edges with an end that is left out are left out."""
    by_kind: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for node in lineage["nodes"]:
        by_kind[node["kind"]].append(node)
    kinds = [kind for kind in (*KINDS, *sorted(by_kind.keys() - {*KINDS})) if by_kind.get(kind)]
    columns = {kind: number * (WIDTH + GAP) for number, kind in enumerate(kinds)}
    boxes = {
        node["id"]: Box(node, x, TOP + row * STEP)
        for kind, x in columns.items()
        for row, node in enumerate(
            sorted(by_kind[kind], key=lambda one: one["id"] not in lineage["found"])[:MOST]
        )
    }
    ends = ((boxes.get(edge["source"]), boxes.get(edge["target"])) for edge in lineage["edges"])
    return Graph(
        width=len(kinds) * (WIDTH + GAP),
        height=max((box.y for box in boxes.values()), default=0) + STEP,
        columns=tuple(columns.items()),
        boxes=tuple(boxes.values()),
        lines=tuple(_line(one, other) for one, other in ends if one is not None and other is not None),
        left_out=len({node["id"] for node in lineage["nodes"]}) - len(boxes),
    )


def _line(one: Box, other: Box) -> str:
    left, right = sorted((one, other), key=lambda box: box.x)
    x, y, beyond = left.x + WIDTH, left.y + HEIGHT // 2, right.y + HEIGHT // 2
    if left.x == right.x:
        return f"M{x} {y} C{x + GAP // 2} {y} {x + GAP // 2} {beyond} {x} {beyond}"
    return f"M{x} {y} C{x + GAP // 2} {y} {right.x - GAP // 2} {beyond} {right.x} {beyond}"
