"""A curation step, the rows that steps work on, and the runner of a list of steps.

A step declares the columns that it reads and writes. The runner hands it no others, and takes no others from
its result. So a step cannot depend on a column by accident.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.evaluation.benchmarks import Overlap
from tunewheel_curate.evaluation.contamination import Search
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import examples_of
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, ComparedRecords, HoldoutMemory
from tunewheel_curate.labels.suspects import Suspects
from tunewheel_curate.outcomes import follow_rows, no_outcomes
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.similarity.pairs import SimilarPairs, pairs_among
from tunewheel_curate.stage import HOLDOUT, TRAIN, Stage, without_texts

if TYPE_CHECKING:
    from tunewheel_curate.inputs import Inputs
    from tunewheel_curate.records.selection import Selected


class Kind(StrEnum):
    """The kinds of rows, in the order of the funnel."""

    ANSWER = "answer"
    """A record with an answer."""
    DOCUMENT = "document"
    """A draft of an example, made from a section of a document."""
    PAIR = "pair"
    """A record with an answer to avoid beside the answer to prefer."""
    NEGATIVE = "negative"
    """A record whose answer was only rated down; ``output`` is that answer."""
    REPLAY = "replay"
    """A conversation of the general data."""
    PASSAGE = "passage"
    """A passage of the index, which the prompts of other rows may hold."""


@dataclass(frozen=True)
class Context:
    """Everything that the rows of a lane, or the options of a step, may follow from."""

    kind: Kind
    spec: ProjectSpec
    inputs: Inputs
    selected: Selected
    """The records before any step changed their texts."""
    earlier: NearIndex
    """The index of an earlier build. It saves time and does not change the result."""
    lanes: Mapping[Kind, Lane]

    @property
    def answers(self) -> Lane:
        return self.lanes[Kind.ANSWER]

    @property
    def system_prompt(self) -> str:
        documents = self.spec.dataset.formats.documents
        return documents.system_prompt if self.kind is Kind.DOCUMENT else self.spec.task.system_prompt

    @property
    def compared(self) -> ComparedRecords:
        """The answers that were compared with each other, and their duplicates."""
        return ComparedRecords(self.answers.held, pl.concat([stage.dropped for stage in self.answers.stages]))

    @property
    def holdout(self) -> pl.DataFrame:
        """The held-out rows, sorted by ``example_id``."""
        return self.answers.rows.filter(pl.col("side") == HOLDOUT).sort("example_id")

    @property
    def train(self) -> pl.DataFrame:
        """The examples of the project that train."""
        own = [self.lanes[kind].rows for kind in (Kind.ANSWER, Kind.DOCUMENT) if kind in self.lanes]
        return pl.concat([examples_of(rows.filter(pl.col("side") == TRAIN)) for rows in own])

    @property
    def search(self) -> Search:
        """The search for benchmarks and held-out questions. For answers, ``drop_contaminated`` searches for
        the latter itself, because a question that too many rows hold leaves the holdout."""
        dataset = self.spec.dataset
        if self.kind is Kind.ANSWER:
            threshold, index = dataset.near_duplicate_threshold, self.answers.near_index
            return Search(self.inputs.benchmarks, dataset.contamination.words, threshold, index)
        texts = (*self.inputs.benchmarks, held_out_questions(self.holdout))
        return Search(texts, dataset.contamination.words, LEAK_SIMILARITY)


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
    one_stage: str = ""
    """The name of the only stage that the funnel has for this lane. Empty: the funnel has all stages."""
    held: pl.DataFrame = field(default_factory=pl.DataFrame)
    review: list[pl.DataFrame] = field(default_factory=list)
    waiting: list[pl.DataFrame] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    near_index: NearIndex = field(default_factory=empty_index)
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    suspects: Suspects = field(default_factory=Suspects)
    semantic: SemanticReport | None = None
    _pairs: SimilarPairs = field(default_factory=lambda: SimilarPairs.of(()))
    _paired: list[str] = field(default_factory=list)
    """The ids of the rows that ``_pairs`` are positions in."""

    @property
    def funnel(self) -> list[FunnelStage]:
        stages = [stage.funnel for stage in self.stages]
        if not self.one_stage:
            return stages
        reasons = Counter(reason for stage in self.stages for reason in stage.dropped["reason"])
        return [
            FunnelStage(
                stage=self.one_stage,
                entered=self.rows.height + reasons.total(),
                left=self.rows.height,
                reasons=dict(sorted(reasons.items())),
            )
        ]

    def pairs_among(self, record_ids: pl.Series) -> SimilarPairs:
        """Return the similar pairs as positions in ``record_ids``; pairs that lost a member are left out."""
        return pairs_among(self._pairs, self._paired, record_ids.to_list())

    def follow(self, step: Step, options: Mapping[str, Any]) -> Stage:
        """Run ``step`` on the rows and return its outcome."""
        before = self.rows
        pairs = (self.pairs_among(before["record_id"]),) if step.paired else ()
        stage = step.run(before.select("record_id", *step.reads.split()), *pairs, **options)
        written = stage.kept.select("record_id", *step.writes.split())
        rest = before.drop(step.writes.split(), strict=False)
        if written["record_id"].equals(rest["record_id"]):
            self.rows = rest.with_columns(written.drop("record_id"))
        else:
            self.rows = rest.join(written, on="record_id", maintain_order="left")
        if stage.pairs is not None:
            self._pairs, self._paired = stage.pairs, before["record_id"].to_list()
        if step.held:
            self.held = self.rows
        self.review += stage.review
        self.waiting += stage.waiting
        self.overlaps += stage.overlaps
        for name in ("near_index", "semantic", "suspects", "memory"):
            if (found := getattr(stage, name)) is not None:
                setattr(self, name, found)
        if stage.shown:
            self.stages.append(without_texts(replace(stage, name=f"{self.prefix}{step.name}")))
        return stage


Draft = Callable[[Context], Lane | None]
"""Makes the rows of a lane. None: this project has no rows of that kind."""


def run(
    drafts: Mapping[Kind, Draft],
    steps: Iterable[Step],
    context: Callable[..., Context],
    *,
    row_steps: Sequence[Step] = (),
    outcomes: pl.DataFrame | None = None,
) -> tuple[dict[Kind, Lane], pl.DataFrame]:
    """Draft the lanes, and run ``row_steps`` and ``steps`` from the first to the last, each on the lanes of
    its kinds. Return the lanes, and the outcomes of the row steps.

    Rows with an outcome among ``outcomes`` (an earlier run's) do not go through the row steps again.

    Raises:
        InvalidSpec: the spec is faulty.
    """
    lanes: dict[Kind, Lane] = {}
    for kind, draft in drafts.items():
        if (lane := draft(context(kind, lanes=lanes))) is not None:
            lanes[kind] = lane
    earlier, passed = no_outcomes() if outcomes is None else outcomes, [no_outcomes()]
    for kind, lane in lanes.items():
        options = [
            (step, step.options(context(kind, lanes=lanes))) for step in row_steps if kind in step.kinds
        ]
        if chain := [(step, chosen) for step, chosen in options if chosen is not None]:
            passed.append(follow_rows(lane, kind, chain, earlier))
    for step in steps:
        for kind in step.kinds:
            chosen = step.options(context(kind, lanes=lanes)) if kind in lanes else None
            if chosen is not None:
                lanes[kind].follow(step, chosen)
    return lanes, pl.concat(passed, how="diagonal")
