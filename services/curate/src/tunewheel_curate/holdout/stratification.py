"""Chooses the units to hold out, so that every label has its share of the holdout and no unit changes sides.

A label's *goal* is the number of its examples to hold out. The exact shares are rounded so that they add up
to the holdout's size (largest remainders, as scikit-learn's ``StratifiedShuffleSplit`` rounds).

Units cannot be divided and may have several labels, so goals are met only approximately. The chi-square
distance measures how nearly: the sum over labels of (goal - held out)² / (examples of the label). The search
goes through the units in the order of their hashes and takes each one that brings the holdout nearer to its
goals. Then it goes backwards and releases each unit without which the holdout is nearer still. Both steps
repeat until nothing changes. (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data",
ECML 2011, fill the rarest label first and release nothing.)
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum

REQUESTED = 1 / 3
"""The least share of a request's answers to hold out: 20 of 60 tell whether a model learnt them, even if some
are of one customer and count as one."""
AT_MOST = 4 / 3
"""The holdout may exceed its fraction by this factor, so that rare labels are in it."""
PASSES = 20
"""The most repetitions of the search. A few are enough. Without a limit, rounding could have a unit taken and
released for ever."""


class Side(StrEnum):
    """The side of a unit in the previous version."""

    HOLDOUT = "holdout"
    TRAIN = "train"
    NEW = "new"
    """It was on neither side, and may go to either."""


@dataclass(frozen=True)
class Unit:
    """Examples that stay together. ``labels`` counts them by label ("" for unlabelled examples)."""

    name: str
    labels: Mapping[str, int]
    side: Side = Side.NEW

    @property
    def size(self) -> int:
        return sum(self.labels.values())


def choose_holdout(units: Iterable[Unit], *, fraction: float) -> frozenset[str]:
    """Return the names of the units to hold out, about ``fraction`` (0..1) of the examples of every label.

    Units that were held out stay held out, and units that trained go on training. A new unit is not held out
    if it is larger than the whole holdout should be, if it is the last one of a label in training, or if it
    would leave training less than half of a label's new examples. Each label without a held-out example gets
    one new unit, the most frequent label first, as long as the holdout stays below ``AT_MOST``. A unit that
    trained is held out only if the holdout would be empty otherwise.
    """
    choice = _Choice(units, fraction)
    choice.search()
    _represent_labels(choice, choice.new)
    if not choice.names:
        choice.take_first(choice.units)
    return frozenset(choice.names)


def choose_of_request(
    units: Iterable[Unit], *, fraction: float, learnt: Iterable[str] = ()
) -> frozenset[str]:
    """Return the names of the units to hold out of those that answer one request for labels: ``fraction`` of
    every label, at least ``REQUESTED``. No unit changes sides. ``learnt`` are the labels of other examples
    that train."""
    choice = _Choice(units, max(fraction, REQUESTED), learnt)
    choice.search()
    return frozenset(choice.names)


def goals_of(totals: Mapping[str, int], fraction: float) -> dict[str, int]:
    """Return how many examples of each label to hold out, given how many there are of each."""
    exact = {label: count * fraction for label, count in totals.items()}
    goals = {label: int(part) for label, part in exact.items()}
    missing = round(sum(totals.values()) * fraction) - sum(goals.values())
    by_remainder = sorted(exact, key=lambda label: (goals[label] - exact[label], -totals[label], label))
    for label in by_remainder[: max(0, missing)]:
        goals[label] += 1
    return goals


def _position(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _represent_labels(choice: _Choice, new: Sequence[Unit]) -> None:
    by_label: dict[str, list[Unit]] = defaultdict(list)
    for unit in new:
        for label in unit.labels:
            by_label[label].append(unit)
    for label in sorted(by_label, key=lambda label: (-choice.totals[label], label)):
        if not choice.held[label]:
            choice.take_first(by_label[label])


class _Choice:
    """The units held out so far, and how far that is from the goals."""

    def __init__(self, units: Iterable[Unit], fraction: float, learnt: Iterable[str] = ()) -> None:
        self.units = sorted(units, key=lambda unit: (_position(unit.name), unit.name))
        self.new = [unit for unit in self.units if unit.side is Side.NEW]
        self.totals = _count(self.units)
        self.names: set[str] = set()
        self.held = Counter[str]()
        self._goals = goals_of(self.totals, fraction)
        self._lacking = {label for label, goal in self._goals.items() if goal > 0}
        """Labels below their goal. Only a unit with one of these labels brings the holdout nearer to its
        goals."""
        self._largest = max(1.0, fraction * self.totals.total())
        self._units_in_training = Counter(label for unit in self.units for label in unit.labels)
        self._units_in_training.update(learnt)
        for unit in self.units:
            if unit.side is Side.HOLDOUT:
                self.take(unit)
        new = _count(self.new)
        self._room = {label: self.held[label] + max(1, count // 2) for label, count in new.items()}

    def search(self) -> None:
        """Bring the holdout as near to its goals as new units can."""
        for _ in range(PASSES):
            taken, released = self.take_nearer(self.new), self.release_farther(self.new)
            if not taken and not released:
                break

    def take(self, unit: Unit) -> None:
        self.names.add(unit.name)
        self.held.update(unit.labels)
        self._lacking.difference_update(label for label in unit.labels if self._missing(label) <= 0)
        self._units_in_training.subtract(unit.labels.keys())

    def take_first(self, units: Iterable[Unit]) -> None:
        """Take the first of ``units`` that can be held out without going beyond ``AT_MOST``."""
        for unit in units:
            limit = AT_MOST * self._largest if self.names else self._largest
            if self.can_spare(unit) and self.held.total() + unit.size <= limit:
                self.take(unit)
                return

    def take_nearer(self, units: Sequence[Unit]) -> bool:
        """Hold out each unit that brings the holdout nearer to its goals; return whether there was one."""
        before = len(self.names)
        for unit in units:
            if self._lacking.isdisjoint(unit.labels) or unit.name in self.names:
                continue
            if self._gain(unit) > 0 and self.can_spare(unit):
                self.take(unit)
        return len(self.names) > before

    def release_farther(self, units: Sequence[Unit]) -> bool:
        """Release, from the last to the first, each unit without which the holdout is nearer to its goals."""
        before = len(self.names)
        for unit in reversed(units):
            if unit.name in self.names and self._loss(unit) > 0:
                self.names.remove(unit.name)
                self.held.subtract(unit.labels)
                self._lacking.update(label for label in unit.labels if self._missing(label) > 0)
                self._units_in_training.update(unit.labels.keys())
        return len(self.names) < before

    def _gain(self, unit: Unit) -> float:
        """Return how much the chi-square distance shrinks if ``unit`` is held out."""
        gains = [
            count * (2 * self._missing(label) - count) / self.totals[label]
            for label, count in unit.labels.items()
        ]
        return gains[0] if len(gains) == 1 else fsum(gains)  # most units have one label

    def _loss(self, unit: Unit) -> float:
        """Return how much larger the chi-square distance is because ``unit`` is held out."""
        return fsum(
            -count * (2 * self._missing(label) + count) / self.totals[label]
            for label, count in unit.labels.items()
        )

    def _missing(self, label: str) -> int:
        return self._goals[label] - self.held[label]

    def can_spare(self, unit: Unit) -> bool:
        """Return whether training has enough of every label without ``unit``."""
        return unit.size <= self._largest and all(
            self._units_in_training[label] > 1 and self.held[label] + count <= self._room.get(label, count)
            for label, count in unit.labels.items()
        )


def _count(units: Iterable[Unit]) -> Counter[str]:
    counts = Counter[str]()
    for unit in units:
        counts.update(unit.labels)
    return counts
