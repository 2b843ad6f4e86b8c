"""How sure a model is of its answers, how often it is then right, and which answers are not sent for it."""

from __future__ import annotations

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import (
    FiniteFloat,
    Fraction,
    Frozen,
    NonNegative,
    PositiveInt,
    SourceId,
    Strict,
    Text,
)
from tunewheel_contracts.reading import Reading, if_unknown

LogProbability = Annotated[FiniteFloat, Field(le=0)]
"""Natural logarithm of a probability by the model alone: before temperature, penalties and constraints."""


class Confidence(Frozen):
    """The log-probabilities of an answer's tokens in figures, without texts."""

    tokens: PositiveInt
    """The number of tokens, without the end token."""
    total: LogProbability
    """Of the whole answer: the sum over its tokens."""
    least: LogProbability
    """Of the least probable token."""
    label: Annotated[LogProbability | None, Field(exclude_if=lambda found: found is None)] = None
    """Of the tokens of the answer's label. Null: the task has no labels, or the answer has none."""


class Calibration(Frozen):
    """How often a label is right of which the model's own probability is p: with the probability
    1 / (1 + exp(-intercept - slope * logit(p))) (Platt, "Probabilistic outputs for support vector machines",
    1999). Fitted to held-out rows."""

    rows: PositiveInt
    intercept: FiniteFloat
    slope: FiniteFloat
    covariance: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    """Of the estimates: the intercept's variance, their covariance, the slope's variance."""
    spread: NonNegative
    """By how much the accuracy differs between labels of which the model is equally sure: a standard
    deviation."""


class FallbackSpec(Strict):
    """A model behind an OpenAI-compatible endpoint that answers what the project's own model is not sure
    of. It gets the conversation as the client sent it, with the system prompt and the passages."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=512)]
    """URL of the API, up to and including ``/v1``, without credentials. Its host must be listed by the
    gateway's operator in ``TUNEWHEEL_SPEC_HOSTS``."""
    model: SourceId
    api_key_env: Annotated[str, StringConstraints(pattern=r"^TUNEWHEEL_FALLBACK_[A-Z0-9_]{1,64}$")] | None = (
        None
    )
    """The variable of the gateway's environment that holds the API key. The prefix keeps a spec from naming
    any other secret. ``TUNEWHEEL_SPEC_HOSTS`` lists the keys that may be sent to each host."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for its whole answer, or for the next part of a streamed one."""


class AbstainSpec(Strict):
    """Answers of which the model is not sure enough are not sent."""

    risk: Annotated[float, Field(gt=0, lt=0.5)]
    """The largest share of wrong labels among the answers that are sent. Each evaluation finds on held-out
    rows the least confidence that keeps it."""
    unknown: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """The share of questions about subjects that no label fits, with which ``risk`` is to hold. Every answer
    to them is wrong. 0: all questions are like the held-out ones."""
    to: Annotated[Literal["people", "label", "endpoint"], if_unknown("people")] = "people"
    """Who gets the question. ``people``: the application is told that a person must look. ``label``: the
    question also becomes a request for a label. ``endpoint``: another model answers, which ``endpoint``
    names; what it does not answer becomes a request for a label."""
    endpoint: Annotated[FallbackSpec | None, Field(exclude_if=operator.not_)] = None
    reply: Annotated[Text | None, Field(min_length=1, max_length=2_000, exclude_if=operator.not_)] = None
    """The text of the refusal that is sent in place of an answer. Null: a sentence in English."""

    @model_validator(mode="after")
    def _names_the_endpoint(self, info: ValidationInfo) -> Self:
        is_read = isinstance(info.context, Reading) and not info.context.is_strict
        if (self.to == "endpoint") != (self.endpoint is not None) and not is_read:
            raise inconsistent("endpoint", "and to: endpoint go together; give both, or remove both")
        return self


class RiskPoint(Frozen):
    """What holds on held-out rows if the answers of at least one confidence are sent."""

    least: Fraction
    """The confidence."""
    coverage: Fraction
    """The share of the rows that are answered."""
    wrong: Fraction
    """The share of wrong labels among the answers, with the assumed share of unknown subjects."""
    bound: Fraction
    """The upper end of ``wrong``."""


class Abstention(Frozen):
    """The least confidence that an answer must have to be sent, and the evidence for it."""

    risk: Fraction
    """What the spec asked for, as in ``AbstainSpec``."""
    unknown: Fraction
    rows: PositiveInt
    """The number of held-out rows."""
    alpha: Fraction
    """The probability with which such rows would show a risk as kept that is not."""
    chosen: RiskPoint
    shown: bool
    """Whether the rows show that the risk is kept. False: they are too few, or the model is too often sure of
    wrong labels. ``chosen`` is then where ``wrong`` is within the risk, or where the bound is lowest."""
    curve: Annotated[tuple[RiskPoint, ...], Field(max_length=100)] = ()
    """From few answers to all."""


class Certainty(Frozen):
    """How a model's probability of its label becomes the confidence that clients are told: as in
    ``Calibration``."""

    intercept: FiniteFloat
    slope: FiniteFloat
    least: Annotated[Fraction | None, Field(exclude_if=lambda least: least is None)] = None
    """Answers of less confidence are not sent. Null: all are sent."""
    label_field: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    """The field whose probability was judged; null: the whole answer is the label."""
