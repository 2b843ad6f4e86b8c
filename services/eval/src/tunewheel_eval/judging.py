"""Turns measurements into a scorecard: metrics, comparisons, and the count of looks at the holdout."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.evaluation_plan import Precision
from tunewheel_contracts.formats.generations import generations_path, read_generations
from tunewheel_contracts.formats.judge import JUDGED
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores
from tunewheel_contracts.formats.scorecard import Rival, Role, Scorecard
from tunewheel_contracts.principal import Trust
from tunewheel_outputs.metric import Corpus
from tunewheel_outputs.metric import Row as Asked
from tunewheel_outputs.metrics import metrics_for
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_terms
from tunewheel_eval.clusters import of_examples, of_items
from tunewheel_eval.contest import Contest
from tunewheel_eval.errors import PassagesAway, UnfitCandidate
from tunewheel_eval.generations import generation_lines
from tunewheel_eval.judges.asking import Check, Judges
from tunewheel_eval.judges.judged import Judgement, ReviewedPairs, judgement
from tunewheel_eval.looks import SPENT, Fresh, Looks
from tunewheel_eval.measurement import HoldoutRow, Measurement, RepeatRow, SkippedRow, SkipReason, example_key
from tunewheel_eval.metrics import Outcomes, outcomes, row_scorers
from tunewheel_eval.passages.scores import Answers, retrieval_scores
from tunewheel_eval.repeats import other_mode_key, repeat_spreads
from tunewheel_eval.rivals import BEST_PROMPT, CONSTRAINED, UNCONSTRAINED, linear_on, with_prompt
from tunewheel_eval.scorecards import Clustered, build_scorecard, seed_of, worn_out
from tunewheel_eval.slices import slices_by
from tunewheel_eval.unseen import TRAINED_ON

log = structlog.get_logger(__name__)
LARGEST_SHARE = 0.05
"""The share of the held-out rows, and of the general items, that may be left out. One row may always be."""
_GENERAL = "general_"
"""The prefix of the reason for a general item that is left out."""


@dataclass(frozen=True)
class Judge:
    """Judges complete measurements. ``precision``: that of the computation, if a plan does not name it."""

    store: ObjectStore
    looks: Looks
    precision: Precision
    judges: Judges
    people: ReviewedPairs

    async def scorecard(
        self,
        contest: Contest,
        measured: Mapping[Role, Measurement],
        seconds: Mapping[str, float],
        *,
        check: Check = lambda: None,
    ) -> Scorecard:
        """Return the scorecard, and store the contestants' outputs. ``check`` raises if the evaluation must
        stop.

        Raises:
            UnfitCandidate: too few rows are left to judge by.
            PassagesAway: the judge of the spec does not answer.
            InvalidEvent: a criterion needs training rows that cannot be read.
        """
        plan = contest.plan
        keep = partial(
            keep_measured,
            measured,
            items=contest.items,
            max_output_tokens=contest.manifest.spec.task.max_output_tokens,
        )
        keep(contest.examples)  # raises UnfitCandidate before a look is counted
        fresh = await self._look(contest)
        if not fresh.examples:
            return worn_out(plan)
        kept = keep(contest.as_served(fresh.examples))
        rows = Judged(contest, measured, kept, _plain(fresh.examples, kept), await self._corpus(contest))
        judged = {role: await asyncio.to_thread(rows.outcomes, role) for role in measured}
        lines = await asyncio.to_thread(rows.written, judged)
        generations = await self.store.put(generations_path(plan.scorecard_id, lines), lines)
        clustered = await asyncio.to_thread(rows.clustered, fresh)
        compared = await self._judgement(contest, lines, clustered, check)
        return await asyncio.to_thread(
            build_scorecard,
            plan,
            contest.manifest.spec,
            judged,
            rows=clustered,
            generations=generations,
            seconds=seconds,
            precision=plan.precision or self.precision,
            slices=await asyncio.to_thread(
                slices_by,
                contest.plan.criteria or contest.manifest.spec.criteria,
                judged,
                rows.plain,
                clustered.holdout,
                seed=seed_of(contest.plan),
            ),
            retrieval=await asyncio.to_thread(rows.retrieval, judged[Role.CANDIDATE], clustered),
            not_yet={**contest.not_yet, **compared.not_yet},
            compared=compared.metrics,
            judge_report=compared.report,
            rivals=await self._rivals(rows),
            fingerprint=measured[Role.CANDIDATE].fingerprint,
        )

    async def _judgement(self, contest: Contest, lines: bytes, rows: Clustered, check: Check) -> Judgement:
        spec = contest.manifest.spec.evaluation.judge
        if spec is None:
            return Judgement(None, {}, {})
        try:
            return await judgement(
                self.judges,
                self.people,
                spec,
                contest.plan.project,
                read_generations(lines),
                rows.holdout,
                looks=contest.manifest.spec.evaluation.looks,
                check=check,
            )
        except PassagesAway as error:
            if JUDGED in contest.asked_for:
                raise
            log.warning("judge_away", project=contest.plan.project, reason=str(error))
            return Judgement(None, {}, {JUDGED: str(error)})

    async def _rivals(self, rows: Judged) -> tuple[Rival, ...]:
        """Return what other answers to the same questions reach."""
        found = await asyncio.to_thread(rows.prompted)
        linear = await linear_on(self.store, rows.contest.manifest.train, rows.plain)
        other = await asyncio.to_thread(rows.other_mode)
        return tuple(one for one in (linear, found, other) if one is not None)

    async def _look(self, contest: Contest) -> Fresh:
        """Return the rows to judge by. Count a look unless the scorecard only informs: then no model is
        chosen by it."""
        plan = contest.plan
        if plan.informs is not None:
            return contest.fresh
        return await self.looks.take(
            contest.fresh,
            project=plan.project,
            scorecard_id=plan.scorecard_id,
            of=contest.manifest.spec.evaluation.looks,
        )

    async def _corpus(self, contest: Contest) -> Corpus:
        metrics = metrics_for(contest.manifest.spec.task, contest.asked_for)
        if not any(one.needs_corpus for one in metrics.values()):
            return frozenset()
        return await read_terms(self.store, contest.manifest.train)


@dataclass(frozen=True)
class Judged:
    """The rows that are judged: as they were prompted (``kept``), and as in the dataset (``plain``)."""

    contest: Contest
    measured: Mapping[Role, Measurement]
    kept: Kept
    plain: Sequence[ChatExample]
    corpus: Corpus

    def outcomes(self, role: Role) -> Outcomes:
        """Judge one contestant by every metric."""
        return outcomes(
            self.measured[role],
            self.kept.examples,
            self.kept.items,
            self.contest.manifest.spec.task,
            tasks=self.contest.tasks,
            asked_for=self.contest.asked_for,
            corpus=self.corpus,
            passages=self._passages(),
            ranked=self._ranked() if role is Role.CANDIDATE else (),
        )

    def prompted(self) -> Rival | None:
        """Return the figures of the base with the project's best prompt; None: the project names none, or
        its prompts are too long."""
        base, spec = self.measured.get(Role.BASE), self.contest.manifest.spec
        asked = with_prompt(self.kept.examples, spec.evaluation.best_prompt)
        if base is None or not asked:
            return None
        answered = [one for one in asked if isinstance(base.rows.get(self.contest.key_of(one)), HoldoutRow)]
        if not answered:
            return None
        found = outcomes(base, answered, (), spec.task, passages=self._passages())
        kept = {name: value for name, value in found.figures().items() if name in found.by_metric}
        return Rival(name=BEST_PROMPT, metrics=kept, rows=len(answered))

    def other_mode(self) -> Rival | None:
        """Return the figures of the candidate in the other mode, over the rows that it was asked; None: it
        was not asked."""
        contest, rows = self.contest, self.measured[Role.CANDIDATE].rows
        pairs = [
            (one, first.model_copy(update={"output": again.output, "complete": again.complete}))
            for one in self.kept.examples
            if isinstance(first := rows.get(key := contest.key_of(one)), HoldoutRow)
            and isinstance(again := rows.get(other_mode_key(key)), RepeatRow)
            and other_mode_key(key) in contest.other_mode
        ]
        if not pairs:
            return None
        is_free = contest.constraint_of(Role.CANDIDATE) is not None
        scorers = row_scorers(contest.manifest.spec.task, passages=self._passages())
        scored = {name: [score(*pair) for pair in pairs] for name, score in scorers.items()}
        kept = {name: [value for value in values if value is not None] for name, values in scored.items()}
        return Rival(
            name=UNCONSTRAINED if is_free else CONSTRAINED,
            metrics={name: sum(values) / len(values) for name, values in kept.items() if values},
            rows=len(pairs),
        )

    def written(self, judged: Mapping[Role, Outcomes]) -> bytes:
        """Return the outputs of all contestants as JSON Lines, with what the metrics say about them."""
        looked = self.contest.looked
        found = looked.found if looked is not None and looked.serves else {}
        return generation_lines(
            self.measured,
            self.plain,
            self.kept.examples,
            judged,
            self.contest.manifest.spec.task,
            passages={name: tuple(hit.passage.passage_id for hit in one.hits) for name, one in found.items()},
        )

    def clustered(self, fresh: Fresh) -> Clustered:
        """Return the clusters of rows that count as one observation, with looks, repeats and left-out
        rows."""
        contest, spec = self.contest, self.contest.manifest.spec
        holdout = of_examples(self.plain)
        spreads = repeat_spreads(
            self.measured[Role.CANDIDATE],
            {contest.key_of(one): one for one in self.kept.examples},
            row_scorers(
                spec.task, asked_for=contest.asked_for, corpus=self.corpus, passages=self._passages()
            ),
            spec.evaluation,
        )
        return Clustered(
            holdout,
            of_items(self.kept.items),
            labels=tuple(one.label for one in self.plain),
            requests=tuple(one.label_request for one in self.plain),
            looks=fresh.looks,
            repeat_spreads=spreads,
            left_out=self.kept.left_out
            | ({SPENT: fresh.spent} if fresh.spent else {})
            | ({TRAINED_ON: contest.trained_on} if contest.trained_on else {}),
            unvalidated=sum(one.trust != Trust.EXPERT for one in self.kept.examples),
            tasks={one.rows: one.clusters() for one in contest.tasks}
            | {"retrieval": holdout[self._labelled()]},
        )

    def retrieval(self, candidate: Outcomes, rows: Clustered) -> RetrievalScores | None:
        """Return the scores of retrieval; None: the project retrieves nothing."""
        contest = self.contest
        if contest.looked is None:
            return None
        used = contest.manifest.passages
        return retrieval_scores(
            Answers(
                contest.manifest.spec,
                contest.looked,
                self.measured,
                trained_with_passages=used is not None and used.gold + used.distractors_only > 0,
            ),
            self.plain,
            candidate,
            rows.tasks["retrieval"],
            criteria=contest.plan.criteria or contest.manifest.spec.criteria,
            corpus=self.corpus,
            seed=seed_of(contest.plan),
        )

    def _passages(self) -> dict[str, tuple[str, ...]]:
        looked = self.contest.looked
        return looked.texts() if looked is not None and looked.serves else {}

    def _labelled(self) -> list[int]:
        looked = self.contest.looked
        return looked.labelled(self.plain) if looked is not None else []

    def _ranked(self) -> list[Asked]:
        looked = self.contest.looked
        if looked is None:
            return []
        found = [looked.found[self.plain[row].example_id] for row in self._labelled()]
        return [Asked(output="", rank=one.rank, top_k=looked.spec.top_k) for one in found]


def _plain(examples: Sequence[ChatExample], kept: Kept) -> tuple[ChatExample, ...]:
    """Return the kept ``examples`` as in the dataset, in the order of ``kept``."""
    by_id = {one.example_id: one for one in examples}
    return tuple(by_id[one.example_id] for one in kept.examples)


@dataclass(frozen=True)
class Kept:
    """The rows that every contestant was measured on."""

    examples: tuple[ChatExample, ...]
    items: tuple[RegressionItem, ...]
    left_out: dict[str, int]
    """The number of left-out rows, by reason."""


def keep_measured(
    measured: Mapping[Role, Measurement],
    examples: Sequence[ChatExample],
    items: Sequence[RegressionItem],
    *,
    max_output_tokens: int,
) -> Kept:
    """Return the rows that no contestant skipped. Raises UnfitCandidate: so many rows were skipped that the
    rest is too small to judge by."""
    skipped: dict[str, SkippedRow] = {
        key: row
        for measurement in measured.values()
        for key, row in measurement.rows.items()
        if isinstance(row, SkippedRow)
    }
    keys = [example_key(one, max_output_tokens=max_output_tokens) for one in examples]
    of_examples = [skipped[key] for key in keys if key in skipped]
    of_items = [skipped[item.key] for item in items if item.key in skipped]
    _check(of_examples, len(examples), "held-out rows")
    _check(of_items, len(items), "general items")
    reasons = [row.reason.value for row in of_examples]
    reasons += [f"{_GENERAL}{row.reason.value}" for row in of_items]
    return Kept(
        tuple(one for one, key in zip(examples, keys, strict=True) if key not in skipped),
        tuple(item for item in items if item.key not in skipped),
        dict(sorted(Counter(reasons).items())),
    )


def _check(skipped: Sequence[SkippedRow], total: int, what: str) -> None:
    if len(skipped) <= max(1, int(total * LARGEST_SHARE)) and (len(skipped) < total or not total):
        return
    first = skipped[0]
    long = first.reason is SkipReason.TOO_LONG
    raise UnfitCandidate(
        field="spec.dataset.max_tokens" if long else "dataset.holdout",
        reason=f"{len(skipped)} of {total} {what} cannot be measured, such as {first.detail}; "
        + (
            "lower spec.dataset.max_tokens, spec.task.max_output_tokens or, where prompts have passages, "
            "spec.retrieval.budget_tokens"
            if long
            else "rebuild the dataset from answers that say something"
        ),
    )
