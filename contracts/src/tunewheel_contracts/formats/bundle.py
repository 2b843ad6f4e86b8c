"""What is judged and then served: everything that decides what a model answers, as one hashed thing."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, PositiveInt, Sha256, Slug, Strict, Text
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.identity import content_sha256


class Decoding(Strict):
    """How the next token is chosen. A client of the gateway may ask for another way with each request."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """0: the likeliest token, always."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Of the likeliest tokens, those that together reach this probability."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] = 1.0
    """1: none."""
    seed: int | None = None
    """Of the random choice, where ``temperature`` is not 0."""


class Bundle(Frozen):
    """What one contestant of an evaluation was made of, and what its route serves after it passed."""

    base: BaseModelRef
    model_id: Slug | None
    """The adapter, or the whole model; None: the bare base."""
    adapter_sha256: Sha256 | None
    """Of the adapter's files: the hash of their paths and hashes."""
    template_sha256: Sha256 | None
    """Of the chat template that put messages into tokens."""
    system_prompt: Text
    decoding: Decoding
    max_output_tokens: PositiveInt
    constraint_sha256: Sha256 | None = None
    """Of the JSON Schema that the answer was held to while it was written; None: nothing held it."""
    precision: str
    """Of the weights while they compute: ``bfloat16``, ``float16`` or ``float32``."""
    quantization: str | None = None
    """Form of the base's weights: ``nf4``; None: as published."""

    retrieval_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Of the retrieval spec by which it was answered: the configuration, not the index version. None:
    nothing was retrieved."""

    @property
    def sha256(self) -> str:
        return content_sha256(self.model_dump(mode="json"))
