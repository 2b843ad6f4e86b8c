"""The retrieval part of a scorecard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.retrieval_scores import Cell, CellScores, Ranking, RetrievalScores, Staleness
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.criteria import ALPHA
from tunewheel_outputs.metric import Corpus
from tunewheel_planner.advice import approach_of, held_against
from tunewheel_verdicts.significance import Clusters, figure_interval

from tunewheel_eval.clusters import of_examples
from tunewheel_eval.measurement import HoldoutRow, Measurement, example_key
from tunewheel_eval.metrics import Outcomes, metric_of, outcomes
from tunewheel_eval.passages.cells import Cells, best_of, deciding
from tunewheel_eval.passages.looked_up import LookedUp

NO_ROWS = "evaluation.cells is 0, or the prompts with passages are too long for a model"


def cell_sample(examples: Sequence[ChatExample], spec: ProjectSpec) -> tuple[ChatExample, ...]:
    """Return the examples for all four cells: the first ones by key. Keys are hashes, so this is a random
    sample that is always the same."""
    limit = spec.task.max_output_tokens
    ordered = sorted(examples, key=lambda one: example_key(one, max_output_tokens=limit))
    return tuple(ordered[: spec.evaluation.cells])


@dataclass(frozen=True)
class Answers:
    """The measurements of base and candidate with and without passages."""

    spec: ProjectSpec
    looked: LookedUp
    measured: Mapping[Role, Measurement]
    trained_with_passages: bool = False
    """Whether the candidate was trained on prompts with passages."""

    def row(self, cell: Cell, example: ChatExample) -> HoldoutRow | None:
        """Return a cell's row; None: the cell was not asked, or could not be measured."""
        asked = self.looked.asked(example, with_passages=cell.has_passages)
        key = example_key(asked, max_output_tokens=self.spec.task.max_output_tokens)
        row = self._of(cell).rows.get(key)
        return row if isinstance(row, HoldoutRow) else None

    def asked_everywhere(self, examples: Sequence[ChatExample]) -> list[ChatExample]:
        """Return the examples of the cells' sample that every cell answered."""
        sample = cell_sample(examples, self.spec)
        return [one for one in sample if all(self.row(cell, one) is not None for cell in Cell)]

    def outcomes(
        self, cell: Cell, rows: Sequence[ChatExample], asked_for: frozenset[str], corpus: Corpus
    ) -> Outcomes:
        return outcomes(
            self._of(cell),
            [self.looked.asked(one, with_passages=cell.has_passages) for one in rows],
            (),
            self.spec.task,
            asked_for=asked_for,
            corpus=corpus,
            passages=self.looked.texts() if cell.has_passages else {},
        )

    def scores(self, cell: Cell, rows: Sequence[ChatExample], figures: Mapping[str, float]) -> CellScores:
        """Return a cell's part of the scorecard."""
        said = [(self.row(cell, one), self.looked.found[one.example_id].change) for one in rows]
        telling = [(row.output, change) for row, change in said if row and change and change.old]
        stale = [change.is_stale(output) for output, change in telling]
        current = [change.is_current(output) for output, change in telling]
        return CellScores(
            cell=cell,
            serves=cell.is_tuned and cell.has_passages == self.looked.serves,
            figures=dict(figures),
            stale=sum(stale) / len(stale) if stale else None,
            current=sum(current) / len(current) if current else None,
        )

    def _of(self, cell: Cell) -> Measurement:
        return self.measured[Role.CANDIDATE if cell.is_tuned else Role.BASE]


def retrieval_scores(
    answers: Answers,
    examples: Sequence[ChatExample],
    judged: Outcomes,
    clusters: Clusters,
    *,
    criteria: Sequence[Criterion],
    corpus: Corpus,
    seed: int,
) -> RetrievalScores:
    """Return the quality of search, and the effect of passages on answers.

    ``examples``: the judged held-out rows, as in the dataset. ``judged``: the candidate's outcomes on them.
    ``clusters``: the clusters of the rows whose document is known.
    """
    looked, spec = answers.looked, answers.spec
    scores = RetrievalScores(
        index_id=looked.index_id,
        retrieval_sha256=looked.spec.sha256,
        with_passages=looked.serves,
        ranking=_ranking(judged, looked, clusters),
    )
    rows = answers.asked_everywhere(examples)
    if looked.reason is not None or not rows:
        return scores.model_copy(update={"reason": looked.reason or NO_ROWS})
    asked_for = frozenset(one.metric for one in criteria)
    cells = Cells(
        {cell: answers.outcomes(cell, rows, asked_for, corpus) for cell in Cell}, of_examples(rows), seed
    )
    found: dict[str, object] = {
        "rows": len(rows),
        "cells": tuple(answers.scores(cell, rows, cells.figures(cell)) for cell in Cell),
        "staleness": _staleness(looked, rows),
    }
    if (metric := deciding(criteria, cells.metrics())) is not None:
        better = cells.better(metric)
        figures = {cell: cells.figures(cell)[metric] for cell in Cell}
        found |= {
            "metric": metric,
            "differences": cells.differences(metric),
            "best": best_of(better),
            "advice": held_against(
                approach_of(spec),
                better,
                figures,
                metric=metric,
                trained_with_passages=answers.trained_with_passages,
            ),
        }
    return scores.model_copy(update=found)


def _ranking(judged: Outcomes, looked: LookedUp, clusters: Clusters) -> Ranking | None:
    found = {
        name: figure_interval(scores, clusters, test=metric_of(name).test, alpha=ALPHA)
        for name, scores in judged.by_metric.items()
        if metric_of(name).on == "retrieval"
    }
    if not found:
        return None
    return Ranking(
        questions=len(clusters),
        top_k=looked.spec.top_k,
        figures={name: one.figure for name, one in found.items()},
        low={name: one.low for name, one in found.items()},
        high={name: one.high for name, one in found.items()},
    )


def _staleness(looked: LookedUp, rows: Sequence[ChatExample]) -> Staleness | None:
    if looked.before_id is None:
        return None
    changes = [change for one in rows if (change := looked.found[one.example_id].change) is not None]
    return Staleness(
        before=looked.before_id,
        documents=looked.documents_changed,
        questions=len(changes),
        telling=sum(bool(change.old) for change in changes),
    )
