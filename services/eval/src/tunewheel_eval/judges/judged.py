"""The metric ``judged``: the judge's comparison of all held-out rows, corrected by the reviewed pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.judge import JUDGED, JudgeReport, JudgeSpec
from tunewheel_contracts.formats.review import ReviewItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_outputs.criteria import level_of
from tunewheel_runtime.store import ObjectStore
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Clusters, Interval, Scores

from tunewheel_eval.judges.asking import LONGEST_SECONDS, Check, Judges
from tunewheel_eval.judges.error import TIE, Floats, Reviewed, corrected
from tunewheel_eval.reviewing.cases import FOLDER, Cases, ReviewCase
from tunewheel_eval.reviewing.drawing import differs, pair_of
from tunewheel_eval.reviewing.preference import item_scores

MOST_REVIEWED = 300
MOST_UNREAD = 0.5
"""From above this share of unread replies the judge says nothing."""


class Told(NamedTuple):
    """A pair that people compared."""

    pair: ReviewItem
    value: float
    weight: float


@dataclass(frozen=True)
class JudgedMetric(Measured):
    """The metric. Its interval is that of the figure without the judge's error."""

    differing: np.ndarray[tuple[int], np.dtype[np.bool_]] = field(
        default_factory=lambda: np.zeros(0, np.bool_)
    )
    reviewed: Sequence[Reviewed] = ()

    def alpha(self, criterion: Criterion | None) -> float:
        return level_of(criterion, on_holdout=True, looks=self.looks)

    def figure(self, *, alpha: float) -> Interval:
        values = self.scores[Role.CANDIDATE].values
        return corrected(values, self.differing, self.clusters, self.reviewed, alpha=alpha)


class Judgement(NamedTuple):
    report: JudgeReport | None
    metrics: Mapping[str, Measured]
    not_yet: Mapping[str, str]


async def judgement(
    judges: Judges,
    people: ReviewedPairs,
    spec: JudgeSpec,
    project: str,
    rows: Sequence[Generation],
    clusters: Clusters,
    *,
    looks: int = LOOKS,
    check: Check,
) -> Judgement:
    """Compare all ``rows`` and the project's reviewed pairs by the judge.

    Raises: see ``Judges.compare``.
    """
    pairs = [pair if (pair := pair_of(row)) is not None and differs(pair) else None for row in rows]
    differing = np.array([pair is not None for pair in pairs], dtype=np.bool_)
    told = await people.of(project)
    asked = [*(pair for pair in pairs if pair is not None), *(one.pair for one in told)]
    compared = await judges.compare(spec, project, asked, check=check, longest_seconds=LONGEST_SECONDS)
    said = [TIE if pair is None else compared.values[pair.item_id] for pair in pairs]
    unread = sum(value is None for value in said)
    values: Floats = np.array([TIE if value is None else value for value in said], dtype=np.float64)
    reviewed = [
        Reviewed(
            one.value, TIE if (value := compared.values[one.pair.item_id]) is None else value, one.weight
        )
        for one in told
    ]
    report = JudgeReport(
        judge=spec.sha256,
        model=spec.model,
        against=(Role.CHAMPION if any(Role.CHAMPION in row.answers for row in rows) else Role.BASE).value,
        rows=len(rows),
        equal=len(rows) - int(differing.sum()),
        unread=unread,
        preference=float(values.mean()),
        reviewed=len(reviewed),
        agreement=float(np.mean([one.person == one.judge for one in reviewed])) if reviewed else None,
        changed=compared.changed,
    )
    if (why := _says_nothing(spec, report)) is not None:
        return Judgement(report, {}, {JUDGED: why})
    metric = JudgedMetric(
        name=JUDGED,
        test="mean",
        lower_is_better=False,
        lowest=0.0,
        highest=1.0,
        on="judge",
        scores={Role.CANDIDATE: Scores(values)},
        clusters=clusters,
        looks=looks,
        differing=differing,
        reviewed=reviewed,
    )
    return Judgement(report, {JUDGED: metric}, {})


def _says_nothing(spec: JudgeSpec, report: JudgeReport) -> str | None:
    asked = report.rows - report.equal
    if report.unread > MOST_UNREAD * asked:
        return f"the judge's replies about {report.unread} of {asked} pairs are not in the form asked for"
    if report.reviewed < spec.min_reviewed:
        return (
            f"the judge's error is not known: people compared {report.reviewed} pairs of the project's "
            f"answers, and evaluation.judge.min_reviewed is {spec.min_reviewed}; answer a review of this "
            "project (`tunewheel review list`; with review.override people are asked even where a criterion "
            "is undecided), then have the run judged again"
        )
    return None


class ReviewedPairs:
    """Reads the pairs that people compared. A case never changes, so each is read once: the reviews of other
    projects cost a listing. Sets and answers are read each time, since an erasure changes them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._cases = store, Cases(store)
        self._weights: dict[str, dict[str, dict[str, float]]] = {}
        """By project and review: ``_weights_in``."""
        self._read = set[str]()

    async def of(self, project: str) -> list[Told]:
        """Return the pairs of the project's submitted reviews, without erased ones: at most
        ``MOST_REVIEWED``, by their hash."""
        for review_id in await self._store.folders(FOLDER):
            if review_id in self._read or (case := await self._cases.read(review_id)) is None:
                continue
            self._read.add(review_id)
            self._weights.setdefault(case.requested.project, {})[review_id] = _weights_in(case)
        found: dict[str, Told] = {}
        for review_id, weights in self._weights.get(project, {}).items():
            submitted = await self._cases.submissions(review_id)
            drawn = await self._cases.read_set(review_id) if submitted else None
            values = item_scores(answer for one in submitted for answer in one.answers)
            for pair in drawn.items if drawn is not None else ():
                if pair.item_id in values:
                    found[pair.item_id] = Told(pair, values[pair.item_id], weights.get(pair.item_id, 1.0))
        return [found[name] for name in sorted(found)[:MOST_REVIEWED]]

    async def sha256(self, spec: ProjectSpec, criteria: Sequence[Criterion]) -> str | None:
        """Return a hash of the pairs if one of ``criteria`` depends on them; None: none does, or there are no
        pairs. People who compared more give another evaluation."""
        if spec.evaluation.judge is None or all(one.metric != JUDGED for one in criteria):
            return None
        told = await self.of(spec.project)
        return content_sha256([[one.pair.item_id, one.value, one.weight] for one in told]) if told else None


def _weights_in(case: ReviewCase) -> dict[str, float]:
    """Return how many of all prompts each drawn item stands for, relative to the mean."""
    each = {name: size / max(case.strata.count(name), 1) for name, size in case.sizes.items()}
    weights = {item: each.get(name, 1.0) for item, name in zip(case.drawn, case.strata, strict=False)}
    mean = sum(weights.values()) / len(weights) if weights else 1.0
    return {item: weight / mean for item, weight in weights.items()}
