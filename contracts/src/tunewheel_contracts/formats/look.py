"""Looks at held-out rows. A look is one verdict for which the rows were used.

Eval writes looks. Each spends a part of the significance that a row has for all its verdicts. Curate retires
the rows that were used most: a retired row is neither judged nor trained on.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug
from tunewheel_contracts.formats.criteria import LOOKS
from tunewheel_contracts.formats.dataset import ChatExample

_ROUNDING = 1e-9


class Look(Frozen):
    """``looks/<project>/<scorecard_id>.json``. It is created once, so a redelivered event adds no look.

    A build that retires rows writes a look of 1, named by the build: it spends all that the rows had left.
    """

    project: Slug
    scorecard_id: Slug
    groups: tuple[str, ...] = ()
    """Pseudonyms of the groups whose rows the verdict used, sorted. Earlier releases counted by group."""
    rows: Annotated[tuple[str, ...], Field(exclude_if=operator.not_)] = ()
    """The rows that the verdict used, by ``row_name``, sorted."""
    looks: Annotated[int, Field(gt=0)]
    """Number of looks, including this one, at the row among them that was used most often."""
    of: Annotated[int, Field(gt=0, exclude_if=lambda count: count == LOOKS)] = LOOKS
    """Number of verdicts that share the significance: the look spent 1/``of``."""
    counted: Annotated[int | None, Field(exclude_if=lambda count: count is None)] = None
    """For a build: the number of looks at rows that builds have counted so far, its own included."""


def looks_folder(project: str) -> str:
    return f"looks/{project}"


def look_path(project: str, scorecard_id: str) -> str:
    return f"{looks_folder(project)}/{scorecard_id}.json"


def row_name(example: ChatExample) -> str:
    """Return the name of a held-out row. It stays the same under another system prompt."""
    return example.record_ids[0] if example.record_ids else example.example_id


class Spending:
    """What rows have spent of their significance: 1 is all of it."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)

    def add(self, look: Look) -> None:
        for name in {*look.groups, *look.rows}:
            self._spent[name] += 1 / look.of

    def of(self, example: ChatExample) -> float:
        """Return what a row has spent, by itself and as a row of its group."""
        return self._spent.get(row_name(example), 0.0) + self._spent.get(example.group, 0.0)

    def allows(self, example: ChatExample, share: float) -> bool:
        """Return whether the row may spend ``share`` more."""
        return self.of(example) + share <= 1 + _ROUNDING
