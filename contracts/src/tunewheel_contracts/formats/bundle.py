"""The bundle: all settings that decide a model's answers. It is hashed, judged as a whole, and served
unchanged."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from tunewheel_contracts.fields import Frozen, JsonObject, PositiveInt, Sha256, Slug, Strict, Text
from tunewheel_contracts.formats.confidence import Certainty
from tunewheel_contracts.formats.fingerprint import NextTokens
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.identity import content_sha256

_TAKEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "conversation",
     "chat_template", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
     "return_assistant_tokens_mask", "tokenizer_kwargs", "strftime_now", "raise_exception", "self"}
)  # fmt: skip
"""What a chat template is given with each conversation, and other arguments of the functions that render it,
in transformers and in vLLM. With ``*_token`` the tokenizer names its tokens."""
_OF_JINJA = frozenset(
    {"true", "false", "none", "range", "dict", "lipsum", "cycler", "joiner", "namespace"}
)  # fmt: skip
"""Names that Jinja lets no template set, and the functions that it gives to each template."""


def _is_free(name: str) -> str:
    if name in _TAKEN or name.endswith("_token"):
        raise ValueError("is set by Tunewheel for each conversation; leave it out")
    if name in _OF_JINJA:
        raise ValueError("is a word of Jinja, in which chat templates are written; leave it out")
    return name


ChatTemplateKwargs = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,63}$"), AfterValidator(_is_free)],
        bool
        | Annotated[int, Field(ge=-(2**53), le=2**53)]
        | Annotated[float, Field(allow_inf_nan=False)]
        | Annotated[str, StringConstraints(max_length=256)],
    ],
    Field(max_length=16, exclude_if=operator.not_),
]
"""Variables for the chat template, such as ``enable_thinking`` of Qwen3."""


class Decoding(Strict):
    """How the next token is chosen. A client of the gateway may override this for each request."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """0: always the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Choose among the likeliest tokens whose probabilities together reach this value."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] = 1.0
    """1: no penalty."""
    seed: int | None = None
    """Seed of the random choice, if ``temperature`` is not 0."""


class Bundle(Frozen):
    """The configuration of one contestant of an evaluation. After the contestant passed, it is served with
    it."""

    base: BaseModelRef
    model_id: Slug | None
    """The adapter, or the fully fine-tuned model; null: the base model."""
    adapter_sha256: Sha256 | None
    """Hash of the paths and hashes of the adapter's files."""
    template_sha256: Sha256 | None
    """Hash of the chat template."""
    chat_template_kwargs: ChatTemplateKwargs = {}
    system_prompt: Text
    decoding: Decoding
    max_output_tokens: PositiveInt
    constraint_sha256: Sha256 | None = None
    """Hash of ``constraint``; null: decoding was not constrained."""
    constraint: Annotated[JsonObject | None, Field(exclude_if=lambda schema: schema is None)] = None
    """The JSON Schema by which decoding was constrained. A model is served with the schema that it was judged
    with, whatever the project declares later."""
    precision: str
    """Precision of the computation: ``bfloat16``, ``float16`` or ``float32``."""
    quantization: str | None = None
    """Quantization of the base's weights: ``nf4``; null: as published."""

    retrieval_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the retrieval spec. It covers the configuration and not the index version. Null: nothing was
    retrieved."""
    certainty: Annotated[Certainty | None, Field(exclude_if=operator.not_)] = None
    """How often its labels are right by its confidence in them, and how sure it must be for an answer to be
    sent. Null: it has no labels, or was judged by too few rows."""
    fingerprint: Annotated[tuple[NextTokens, ...], Field(exclude_if=operator.not_)] = ()
    """What eval measured of the model so configured; empty: an earlier release judged it."""

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON, without what was measured of it."""
        return self.model_dump(mode="json", exclude={"fingerprint"})

    @property
    def sha256(self) -> str:
        """The hash of ``settings``."""
        return content_sha256(self.settings)
