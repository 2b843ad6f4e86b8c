"""Chooses the units to hold out, so that every label has its share of the holdout and no unit changes sides.

A label's *goal* is the number of its examples to hold out. The exact shares are rounded so that they add up
to the holdout's size (largest remainders, as scikit-learn's ``StratifiedShuffleSplit`` rounds). Of examples
that answer a request for labels a larger share is held out (``REQUESTED``). A request has a goal as a label
has, and both are met together.

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
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import fsum
from typing import NamedTuple

REQUESTED = 1 / 3
"""The least share of a request's answers to hold out: 20 of 60 tell whether a model learnt them, even if some
are of one customer and count as one."""
PRIORITY = 8
"""How much nearer a request's goal is to be met than a label's: without its share nobody learns what came of
the request."""
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


class Request(NamedTuple):
    """A request for labels, as a stratum beside the labels."""

    request_id: str


Stratum = str | Request


@dataclass(frozen=True)
class Unit:
    """Examples that stay together. ``labels`` counts them by label ("" for unlabelled examples).
    ``requested`` counts, by label and request, those that answer a request for labels."""

    name: str
    labels: Mapping[str, int]
    side: Side = Side.NEW
    requested: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    @property
    def size(self) -> int:
        return sum(self.labels.values())

    @cached_property
    def strata(self) -> Mapping[Stratum, int]:
        """The examples by label, and by request."""
        if not self.requested:
            return {**self.labels}
        counts = Counter[Stratum](self.labels)
        for (_, request_id), count in self.requested.items():
            counts[Request(request_id)] += count
        return counts


def choose_holdout(units: Iterable[Unit], *, fraction: float) -> frozenset[str]:
    """Return the names of the units to hold out, about ``fraction`` (0..1) of the examples of every label,
    and at least about ``REQUESTED`` of those of every request.

    Units that were held out stay held out, and units that trained go on training. A new unit is not held out
    if it is larger than the whole holdout should be, if it is the last one of a label in training, or if it
    would leave training less than half of a label's new examples. Each label without a held-out example gets
    one new unit, the most frequent label first, as long as the holdout stays below ``AT_MOST``. A unit that
    trained is held out only if the holdout would be empty otherwise.
    """
    ordered = sorted(units, key=lambda unit: (_position(unit.name), unit.name))
    choice = _Choice(ordered, fraction)
    new = [unit for unit in ordered if unit.side is Side.NEW]
    for _ in range(PASSES):
        taken, released = choice.take_nearer(new), choice.release_farther(new)
        if not taken and not released:
            break
    _represent_labels(choice, new)
    if not choice.names:
        choice.take_first(ordered)
    return frozenset(choice.names)


def goals_of(
    totals: Mapping[Stratum, int], fraction: float, requested: Mapping[Stratum, int] | None = None
) -> dict[Stratum, int]:
    """Return how many examples of each label to hold out, given how many there are of each, and how many of
    them are ``requested``."""
    requested, extra = requested or {}, max(0.0, REQUESTED - fraction)
    exact = {label: count * fraction + requested.get(label, 0) * extra for label, count in totals.items()}
    goals = {label: int(part) for label, part in exact.items()}
    missing = round(_size(totals, fraction, requested)) - sum(goals.values())
    by_remainder = sorted(exact, key=lambda label: (goals[label] - exact[label], -totals[label], label))
    for label in by_remainder[: max(0, missing)]:
        goals[label] += 1
    return goals


def _size(totals: Mapping[Stratum, int], fraction: float, requested: Mapping[Stratum, int]) -> float:
    """Return how many examples the holdout should have."""
    return fraction * sum(totals.values()) + max(0.0, REQUESTED - fraction) * sum(requested.values())


def _position(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _represent_labels(choice: _Choice, new: Sequence[Unit]) -> None:
    by_label: dict[Stratum, list[Unit]] = defaultdict(list)
    for unit in new:
        for label in unit.labels:
            by_label[label].append(unit)
    for label in sorted(by_label, key=lambda label: (-choice.totals[label], str(label))):
        if not choice.held[label]:
            choice.take_first(by_label[label])


class _Choice:
    """The units held out so far, and how far that is from the goals."""

    def __init__(self, units: Sequence[Unit], fraction: float) -> None:
        self.totals = _count(units)
        """By label, and by request, like the examples that are held out."""
        self.names: set[str] = set()
        self.held = Counter[Stratum]()
        self.size = 0
        requested = Counter[Stratum]()
        for unit in units:
            for (label, request_id), count in unit.requested.items():
                requested.update({label: count, Request(request_id): count})
        of_labels, of_requests = (
            {one: count for one, count in self.totals.items() if isinstance(one, Request) is is_request}
            for is_request in (False, True)
        )
        by_label = {one: count for one, count in requested.items() if one in of_labels}
        self._goals = goals_of(of_labels, fraction, by_label)
        self._largest = max(1.0, _size(of_labels, fraction, by_label))
        self._goals |= goals_of(of_requests, max(fraction, REQUESTED))
        self._weights = {
            one: n / PRIORITY if isinstance(one, Request) else n for one, n in self.totals.items()
        }
        self._lacking = {label for label, goal in self._goals.items() if goal > 0}
        """Labels below their goal. Only a unit with one of these labels brings the holdout nearer to its
        goals."""
        self._units_in_training = Counter(label for unit in units for label in unit.strata)
        for unit in units:
            if unit.side is Side.HOLDOUT:
                self.take(unit)
        new = _count(unit for unit in units if unit.side is Side.NEW)
        self._room = {label: self.held[label] + max(1, count // 2) for label, count in new.items()}

    def take(self, unit: Unit) -> None:
        self.names.add(unit.name)
        self.size += unit.size
        self.held.update(unit.strata)
        self._lacking.difference_update(label for label in unit.strata if self._missing(label) <= 0)
        self._units_in_training.subtract(unit.strata.keys())

    def take_first(self, units: Iterable[Unit]) -> None:
        """Take the first of ``units`` that can be held out without going beyond ``AT_MOST``."""
        for unit in units:
            limit = AT_MOST * self._largest if self.names else self._largest
            if self.can_spare(unit) and self.size + unit.size <= limit:
                self.take(unit)
                return

    def take_nearer(self, units: Sequence[Unit]) -> bool:
        """Hold out each unit that brings the holdout nearer to its goals; return whether there was one."""
        before = len(self.names)
        for unit in units:
            if self._lacking.isdisjoint(unit.strata) or unit.name in self.names:
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
                self.size -= unit.size
                self.held.subtract(unit.strata)
                self._lacking.update(label for label in unit.strata if self._missing(label) > 0)
                self._units_in_training.update(unit.strata.keys())
        return len(self.names) < before

    def _gain(self, unit: Unit) -> float:
        """Return how much the chi-square distance shrinks if ``unit`` is held out."""
        gains = [
            count * (2 * self._missing(label) - count) / self._weights[label]
            for label, count in unit.strata.items()
        ]
        return gains[0] if len(gains) == 1 else fsum(gains)  # most units have one label

    def _loss(self, unit: Unit) -> float:
        """Return how much larger the chi-square distance is because ``unit`` is held out."""
        return fsum(
            -count * (2 * self._missing(label) + count) / self._weights[label]
            for label, count in unit.strata.items()
        )

    def _missing(self, label: Stratum) -> int:
        return self._goals[label] - self.held[label]

    def can_spare(self, unit: Unit) -> bool:
        """Return whether training has enough of every label without ``unit``."""
        return unit.size <= self._largest and all(
            self._units_in_training[label] > 1 and self.held[label] + count <= self._room.get(label, count)
            for label, count in unit.strata.items()
        )


def _count(units: Iterable[Unit]) -> Counter[Stratum]:
    counts = Counter[Stratum]()
    for unit in units:
        counts.update(unit.strata)
    return counts
