"""Keeps what the row steps made of each row, so that the next build runs them on new rows only.

A row step judges each row by itself. So its outcome follows from the columns of the row that the steps read,
and from the chain of steps: their names, columns and options, this code, and the libraries. The outcomes of
rows that passed the whole chain are kept. A row that a step dropped is judged anew. The outcomes are a cache
and never change a dataset. They hold texts as they train, so an erasure deletes them
(``records/forgetting.py``).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.project_cache import ProjectCache
from tunewheel_curate.stage import Stage

if TYPE_CHECKING:
    from tunewheel_curate.step import Kind, Lane, Step

CODE = ("tunewheel_contracts", "tunewheel_curate", "tunewheel_outputs", "tunewheel_redaction")
LIBRARIES = (
    "ftfy", "jsonschema", "kingfisher-secret-scanner", "phonenumbers", "polars", "presidio-analyzer",
    "py3langid", "spacy", "tldextract", "transformers",
)  # fmt: skip
KEYS = ("kind", "chain", "row", "record_id")
FIGURES = "figures"
"""The column with a row's ``Stage.counts_of`` by step, as JSON; null: it has none."""

Chain = Sequence[tuple["Step", Mapping[str, Any]]]
"""The row steps of a lane, in their order, and their options."""


def no_outcomes() -> pl.DataFrame:
    """Return the outcomes of no rows."""
    return pl.DataFrame(schema=dict.fromkeys((*KEYS, FIGURES), pl.String()))


def follow_rows(lane: Lane, kind: Kind, chain: Chain, earlier: pl.DataFrame) -> pl.DataFrame:
    """Run ``chain`` on the rows of ``lane`` that have no outcome among ``earlier``; return the outcomes of
    all rows that passed."""
    written = sorted({FIGURES} | {name for step, _ in chain for name in step.writes.split()})
    sha256 = _sha256_of(kind, chain)
    rows = lane.rows.with_columns(_digests(lane.rows, chain), pl.lit(sha256).alias("chain"))
    kept = earlier.filter(pl.col("kind") == kind.value, pl.col("chain") == sha256)
    hits = kept.clear()
    if kept.height:
        columns = [*KEYS[1:], *written]
        hits = rows.drop(written, strict=False).join(kept.select(columns), on=KEYS[1:])
    lane.rows = rows.join(hits, on="record_id", how="anti", maintain_order="left") if hits.height else rows
    first = len(lane.stages)
    figures: dict[str, dict[str, Mapping[str, int]]] = {}
    for step, options in chain:
        for record_id, counts in lane.follow(step, options).counts_of.items():
            figures.setdefault(record_id, {})[step.name] = counts
    counted = [json.dumps(figures[name]) if name in figures else None for name in lane.rows["record_id"]]
    lane.rows = lane.rows.with_columns(pl.Series(FIGURES, counted, dtype=pl.String))
    if hits.height:
        lane.stages[first:] = [_with_hits(stage, hits, lane.prefix) for stage in lane.stages[first:]]
        lane.rows = pl.concat([lane.rows, hits.select(lane.rows.columns)]).sort("record_id")
    outcomes = lane.rows.select(pl.lit(kind.value).alias("kind"), *KEYS[1:], *written)
    lane.rows = lane.rows.drop("chain", "row", FIGURES)
    return outcomes


def _with_hits(stage: Stage, hits: pl.DataFrame, prefix: str) -> Stage:
    """Return ``stage`` as if the rows of ``hits`` had run through it too."""
    counts = Counter(stage.counts)
    for figures in hits[FIGURES].drop_nulls():
        counts.update(json.loads(figures).get(stage.name.removeprefix(prefix), {}))
    kept = pl.concat([stage.kept, hits.select(stage.kept.columns)])
    return replace(stage, kept=kept, counts=dict(sorted(counts.items())))


def _digests(rows: pl.DataFrame, chain: Chain) -> pl.Series:
    """Return for each row a hash of the columns that ``chain`` reads."""
    read = sorted({name for step, _ in chain for name in step.reads.split()} & set(rows.columns))
    texts = rows.select(pl.struct(pl.col(read).cast(pl.String)).struct.json_encode()).to_series()
    digests = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    return pl.Series("row", digests, dtype=pl.String)


def _sha256_of(kind: Kind, chain: Chain) -> str:
    steps = [[step.name, step.reads, step.writes, _plain(options)] for step, options in chain]
    return content_sha256([kind.value, _software(), steps])


def _plain(option: Any) -> Any:
    """Return ``option`` as JSON. Two options with the same JSON must have the same effect."""
    if isinstance(option, BaseModel):
        return option.model_dump(mode="json")
    if isinstance(option, Mapping):
        return {name: _plain(value) for name, value in option.items()}
    if isinstance(option, set | frozenset):
        return sorted(option)
    if isinstance(option, list | tuple):
        return [_plain(value) for value in option]
    if (use := getattr(option, "use", None)) is not None:  # a counter of tokens
        return _plain(use)
    if option is None or isinstance(option, str | int | float):
        return option
    raise TypeError(f"no outcome can be kept by an option of type {type(option).__name__}")


@cache
def _software() -> list[str]:
    """Return what the outcomes depend on besides rows and options: this code, the libraries, Python."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = find_spec(package)
        assert spec is not None
        for folder in spec.submodule_search_locations or ():
            for path in sorted(p for p in Path(folder).rglob("*.*") if p.suffix in (".py", ".txt")):
                digest.update(path.read_bytes())
    return [digest.hexdigest(), sys.version, *(version(name) for name in LIBRARIES)]


class OutcomeCache:
    """Where the outcomes of each project lie in ``store``."""

    def __init__(self, store: ObjectStore) -> None:
        self._files = ProjectCache(store, "row-outcomes", "parquet")

    async def read(self, project: str) -> pl.DataFrame:
        """Return the outcomes of ``project``'s last build; none if they are missing or unusable."""
        found = await self._files.read(project, unpacked)
        return no_outcomes() if found is None else found

    async def write(self, project: str, outcomes: pl.DataFrame, *, earlier: pl.DataFrame) -> None:
        """Store the outcomes of ``project``, unless they are ``earlier``, those that were read."""
        if outcomes.select(KEYS).equals(earlier.select(KEYS)):
            return
        buffer = BytesIO()
        outcomes.write_parquet(buffer, compression="lz4")
        await self._files.write(project, buffer.getvalue())

    async def forget(self, project: str) -> None:
        """Delete the outcomes of ``project``.

        Raises:
            TransientError: the store is away.
        """
        await self._files.forget(project)


def unpacked(data: bytes) -> pl.DataFrame | None:
    """Return the outcomes in ``data``, or None where it is broken."""
    try:
        outcomes = pl.read_parquet(BytesIO(data))
    except pl.exceptions.PolarsError:
        return None
    return outcomes if {*KEYS, FIGURES} <= set(outcomes.columns) else None
