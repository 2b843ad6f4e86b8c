"""Where a version's examples come from, and under which licences: what the records' own attributes say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import polars as pl

LICENCE_ATTRIBUTES = ("license", "licence")
SOURCE_ATTRIBUTES = ("source", "origin", "channel")


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Records of one kind, source and licence, and how many of them are in the version."""

    kind: str
    source: str
    """The attribute ``source``, ``origin`` or ``channel``; empty where the record has none."""
    licence: str
    """The attribute ``license``; empty where the record has none."""
    records: int
    used: int


def count_sources(records: pl.DataFrame, used: pl.DataFrame) -> tuple[SourceCount, ...]:
    """Return the sources of ``records`` (distinct), sorted; ``used`` are examples."""
    in_use = set(used["record_ids"].explode().drop_nulls().to_list())
    seen: Counter[tuple[str, str, str]] = Counter()
    taken: Counter[tuple[str, str, str]] = Counter()
    for record_id, kind, attributes in records.select("record_id", "kind", "attributes").iter_rows():
        told = json.loads(attributes or "{}")
        key = (kind, _first(told, SOURCE_ATTRIBUTES), _first(told, LICENCE_ATTRIBUTES))
        seen[key] += 1
        taken[key] += record_id in in_use
    return tuple(SourceCount(*key, records=seen[key], used=taken[key]) for key in sorted(seen))


def _first(attributes: dict[str, str], names: tuple[str, ...]) -> str:
    return next((attributes[name] for name in names if attributes.get(name)), "")
