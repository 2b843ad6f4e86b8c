"""Draws the held-out prompts that people compare: some of every label, some on which the models disagree, and
the candidate's worst ones.

Pure: the same seed gives the same set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tunewheel_contracts.formats.review import ReviewItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_outputs.labels import label_of, same_label
from tunewheel_outputs.rouge import rouge_l
from tunewheel_outputs.schema import SchemaCheck

from tunewheel_eval.generations import Generation, joined

DISAGREEMENT, WORST, ANY = "disagreement", "worst", "all"
_EACH = 4
"""One in so many items of the set is a disagreement, and one in so many is among the worst rows."""


def draw(
    generations: Iterable[Generation], task: TaskSpec, *, size: int, seed: str
) -> tuple[ReviewItem, ...]:
    """Return at most ``size`` prompts with the answers of the candidate and of the other: the champion, or
    the base where there was none.

    Up to a quarter are prompts on which the two differ in label or validity. Up to a quarter are prompts with
    the candidate's worst answers. The rest is distributed over the labels by their frequency, with one prompt
    of each label first.
    """
    rows = _shuffled(_pairs(generations), seed)
    if not rows:
        return ()
    apart, scores = _disagreements(rows, task), _scores(rows, task)
    worst = [row for score, row in sorted(zip(scores, rows, strict=True), key=_score) if score < 1.0]
    chosen: dict[str, ReviewItem] = {}
    for name, found in ((DISAGREEMENT, apart), (WORST, worst)):
        for row in [row for row in found if row.item_id not in chosen][: size // _EACH]:
            chosen[row.item_id] = row.model_copy(update={"stratum": name})
    rest = [row for row in rows if row.item_id not in chosen]
    for row in _by_label(rest, task)[: max(0, size - len(chosen))]:
        chosen[row.item_id] = row
    return tuple(chosen[row.item_id] for row in rows if row.item_id in chosen)


def _score(scored: tuple[float, ReviewItem]) -> float:
    return scored[0]


def _pairs(generations: Iterable[Generation]) -> list[ReviewItem]:
    found: dict[str, ReviewItem] = {}
    for row in joined(generations):
        candidate = row.answers.get(Role.CANDIDATE)
        other = row.answers.get(Role.CHAMPION) or row.answers.get(Role.BASE)
        if candidate is not None and other is not None:
            item = _item(row, candidate.output, other.output)
            found.setdefault(item.item_id, item)
    return list(found.values())


def _item(row: Generation, candidate: str, other: str) -> ReviewItem:
    prompt = [[message.role, message.content] for message in row.prompt]
    cause = {"prompt": prompt, "candidate": candidate, "other": other}
    return ReviewItem(
        item_id=content_id("item", cause),
        example_id=row.example_id,
        messages=row.prompt,
        expected=row.expected,
        candidate=candidate,
        other=other,
        stratum=ANY,
    )


def _shuffled(rows: list[ReviewItem], seed: str) -> list[ReviewItem]:
    return sorted(rows, key=lambda row: content_sha256([seed, row.item_id]))


def _disagreements(rows: Sequence[ReviewItem], task: TaskSpec) -> list[ReviewItem]:
    schema = SchemaCheck(task.output_schema) if task.output_schema is not None else None
    if task.label_field is None and schema is None:
        return [row for row in rows if row.candidate != row.other]
    return [row for row in rows if _labels_differ(row, task) or _validity_differs(row, schema)]


def _labels_differ(row: ReviewItem, task: TaskSpec) -> bool:
    return task.label_field is not None and label_of(row.candidate, task) != label_of(row.other, task)


def _validity_differs(row: ReviewItem, schema: SchemaCheck | None) -> bool:
    return schema is not None and schema.fits(row.candidate) != schema.fits(row.other)


def _scores(rows: Sequence[ReviewItem], task: TaskSpec) -> list[float]:
    """Return how similar each of the candidate's answers is to the expert's, by label and then by words; 1:
    equal."""
    near = [rouge_l(row.candidate, row.expected) for row in rows]
    if task.label_field is None:
        return near
    field = task.label_field
    right = [same_label(row.candidate, row.expected, field) for row in rows]
    return [(hit + score) / 2 for hit, score in zip(right, near, strict=True)]


def _by_label(rows: Sequence[ReviewItem], task: TaskSpec) -> list[ReviewItem]:
    """Order ``rows`` so that every prefix of the list has about the same distribution of labels as all
    rows."""
    labelled: dict[str, list[ReviewItem]] = defaultdict(list)
    for row in rows:
        labelled[_stratum(row, task)].append(row)
    placed: list[tuple[float, str, ReviewItem]] = []
    for label, members in labelled.items():
        for n, row in enumerate(members):
            placed.append((n / len(members), label, row.model_copy(update={"stratum": label})))
    return [row for _, _, row in sorted(placed, key=lambda one: one[:2])]


def _stratum(row: ReviewItem, task: TaskSpec) -> str:
    return label_of(row.expected, task) or ANY
