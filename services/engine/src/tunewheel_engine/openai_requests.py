"""The request bodies of OpenAI's API.

The engine supports a part of the parameters. An unsupported one that would change the answer is refused by
name.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from tunewheel_basemodel.sampling import Sampling
from tunewheel_contracts.formats.bundle import ChatTemplateKwargs

from tunewheel_engine.errors import Refused

_NOT_SERVED: dict[str, tuple[tuple[object, ...], str]] = {
    "best_of": ((1,), "send n and choose among the answers"),
    "functions": (([],), "send tools"),
    "function_call": (("none", "auto"), "send tool_choice"),
    "echo": ((False,), "put the prompt before the answer yourself"),
    "suffix": (("",), "leave it out"),
}
"""Unsupported parameters: the values that have no effect and are accepted, and what to do instead."""
_WITHOUT_EFFECT = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)
MOST_ANSWERS = 8
MOST_LOGPROBS = 20
_MOST_TOOLS = 128
_MOST_BIASES = 1024
_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


def _text_of_parts(content: object) -> object:
    """Return the text of ``content``; a list of text parts is joined."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise ValueError("only parts of type 'text' are supported; send text")
    return "".join(part["text"] for part in content)


class CalledFunction(BaseModel):
    name: str
    arguments: str


class ToolCallMessage(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_text_of_parts)] = None
    tool_calls: list[ToolCallMessage] | None = None
    tool_call_id: str | None = None


class Function(BaseModel):
    """A function that the model may call; without ``parameters`` it takes none."""

    name: Annotated[str, Field(pattern=_NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    name: str


def _choice_as_object(choice: object) -> object:
    return {"type": choice} if isinstance(choice, str) else choice


class ToolChoice(BaseModel):
    """Whether the model may or must call a function. ``"auto"`` stands for ``{"type": "auto"}``."""

    type: Literal["none", "auto", "required", "function"]
    function: FunctionName | None = None


class JsonSchemaFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=_NAME)]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Without effect: the schema is always enforced."""


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class _Common(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[int, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=_MOST_BIASES)] | None
    ) = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
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

    def sampling(self, choice: int = 0) -> Sampling:
        """Return how the tokens of answer number ``choice`` are chosen. With a seed, answer i uses seed + i.

        The default temperature is 1, as OpenAI has it.
        """
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(
            temperature=temperature if temperature > 1e-5 else 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            seed=None if self.seed is None else self.seed + choice,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            min_p=self.min_p or 0.0,
            logit_bias=tuple((self.logit_bias or {}).items()),
        )

    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in stop if one)

    @property
    def answers(self) -> int:
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=_MOST_TOOLS)] | None = None
    tool_choice: Annotated[ToolChoice, BeforeValidator(_choice_as_object)] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None

    def logprobs_wanted(self) -> int | None:
        """Return how many of the likeliest tokens are listed with their log probabilities, beside the chosen
        token. None: no log probabilities at all. Raises Refused."""
        if self.top_logprobs and not self.logprobs:
            raise Refused("top_logprobs needs logprobs=true; send it", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def chat_messages(self) -> list[dict[str, Any]]:
        """Return the messages as chat templates expect them, with calls' arguments as objects. Raises
        Refused."""
        return [_as_chat(message, f"messages[{at}]") for at, message in enumerate(self.messages)]


def _as_chat(message: Message, param: str) -> dict[str, Any]:
    if message.content is None and not message.tool_calls:
        raise Refused(f"{param}.content is missing; send text", param=f"{param}.content")
    if message.role == "tool" and not message.tool_call_id:
        raise Refused(
            f"{param}.tool_call_id is missing; name the call that the message answers",
            param=f"{param}.tool_call_id",
        )
    out: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.role == "tool":
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls and message.role == "assistant":
        out["tool_calls"] = [
            _as_called(call, f"{param}.tool_calls[{at}].function.arguments")
            for at, call in enumerate(message.tool_calls)
        ]
    return out


def _as_called(call: ToolCallMessage, param: str) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise Refused(f"{param} is not the text of a JSON object; send one", param=param)
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }


class CompletionRequest(_Common):
    """``POST /v1/completions``."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class LoadAdapterRequest(BaseModel):
    """``POST /v1/load_lora_adapter``."""

    model_config = ConfigDict(extra="forbid")

    lora_name: str
    lora_path: str


class UnloadAdapterRequest(BaseModel):
    """``POST /v1/unload_lora_adapter``. vLLM also accepts ``lora_int_id``, which has no meaning here."""

    lora_name: str
