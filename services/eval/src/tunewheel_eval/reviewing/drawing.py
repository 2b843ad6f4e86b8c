"""Draws the held-out prompts that people compare: some of every label, some on which the models disagree, and
some on which either of the two did worst.

Prompts with two equal answers are not shown; they count as ties. Pure: the same seed gives the same set.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunewheel_contracts.formats.generations import Generation, joined
from tunewheel_contracts.formats.review import ReviewItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_outputs.labels import label_of, same_label
from tunewheel_outputs.rouge import rouge_l
from tunewheel_outputs.schema import SchemaCheck

DISAGREEMENT, WORST, ANY = "disagreement", "worst", "all"
_APART, _WORST = 2, 4
"""One in so many items of the set is a disagreement, and one in so many is among the worst rows. Where labels
differ, one answer is mostly right and the other wrong; where they do not, most pairs are ties."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The drawn prompts. ``sizes``: how many prompts each stratum has, drawn or not. ``equal``: how many
    prompts got two equal answers."""

    items: tuple[ReviewItem, ...]
    sizes: Mapping[str, int]
    equal: int


def draw(generations: Iterable[Generation], task: TaskSpec, *, size: int, seed: str) -> Drawn:
    """Return at most ``size`` prompts with the answers of the candidate and of the other: the champion, or
    the base where there was none.

    The strata are disjoint. First come the prompts with the worst answer of either model, up to a quarter of
    ``size``: all of that stratum is drawn. At least half of ``size`` are other prompts on which the two
    differ in label or validity. The rest is distributed over the labels by their frequency, with one prompt
    of each label first.
    """
    pairs = _shuffled(_pairs(generations), seed)
    rows = [row for row in pairs if differs(row)]
    # The worst of either: only the candidate's worst would be a selection against the candidate.
    # Ties of the rank are broken in another order than rows are drawn in. In the same order the rank would
    # take the first of all equally bad rows, and the first of the others would be better rows than the rest.
    ranked = _ranked(_shuffled(rows, f"{seed} ranked"), task)
    worst = {row.item_id for score, row in ranked[: size // _WORST] if score < 1.0}
    apart = {row.item_id for row in _disagreements(rows, task)} - worst
    others = _by_label([row for row in rows if row.item_id not in worst | apart], task)
    strata = {row.item_id: row.stratum for row in others} | dict.fromkeys(apart, DISAGREEMENT)
    strata |= dict.fromkeys(worst, WORST)
    placed = [row.model_copy(update={"stratum": strata[row.item_id]}) for row in rows]
    left = size - len(worst)
    differing = [row.item_id for row in placed if row.item_id in apart]
    differing = differing[: max(min(size // _APART, left), left - len(others))]
    chosen = worst.union(differing, [row.item_id for row in others[: left - len(differing)]])
    return Drawn(
        items=tuple(row for row in placed if row.item_id in chosen),
        sizes=dict(sorted(Counter(strata.values()).items())),
        equal=len(pairs) - len(rows),
    )


def _ranked(rows: Sequence[ReviewItem], task: TaskSpec) -> list[tuple[float, ReviewItem]]:
    """Return the rows from the worst to the best answer, with its score: the lower one of the two answers."""
    own = _scores(rows, task, [row.candidate for row in rows])
    other = _scores(rows, task, [row.other for row in rows])
    scored = zip(map(min, own, other), rows, strict=True)
    return sorted(scored, key=lambda one: one[0])


def _pairs(generations: Iterable[Generation]) -> list[ReviewItem]:
    found: dict[str, ReviewItem] = {}
    for row in joined(generations):
        if (item := pair_of(row)) is not None:
            found.setdefault(item.item_id, item)
    return list(found.values())


def pair_of(row: Generation) -> ReviewItem | None:
    """Return the answers of the candidate and of the other (the champion, or the base) to one prompt; None:
    one of them is missing."""
    candidate = row.answers.get(Role.CANDIDATE)
    other = row.answers.get(Role.CHAMPION) or row.answers.get(Role.BASE)
    return _item(row, candidate.output, other.output) if candidate is not None and other is not None else None


def differs(pair: ReviewItem) -> bool:
    return pair.candidate.strip() != pair.other.strip()


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
        return list(rows)

    def told(answer: str) -> tuple[object, object]:
        return task.label_field and label_of(answer, task), schema and schema.fits(answer)

    return [row for row in rows if told(row.candidate) != told(row.other)]


def _scores(rows: Sequence[ReviewItem], task: TaskSpec, answers: Sequence[str]) -> list[float]:
    """Return how similar each answer is to the expert's, by label and then by words; 1: equal."""
    near = [rouge_l(answer, row.expected) for answer, row in zip(answers, rows, strict=True)]
    if task.label_field is None:
        return near
    field = task.label_field
    right = [same_label(answer, row.expected, field) for answer, row in zip(answers, rows, strict=True)]
    return [(hit + score) / 2 for hit, score in zip(right, near, strict=True)]


def _by_label(rows: Sequence[ReviewItem], task: TaskSpec) -> list[ReviewItem]:
    """Order ``rows`` so that every prefix of the list has about the same distribution of labels as all
    rows."""
    labelled: dict[str, list[ReviewItem]] = defaultdict(list)
    for row in rows:
        labelled[label_of(row.expected, task) or ANY].append(row)
    placed: list[tuple[float, str, ReviewItem]] = []
    for label, members in labelled.items():
        for n, row in enumerate(members):
            placed.append((n / len(members), label, row.model_copy(update={"stratum": label})))
    return [row for _, _, row in sorted(placed, key=lambda one: one[:2])]
