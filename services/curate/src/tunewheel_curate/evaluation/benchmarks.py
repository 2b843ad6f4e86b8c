"""Reads the texts that a model will be judged by: eval's regression set and the project's benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import Benchmark
from tunewheel_contracts.formats.quality_report import BenchmarkOverlap
from tunewheel_contracts.formats.regression_items import read_items
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

REGRESSION = "regression-set"


@dataclass(frozen=True)
class BenchmarkTexts:
    """The texts of one benchmark."""

    name: str
    texts: tuple[str, ...]
    whole: bool = False
    """Whether an example also overlaps if one of its conversations holds a whole text of the benchmark."""

    @property
    def sha256(self) -> str:
        return content_sha256(list(self.texts))


@dataclass(frozen=True)
class Overlap:
    """The overlap of examples with one benchmark; see ``BenchmarkOverlap``."""

    benchmark: BenchmarkTexts
    items: frozenset[int]
    """Positions of the benchmark's texts that an example overlaps."""
    dropped: int = 0
    train: int = 0
    holdout: int = 0

    def joined(self, other: Overlap) -> Overlap:
        """Return the overlap of both sets of examples with the same benchmark."""
        assert self.benchmark == other.benchmark
        counts = (self.dropped + other.dropped, self.train + other.train, self.holdout + other.holdout)
        return Overlap(self.benchmark, self.items | other.items, *counts)

    @property
    def report(self) -> BenchmarkOverlap:
        return BenchmarkOverlap(
            benchmark=self.benchmark.name,
            sha256=self.benchmark.sha256,
            items=len(self.benchmark.texts),
            overlapping_items=len(self.items),
            dropped=self.dropped,
            train=self.train,
            holdout=self.holdout,
        )


def merged(overlaps: Iterable[Overlap]) -> tuple[Overlap, ...]:
    """Join the overlaps with the same benchmark, in the order in which each was first named."""
    found: dict[str, Overlap] = {}
    for overlap in overlaps:
        name = overlap.benchmark.name
        found[name] = found[name].joined(overlap) if name in found else overlap
    return tuple(found.values())


def regression_benchmark(path: Path | None) -> BenchmarkTexts:
    """Return the prompts of the regression set at ``path``, or of the one that comes with Tunewheel.

    Raises:
        ValueError, OSError: the file is malformed or missing: correct the setting ``EVAL_REGRESSION_SET``.
    """
    return BenchmarkTexts(REGRESSION, tuple(item.prompt for item in read_items(path)))


async def read_benchmarks(declared: Sequence[Benchmark], store: ObjectStore) -> tuple[BenchmarkTexts, ...]:
    """Read what a spec declares.

    Raises:
        InvalidSpec: a file is missing, has another hash, or holds no texts. The field names the file.
        TransientError: the store is away.
    """
    return tuple([await _read(benchmark, number, store) for number, benchmark in enumerate(declared)])


async def _read(benchmark: Benchmark, number: int, store: ObjectStore) -> BenchmarkTexts:
    where = f"dataset.benchmarks.{number}"
    if benchmark.path is None:
        return BenchmarkTexts(benchmark.name, benchmark.texts)
    benchmark.check_place(f"{where}.path")
    data = await store.read(benchmark.path)
    if data is None:
        raise InvalidSpec(
            field=f"{where}.path", reason=f"{benchmark.path} is not in the object store; put it there"
        )
    found = content_sha256(data)
    if benchmark.sha256 not in (None, found):
        raise InvalidSpec(
            field=f"{where}.sha256",
            reason=f"{benchmark.path} hashes to {found}; restore the file, or give this hash",
        )
    return BenchmarkTexts(benchmark.name, tuple(_texts(data, benchmark.field, f"{where}.path")))


def _texts(data: bytes, field: str, where: str) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidSpec(field=where, reason=f"line {number} is not JSON ({error}); mend it") from error
        text = value.get(field) if isinstance(value, dict) else value
        if not isinstance(text, str):
            reason = f"line {number} has no text in {field!r}; name the right field in 'field'"
            raise InvalidSpec(field=where, reason=reason)
        texts.append(text.encode("utf-8", "replace").decode())  # JSON may name half a surrogate pair
    if not texts:
        raise InvalidSpec(field=where, reason="holds no texts; give at least one")
    return texts
