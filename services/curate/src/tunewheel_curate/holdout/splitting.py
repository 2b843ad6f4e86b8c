"""Train and holdout: nothing of the holdout was seen in training, and a newcomer moves nobody.

A *unit* is what must stay together: all examples of a group, joined with the groups that hold texts alike
(similarity ``LEAK_SIMILARITY`` and more). The hash of a unit's smallest group name decides on which side it
lies, so the next version keeps every unit where it was unless two grow together or the fraction changes.

Then the memory decides (``memory.py``): a unit of which anything was ever held out is held out whole.
Where that would take too much out of training, because a small unit grew into a large one, the large one
trains without what was held out and without what resembles it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from tunewheel_curate.duplicates.similarity import SimilarPair, components
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.holdout.memory import Seen

LEAK_SIMILARITY = 0.6


def _no_examples() -> pl.DataFrame:
    return pl.DataFrame(schema=EXAMPLE_SCHEMA)


@dataclass(frozen=True)
class Split:
    """Frames with the columns of the examples, each sorted by ``example_id``."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    neither: pl.DataFrame = field(default_factory=_no_examples)
    """Once held out, and now part of a unit that is too large to be."""


@dataclass
class _Unit:
    name: str
    position: float
    """0..1, from the hash of the name: below the holdout fraction it is held out."""
    rows: list[int] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)
    """Its rows that were held out themselves."""
    bound: bool = False
    """Something of it was ever held out."""


def split_examples(
    examples: pl.DataFrame, pairs: Sequence[SimilarPair], *, holdout: float, seen: Sequence[Seen] = ()
) -> Split:
    """Split ``examples`` so that about the fraction ``holdout`` is held out.

    ``pairs`` are positions in ``examples``; ``seen`` says for each position how it is related to earlier
    holdouts (empty: there were none). A unit larger than the fraction trains, unless half of it was held out
    before. Where it can be done without taking a label's last unit out of training, every label also occurs
    in the holdout.
    """
    units = _units(examples, pairs, seen)
    largest = max(1.0, holdout * examples.height)
    held = {unit.name for unit in units if _is_held(unit, holdout, largest)}
    _keep_labels_in_train(units, held)
    _represent_labels(units, held, largest)
    chosen = {row for unit in units if unit.name in held for row in unit.rows}
    lost = {row for unit in units if unit.name not in held for row in unit.seen}
    lost |= _alike(lost, pairs) if lost else set()
    lost -= chosen
    return Split(
        train=_rows(examples, lambda row: row not in chosen and row not in lost),
        holdout=_rows(examples, lambda row: row in chosen),
        neither=_rows(examples, lambda row: row in lost),
    )


def _alike(rows: set[int], pairs: Sequence[SimilarPair]) -> set[int]:
    return {row for p in pairs if p.first in rows or p.second in rows for row in (p.first, p.second)}


def _rows(examples: pl.DataFrame, wanted: Callable[[int], bool]) -> pl.DataFrame:
    mask = pl.Series([wanted(row) for row in range(examples.height)], dtype=pl.Boolean)
    return examples.filter(mask).sort("example_id")


def _is_held(unit: _Unit, holdout: float, largest: float) -> bool:
    if unit.bound:
        return len(unit.rows) <= max(largest, 2 * len(unit.seen))
    return unit.position < holdout and len(unit.rows) <= largest


def _units(examples: pl.DataFrame, pairs: Sequence[SimilarPair], seen: Sequence[Seen]) -> list[_Unit]:
    groups = sorted(examples["group"].unique())
    place = {group: number for number, group in enumerate(groups)}
    of_row = [place[group] for group in examples["group"]]
    roots = components(len(groups), ((of_row[p.first], of_row[p.second]) for p in pairs))
    units: dict[int, _Unit] = {}
    labels = examples["label"].to_list()
    for row, group in enumerate(of_row):
        root = roots[group]
        unit = units.setdefault(root, _Unit(groups[root], _position(groups[root])))
        unit.rows.append(row)
        unit.labels |= {labels[row]} - {None}
        if seen and seen[row] is not Seen.NEVER:
            unit.bound = True
            unit.seen += [row] if seen[row] is Seen.EXAMPLE else []
    return sorted(units.values(), key=lambda unit: (unit.position, unit.name))


def _position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _keep_labels_in_train(units: Iterable[_Unit], held: set[str]) -> None:
    """Give training back one unit of every label that lost its last: the furthest from the holdout, and none
    of which anything was held out before."""
    by_label = _by_label(units)
    for label in sorted(by_label):
        free = [unit for unit in by_label[label] if not unit.bound]
        if free and all(unit.name in held for unit in by_label[label]):
            held.discard(free[-1].name)


def _represent_labels(units: Sequence[_Unit], held: set[str], largest: float) -> None:
    """Hold out, for every label without a held unit (or for all, without labels), the nearest one."""
    by_label = _by_label(units) or {"": list(units)}
    for label in sorted(by_label):
        if any(unit.name in held for unit in by_label[label]):
            continue
        for unit in by_label[label]:
            if len(unit.rows) <= largest and _spares_training(unit, by_label, held):
                held.add(unit.name)
                break


def _spares_training(unit: _Unit, by_label: dict[str, list[_Unit]], held: set[str]) -> bool:
    labels = unit.labels or {""}
    return all(any(u.name not in held and u is not unit for u in by_label.get(name, [])) for name in labels)


def _by_label(units: Iterable[_Unit]) -> dict[str, list[_Unit]]:
    by_label: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        for label in unit.labels:
            by_label[label].append(unit)
    return dict(by_label)
