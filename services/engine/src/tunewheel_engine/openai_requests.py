"""The bodies of OpenAI's API, as far as this engine serves them.

A parameter that would change the answer and is not served is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from tunewheel_basemodel.sampling import Sampling

from tunewheel_engine.errors import Refused

_NOT_SERVED: dict[str, tuple[tuple[object, ...], str]] = {
    "n": ((1,), "send one request for each answer"),
    "best_of": ((1,), "send one request for each answer"),
    "presence_penalty": ((0,), "leave it out, or serve by vLLM"),
    "frequency_penalty": ((0,), "leave it out, or serve by vLLM"),
    "min_p": ((0,), "use top_p"),
    "logit_bias": (({},), "leave it out, or serve by vLLM"),
    "logprobs": ((False,), "leave it out, or serve by vLLM"),
    "top_logprobs": ((0,), "leave it out, or serve by vLLM"),
    "tools": (([],), "describe them in the prompt"),
    "tool_choice": (("none", "auto"), "leave it out"),
    "functions": (([],), "describe them in the prompt"),
    "response_format": (({"type": "text"},), "ask for the format in the prompt"),
    "echo": ((False,), "put the prompt before the answer yourself"),
    "suffix": (("",), "leave it out"),
}
"""Parameter → the values that mean its absence, and what to do instead."""
_WITHOUT_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
    }
)


def _text_of_parts(content: object) -> object:
    """Content given as a list of text parts, joined."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise ValueError("only parts of type 'text' are served; send text")
    return "".join(part["text"] for part in content)


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of_parts)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class _Common(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_served(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        for name, (neutral, advice) in _NOT_SERVED.items():
            if content.get(name) is not None and content[name] not in neutral:
                raise Refused(f"{name}={content[name]!r} is not served; {advice}", param=name)
        ignored = _NOT_SERVED.keys() | _WITHOUT_EFFECT
        return {name: value for name, value in content.items() if name not in ignored}

    def sampling(self) -> Sampling:
        """How to choose tokens; OpenAI's default temperature is 1."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(
            temperature=temperature if temperature > 1e-5 else 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            seed=self.seed,
            repetition_penalty=self.repetition_penalty or 1.0,
        )

    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in stop if one)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class CompletionRequest(_Common):
    """``POST /v1/completions``."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]


class LoadAdapterRequest(BaseModel):
    """``POST /v1/load_lora_adapter``."""

    model_config = ConfigDict(extra="forbid")

    lora_name: str
    lora_path: str


class UnloadAdapterRequest(BaseModel):
    """``POST /v1/unload_lora_adapter``; vLLM takes ``lora_int_id`` beside it, which means nothing here."""

    lora_name: str
