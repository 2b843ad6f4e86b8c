"""The request body of Text Generation Inference's API.

The engine supports a part of the parameters. An unsupported one that would change the answer is refused by
name. Source: TGI's OpenAPI description (``GenerateParameters``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tunewheel_basemodel.sampling import Sampling

from tunewheel_engine.errors import Refused

_NOT_SERVED: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "decoder_input_details": (False,),
    "frequency_penalty": (0,),
    "top_n_tokens": (0,),
    "typical_p": (1,),
    "watermark": (False,),
}
"""Unsupported parameters, and their values that have no effect and are accepted."""


class GrammarParameter(BaseModel):
    """A constraint of the answer. Type ``json`` (TGI also has ``json_schema``): a schema, as an object or as
    text. Type ``regex``: an expression that must match the whole answer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["json", "json_schema", "regex"]
    value: str | dict[str, Any]


class Parameters(BaseModel):
    """How to generate. As in TGI, setting temperature, top_k or top_p turns sampling on, even without
    do_sample."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: str | None = None
    details: bool = False
    do_sample: bool = False
    grammar: GrammarParameter | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    stop: Annotated[list[str], Field(max_length=16)] = []
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    truncate: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_served(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        for name, neutral in _NOT_SERVED.items():
            if content.get(name) is not None and content[name] not in neutral:
                raise Refused(f"{name}={content[name]!r} is not supported; leave it out", param=name)
        given = {name: value for name, value in content.items() if value is not None}
        return {name: value for name, value in given.items() if name not in _NOT_SERVED}

    def sampling(self) -> Sampling:
        tempered = self.temperature is not None and self.temperature != 1
        cut = self.top_k is not None or (self.top_p is not None and self.top_p < 1)
        penalty = self.repetition_penalty or 1.0
        if not (self.do_sample or tempered or cut):
            return Sampling(seed=self.seed, repetition_penalty=penalty)
        return Sampling(self.temperature or 1.0, self.top_p or 1.0, self.top_k or 0, self.seed, penalty)


class GenerateRequest(BaseModel):
    """``POST /generate``, ``/generate_stream`` and ``/``."""

    model_config = ConfigDict(extra="forbid")

    inputs: str
    parameters: Parameters = Parameters()
    stream: bool = False
    """Has an effect only at ``/``, as in TGI."""
