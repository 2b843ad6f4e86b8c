"""Lets a judge compare the pairs of answers that a trial asks about. The monitor corrects what the judge says
by what people say of the same trial."""

from __future__ import annotations

import structlog
from tunewheel_contracts.events.evaluation import AnswersCompared, ComparisonsRequested
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewItem, item_of_pair
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.errors import PassagesAway
from tunewheel_eval.judges.asking import Check, Judges

log = structlog.get_logger(__name__)
PREFERENCES = {1.0: "better", 0.5: "same", 0.0: "worse"}


async def compared(
    judges: Judges, store: ObjectStore, asked: ComparisonsRequested, *, check: Check
) -> list[AnswersCompared]:
    """Return what the judge of ``asked`` says of its pairs; nothing if it names no judge, or
    while the judge is away.

    Then people decide alone, until the next revision of the request asks about all pairs again. Pairs without
    a readable reply, and erased ones, are left out.

    Raises:
        InvalidEvent: the host of the judge is not allowed here.
        TransientError: the store cannot be reached.
    """
    if asked.judge is None:
        return []
    pairs: list[ReviewItem] = []
    for path in asked.pairs:
        if (data := await store.read(path)) is not None:
            items = LabelPrompts.model_validate_json(data).items
            pairs += [item for prompt in items if (item := item_of_pair(prompt)) is not None]
    try:
        told = await judges.compare(asked.judge, asked.project, pairs, check=check)
    except PassagesAway as error:
        log.warning("judge_away", project=asked.project, request_id=asked.request_id, reason=str(error))
        return []
    return [
        AnswersCompared.model_validate(
            {
                "project": asked.project,
                "request_id": asked.request_id,
                "model_id": asked.model_id,
                "completion_id": pair.example_id,
                "preference": PREFERENCES[value],
                "judge": asked.judge.sha256,
            }
        )
        for pair in pairs
        if (value := told.values[pair.item_id]) is not None
    ]
