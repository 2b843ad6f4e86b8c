"""What the model of a project is asked to do."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Fraction, LinearPattern, NonNegative, Strict, Text
from tunewheel_contracts.formats.bundle import ChatTemplateKwargs
from tunewheel_contracts.formats.glossary import Glossary
from tunewheel_contracts.formats.output_rules import AllowedValuesRule, OutputRule
from tunewheel_contracts.formats.output_schema import OutputSchema


class NumberTolerance(Strict):
    """A number is right if it differs from the expert's by no more than the larger of these two."""

    absolute: NonNegative = 0
    relative: Fraction = 0
    """As a share of the expert's number."""


class TaskSpec(Strict):
    """What the model is asked to do."""

    system_prompt: Annotated[Text, Field(min_length=1)]
    output_schema: OutputSchema | None = None
    """JSON Schema (2020-12) of the answer; without it the answer is free text."""
    constrained: Annotated[bool, Field(exclude_if=operator.truth)] = True
    """Where there is an ``output_schema``: whether the engine is held to it at every token, in evaluation and
    where the model serves. False: answers are asked for in the prompt alone."""
    label_field: str | None = None
    """The answer's property that is the label, for accuracy."""
    output_rules: Annotated[tuple[OutputRule, ...], Field(max_length=50)] = ()
    """What else an answer must hold, to be learnt from and to be valid."""
    glossary: Annotated[Glossary, Field(exclude_if=lambda glossary: glossary == Glossary())] = Glossary()
    """The words of the business, which the metric ``domain_language`` goes by."""
    number_tolerance: Annotated[NumberTolerance | None, Field(exclude_if=operator.not_)] = None
    """How far a number may lie from the expert's, for the metric ``numeric_accuracy``."""
    refusal: Annotated[LinearPattern | None, Field(exclude_if=operator.not_)] = None
    """An answer in which this pattern is found declines to help, as the expert's do where the question is out
    of scope: for the metric ``refusal_rate``."""
    max_output_tokens: Annotated[int, Field(gt=0, le=8192)] = 256
    """Of an answer: in evaluation, and at the gateway where the client sets no limit."""
    chat_template_kwargs: ChatTemplateKwargs = {}
    """Variables for the base model's chat template, such as `{enable_thinking: false}` for Qwen3. They are
    the same in training, in evaluation and for every request."""

    @property
    def is_plain_label(self) -> bool:
        """Whether a whole answer is a label: free text that an output rule restricts to certain values."""
        return self.output_schema is None and any(
            isinstance(rule, AllowedValuesRule) and rule.field is None for rule in self.output_rules
        )

    @property
    def has_labels(self) -> bool:
        return self.label_field is not None or self.is_plain_label
