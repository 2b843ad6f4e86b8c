"""How a candidate is judged: by measures, and by people."""

from __future__ import annotations

import operator
from typing import Annotated, Self

from pydantic import Field, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Fraction, PositiveInt, Strict, Text
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.criteria import LOOKS
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.lm_eval import LmEvalTask

REPEATS, MOST_REPEATS, REPEAT_ROWS = 3, 20, 20
CELL_ROWS = 40
OTHER_MODE_ROWS = 40


class EvaluationSpec(Strict):
    """How a candidate is judged, beside the criteria."""

    decoding: Decoding = Decoding()
    """How answers are written while they are judged, and then where they are served."""
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest difference that matters, as a fraction: a holdout that cannot tell so much decides nothing."""
    looks: Annotated[int, Field(gt=0, le=100, exclude_if=lambda count: count == LOOKS)] = LOOKS
    """Most verdicts that a held-out row serves. A verdict on held-out rows uses ``significance`` divided by
    this number, and after each verdict the next version replaces that part of the rows by new ones, the most
    used first. Fewer looks decide more by the same number of rows, and use up more rows."""
    repeats: Annotated[int, Field(ge=0, le=MOST_REPEATS, exclude_if=lambda count: count == REPEATS)] = REPEATS
    """Where ``decoding`` draws tokens: how often some held-out prompts are answered again, by other seeds.
    The scorecard shows how far two measurements lie apart, and no verdict is finer. 0: no repeats."""
    repeat_rows: Annotated[int, Field(gt=0, le=500, exclude_if=lambda count: count == REPEAT_ROWS)] = (
        REPEAT_ROWS
    )
    """How many prompts are answered again."""
    cells: Annotated[int, Field(ge=0, le=2000, exclude_if=lambda count: count == CELL_ROWS)] = CELL_ROWS
    """Where there is `retrieval`: how many held-out prompts base and candidate are asked a second time, with
    passages where `retrieval.default` is off, without where it is on. 0: they are not compared."""
    other_mode: Annotated[int, Field(ge=0, le=2000, exclude_if=lambda count: count == OTHER_MODE_ROWS)] = (
        OTHER_MODE_ROWS
    )
    """Where the task has an `output_schema`: how many held-out prompts the candidate is asked a second time,
    without the constraint where answers are constrained by the schema, with it where they are not. The
    scorecard shows the figures; they count in no criterion. 0: not measured."""
    best_prompt: Annotated[Text | None, Field(exclude_if=operator.not_)] = None
    """The best system prompt that you know for the base without tuning, such as one with rules and examples:
    the base answers the held-out prompts with it as well, and the scorecard says how far it gets. It counts
    in no criterion. Null: not measured."""
    lm_eval: Annotated[tuple[LmEvalTask, ...], Field(max_length=20, exclude_if=operator.not_)] = ()
    """Tasks of lm-evaluation-harness that every contestant is asked as well. Their questions are kept out of
    what is trained on, as ``dataset.benchmarks`` are."""
    stop_early: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """True: where answers are JSON objects, an answer of the base ends early. Without the constraint of the
    schema it ends as soon as it does not begin with an object; the base's figures that read such texts, such
    as ``rouge_l``, are computed on what was written. With the constraint it ends after its label, if that is
    the schema's first property and no criterion compares another figure of answers with the base's; such
    figures are left out for the base. The verdict stays the same, and the scorecard says how many answers
    ended early. Nothing is cut where a criterion reads texts, or people review answers."""
    judge: Annotated[JudgeSpec | None, Field(exclude_if=operator.not_)] = None
    """A model that compares the candidate's answers with the champion's, for the metric ``judged``."""

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        names = [one.task for one in self.lm_eval]
        for name in names:
            if names.count(name) > 1:
                raise inconsistent("lm_eval", f"name {name} twice; criteria could not tell them apart")
        return self


class ReviewSpec(Strict):
    required: bool = False
    """True: an automated pass waits for people; a rejection is final for that version."""
    sample: PositiveInt = 20
    """How many held-out prompts the reviewers compare: of every label, of those that contestants disagree on,
    and of those with the worst answer of either. Prompts with two equal answers are not shown, and count as
    ties. 50 to 100 show what 20 do not."""
    reviewers: Annotated[int, Field(gt=0, le=20, exclude_if=lambda count: count == 1)] = 1
    """How many people must submit before the review counts."""
    per_item: Annotated[int, Field(gt=0, le=20, exclude_if=lambda count: count == 1)] = 1
    """How many of them judge each prompt. More than one shows how far they agree."""
    min_preference: Annotated[Fraction | None, Field(exclude_if=lambda share: share is None)] = None
    """Approvals count only where the candidate is preferred on this share of prompts at least, an equal one
    counting half, by the lower end of the interval. Null: unless the whole interval lies below 0.5; to
    override a criterion, where the whole interval lies above 0.5."""
    override: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """True: reviewers are asked also where a criterion is missed; their approval, with a comment, outranks
    it."""
    webhook: Annotated[str | None, Field(max_length=512, exclude_if=operator.not_)] = None
    """URL that is told of every review that waits, by a signed CloudEvent. Eval's operator lists the hosts
    that it may name."""

    @model_validator(mode="after")
    def _enough_reviewers(self) -> Self:
        if self.per_item > self.reviewers:
            raise inconsistent(
                "per_item", f"{self.per_item} exceeds reviewers, which is {self.reviewers}; raise reviewers"
            )
        return self
