"""The fingerprint of a judged model: the likeliest next tokens after fixed prompts.

Eval measures it, and the gateway compares it with what an engine answers under the model's name. Equal
weights, adapter, chat template and precision give equal figures but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen, Slug

Message = Mapping[str, str]
PROMPTS: Mapping[str, tuple[Message, ...]] = MappingProxyType(
    {
        "question": (
            {"role": "user", "content": "What is the capital of France, and which river is there?"},
        ),
        "order": (
            {"role": "system", "content": "Answer in one short sentence."},
            {"role": "user", "content": "My parcel of 12.05.2024 is late: order 4711-B, 3 x 19.90 €."},
        ),
        "thread": (
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "Blue."},
            {"role": "user", "content": "And another one?"},
        ),
    }
)
"""The prompts by name, as messages. Bundles name them, so the messages of a name never change."""
RECORDED = 10
"""Tokens that are recorded of each prompt. Rarer tokens are rounding more than they are the model."""


class NextToken(Frozen):
    text: Annotated[str, Field(max_length=1_000)]
    logprob: FiniteFloat
    """Natural logarithm of its probability, before temperature."""


class NextTokens(Frozen):
    """The likeliest first tokens of the answer to one prompt, likeliest first."""

    prompt: Slug
    """A name of ``PROMPTS``. Readers ignore a name that they do not know."""
    tokens: Annotated[tuple[NextToken, ...], Field(max_length=100)]
