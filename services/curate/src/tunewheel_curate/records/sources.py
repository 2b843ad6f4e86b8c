"""Counts a version's records by source and licence, as the records' attributes give them."""

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
    """Return the sorted sources of the distinct ``records``; ``used`` are the version's examples."""
    in_use = used["record_ids"].explode().drop_nulls().unique()
    seen: Counter[tuple[str, str, str]] = Counter()
    taken: Counter[tuple[str, str, str]] = Counter()
    rows = records.select("kind", "attributes", used=pl.col("record_id").is_in(in_use.implode()))
    alike = rows.group_by("kind", "attributes").agg(pl.len().alias("records"), pl.col("used").sum())
    for kind, attributes, count, in_version in alike.iter_rows():
        told = json.loads(attributes or "{}")
        key = (kind, _first(told, SOURCE_ATTRIBUTES), _first(told, LICENCE_ATTRIBUTES))
        seen[key] += count
        taken[key] += in_version
    return tuple(SourceCount(*key, records=seen[key], used=taken[key]) for key in sorted(seen))


def _first(attributes: dict[str, str], names: tuple[str, ...]) -> str:
    return next((attributes[name] for name in names if attributes.get(name)), "")
