"""The pairs of answers that a trial asks people to compare, in the form of a review's items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from tunewheel_contracts.events.evaluation import AnswersCompared, ComparisonsRequested
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet, item_of_pair, pair_id
from tunewheel_contracts.formats.review_assignment import Pair, assigned_pairs
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.refusals import Refused

from tunewheel_console.sitting import ItemAnswer, Sitting


def set_of(asked: ComparisonsRequested, files: Sequence[LabelPrompts]) -> ReviewSet | None:
    """Return the pairs that were not erased; None: there are none."""
    found = (item_of_pair(prompt) for file in files for prompt in file.items)
    items = tuple(item for item in found if item is not None)
    if not items:
        return None
    return ReviewSet(
        review_id=asked.request_id,
        project=asked.project,
        run_id=asked.model_id,
        evaluation_id=None,
        candidate_id=asked.model_id,
        other_id=asked.against,
        items=items,
    )


def dealt_pairs(
    asked: ComparisonsRequested,
    found: ReviewSet,
    files: Sequence[LabelPrompts],
    *,
    reviewer: str,
    seed: bytes,
) -> tuple[Pair | None, ...]:
    """Return all pairs in the order of ``reviewer``; None for one that was erased, or is for the judge alone.
    Each file is dealt by itself, so that a later one moves no earlier pair and no side."""
    pairs: list[Pair | None] = []
    wanted = {pair_id(name) for name in asked.completion_ids[: asked.for_people]}
    for number, file in enumerate(files, 1):
        part = found.model_copy(update={"review_id": f"{found.review_id}.{number}"})
        ids = [pair_id(prompt.completion_id) for prompt in file.items]
        pairs += assigned_pairs(part, dealt=ids, share=1, reviewer=reviewer, seed=seed)
    return tuple(pair if pair is not None and pair.item.item_id in wanted else None for pair in pairs)


def comparison_of(
    sitting: Sitting, asked: ComparisonsRequested, number: int, chosen: ItemAnswer, caller: Caller
) -> AnswersCompared:
    """Return the event of a person's first answer to a pair.

    Raises:
        Refused: they or somebody else have compared it, or the answer has reasons or a correction.
    """
    pair = sitting.pair(number)
    if number not in sitting.missing:
        who = "you" if sitting.answer_to(number) is not None else "somebody else"
        reason = f"{number} was compared by {who}; the first answer counts"
        raise Refused(HTTPStatus.CONFLICT, "item", reason)
    if chosen.reasons or chosen.corrected is not None:
        reason = "and corrected are not taken while a trial runs; send the choice alone"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "reasons", reason)
    return AnswersCompared(
        project=asked.project,
        request_id=asked.request_id,
        model_id=asked.model_id,
        completion_id=pair.item.example_id,
        preference=pair.preference(chosen.choice),
        reviewer=sitting.reviewer,
        principal=caller.principal,
    )
