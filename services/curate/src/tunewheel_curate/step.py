"""A curation step, the rows that steps work on, and the runner of a list of steps.

A step declares the columns that it reads and writes. The runner hands it no others, and takes no others from
its result. So a step cannot depend on a column by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import polars as pl
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.similarity.pairs import SimilarPairs, pairs_among
from tunewheel_curate.stage import Stage, without_texts

if TYPE_CHECKING:
    from tunewheel_curate.inputs import Pinned


class Kind(StrEnum):
    """The kinds of rows. All have the columns of ``RECORD_SCHEMA``, and an ``output``."""

    ANSWER = "answer"
    """A record with an answer."""
    DOCUMENT = "document"
    """A draft of an example, made from a section of a document."""
    NEGATIVE = "negative"
    """A record whose answer was only rated down; ``output`` is that answer."""


@dataclass(frozen=True)
class Context:
    """What the options of a step may follow from."""

    kind: Kind
    spec: ProjectSpec
    pinned: Pinned
    received: pl.DataFrame
    """The records before any step changed their texts."""
    earlier: NearIndex
    """The index of an earlier build. It saves time and does not change the result."""

    @property
    def system_prompt(self) -> str:
        documents = self.spec.dataset.formats.documents
        return documents.system_prompt if self.kind is Kind.DOCUMENT else self.spec.task.system_prompt


@dataclass(frozen=True)
class Step:
    """One line of the list."""

    name: str
    run: Callable[..., Stage]
    """Takes the rows, if ``paired`` their similar pairs as positions, and the options by name."""
    reads: str
    """The columns that it reads, besides ``record_id``."""
    writes: str = ""
    """The columns that it adds or changes."""
    options: Callable[[Context], Mapping[str, Any] | None] = lambda _: {}
    """The part of the spec and of the inputs that the step depends on. None: this project has no such
    step."""
    kinds: tuple[Kind, ...] = (Kind.ANSWER,)
    paired: bool = False
    held: bool = False
    """Whether the rows that it keeps are held for later (``Lane.held``)."""


@dataclass
class Lane:
    """The rows of one kind, sorted by ``record_id``, and what the steps found about them."""

    rows: pl.DataFrame
    stages: list[Stage] = field(default_factory=list)
    """The stages so far, without texts."""
    prefix: str = ""
    """Stands before the names of its stages in the funnel."""
    held: pl.DataFrame = field(default_factory=pl.DataFrame)
    review: list[pl.DataFrame] = field(default_factory=list)
    near_index: NearIndex = field(default_factory=empty_index)
    semantic: SemanticReport | None = None
    _pairs: SimilarPairs = field(default_factory=lambda: SimilarPairs.of(()))
    _paired: list[str] = field(default_factory=list)
    """The ids of the rows that ``_pairs`` are positions in."""

    def pairs_among(self, record_ids: pl.Series) -> SimilarPairs:
        """Return the similar pairs as positions in ``record_ids``; pairs that lost a member are left out."""
        return pairs_among(self._pairs, self._paired, record_ids.to_list())

    def follow(self, step: Step, options: Mapping[str, Any]) -> None:
        """Run ``step`` on the rows."""
        before = self.rows
        pairs = (self.pairs_among(before["record_id"]),) if step.paired else ()
        stage = step.run(before.select("record_id", *step.reads.split()), *pairs, **options)
        written = stage.kept.select("record_id", *step.writes.split())
        rest = before.drop(step.writes.split(), strict=False)
        self.rows = rest.join(written, on="record_id", maintain_order="left")
        if stage.pairs is not None:
            self._pairs, self._paired = stage.pairs, before["record_id"].to_list()
        if step.held:
            self.held = self.rows
        self.review += stage.review
        self.near_index, self.semantic = stage.near_index or self.near_index, stage.semantic or self.semantic
        if stage.shown:
            self.stages.append(without_texts(replace(stage, name=f"{self.prefix}{step.name}")))


def run(steps: Iterable[Step], lanes: Mapping[Kind, Lane], context: Callable[[Kind], Context]) -> None:
    """Run ``steps`` from the first to the last, each on the lanes of its kinds.

    Raises:
        InvalidSpec: the spec is faulty.
    """
    for step in steps:
        for kind in step.kinds:
            options = step.options(context(kind)) if kind in lanes else None
            if options is not None:
                lanes[kind].follow(step, options)
