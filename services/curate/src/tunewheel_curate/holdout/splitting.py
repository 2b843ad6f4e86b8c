"""Train and holdout: nothing of the holdout was seen in training, and a newcomer moves nobody.

A *unit* is what must stay together: all examples of a group, joined with the groups that hold texts alike
(similarity ``LEAK_SIMILARITY`` and more) or are of the same conversation (``sessions.py``). Which new units
are held out is decided by label (``stratification.py``); where the others are, the memory tells
(``memory.py``): a unit of which anything was ever held out is held out whole, one that trained trains. Where
that would take too much out of training, because a small unit grew into a large one, the large one trains
without what was held out and without what resembles it. A unit with a retired group is on neither side: too
many verdicts were based on it, and new units take its place in the holdout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.holdout.memory import Seen
from tunewheel_curate.holdout.stratification import Side, Unit, choose_holdout
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components

LEAK_SIMILARITY = 0.6


def _no_examples() -> pl.DataFrame:
    return pl.DataFrame(schema=EXAMPLE_SCHEMA)


@dataclass(frozen=True)
class Split:
    """Frames with the columns of the examples, each sorted by ``example_id``."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    neither: pl.DataFrame = field(default_factory=_no_examples)
    """Once held out, and now retired, or part of a unit that is too large to be."""


@dataclass
class _Rows:
    """A unit's examples, by position."""

    all: list[int] = field(default_factory=list)
    held_before: list[int] = field(default_factory=list)
    """Those that were held out themselves."""
    retired: bool = False
    """One of them is of a retired group."""
    seen: Seen = Seen.NEVER
    """The strongest relation that one of them has to earlier versions."""


def split_examples(
    examples: pl.DataFrame,
    pairs: Sequence[SimilarPair],
    *,
    holdout: float,
    seen: Sequence[Seen] = (),
    retired: Sequence[bool] = (),
) -> Split:
    """Split ``examples`` so that about the fraction ``holdout`` is held out.

    ``pairs`` are positions in ``examples``; ``seen`` says for each position how it is related to earlier
    versions (empty: there were none), ``retired`` which are of a retired group (empty: none). A unit larger
    than the fraction trains, unless half of it was held out before.
    """
    rows = _units(examples, pairs, seen, retired)
    largest = max(1.0, holdout * examples.height)
    resting = {name for name, unit in rows.items() if unit.retired and _side(unit, largest) is Side.HOLDOUT}
    labels = [label or "" for label in examples["label"]]
    units = [
        Unit(name, Counter(labels[row] for row in unit.all), _side(unit, largest))
        for name, unit in rows.items()
        if name not in resting
    ]
    held = choose_holdout(units, fraction=holdout)
    chosen = {row for name in held for row in rows[name].all}
    lost = {row for name, unit in rows.items() if name not in held for row in unit.held_before}
    lost |= _alike(lost, pairs) if lost else set()
    lost |= {row for name in resting for row in rows[name].all}
    lost -= chosen
    lost |= {row for row, rests in enumerate(retired) if rests}
    return Split(
        train=_rows(examples, lambda row: row not in chosen and row not in lost),
        holdout=_rows(examples, lambda row: row in chosen and row not in lost),
        neither=_rows(examples, lambda row: row in lost),
    )


def _alike(rows: set[int], pairs: Sequence[SimilarPair]) -> set[int]:
    return {row for p in pairs if p.first in rows or p.second in rows for row in (p.first, p.second)}


def _rows(examples: pl.DataFrame, wanted: Callable[[int], bool]) -> pl.DataFrame:
    mask = pl.Series([wanted(row) for row in range(examples.height)], dtype=pl.Boolean)
    return examples.filter(mask).sort("example_id")


def _side(unit: _Rows, largest: float) -> Side:
    if unit.seen is Seen.NEVER:
        return Side.NEW
    if unit.seen is Seen.TRAINED:
        return Side.TRAIN
    return Side.HOLDOUT if len(unit.all) <= max(largest, 2 * len(unit.held_before)) else Side.TRAIN


def _units(
    examples: pl.DataFrame, pairs: Sequence[SimilarPair], seen: Sequence[Seen], retired: Sequence[bool]
) -> dict[str, _Rows]:
    """Return the units by name, which is that of their first group."""
    groups = examples["group"].unique().sort().to_list()
    of_row = (examples["group"].rank("dense").cast(pl.Int64) - 1).to_numpy()
    columns = SimilarPairs.of(pairs)
    edges = SimilarPairs(of_row[columns.first], of_row[columns.second], columns.similarity)
    roots = components(len(groups), edges)
    units = defaultdict[str, _Rows](_Rows)
    for row, group in enumerate(of_row.tolist()):
        unit = units[groups[roots[group]]]
        unit.all.append(row)
        unit.retired = unit.retired or (bool(retired) and retired[row])
        if seen:
            unit.seen = max(unit.seen, seen[row])
            unit.held_before += [row] if seen[row] is Seen.EXAMPLE else []
    return units
