"""Decides the form of a chat's answer (free text, JSON or tool calls) and builds the grammar that enforces
it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunewheel_generation.constraint import Grammar, Grammars, InvalidGrammar

from tunewheel_engine.errors import Refused
from tunewheel_engine.openai_requests import ChatRequest
from tunewheel_engine.structured_output import compile_or_refuse, inline_json, json_object, json_source
from tunewheel_engine.tool_calls import CLOSE, OPEN, calls_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_FORMAT = "response_format"
_SCHEMA = "response_format.json_schema.schema"


@dataclass(frozen=True)
class AnswerForm:
    """The form of an answer. ``tools``: the functions that the prompt describes. ``calls``: the names of the
    functions whose calls are searched for in the answer. ``stops``: stop strings besides the client's."""

    tools: tuple[dict[str, Any], ...] = ()
    calls: frozenset[str] = frozenset()
    grammar: Grammar | None = None
    stops: tuple[str, ...] = ()


def answer_form(body: ChatRequest, grammars: Grammars, tokenizer: PreTrainedTokenizerBase) -> AnswerForm:
    """Return the form of the answer to ``body``. Compiling its grammar may take a second. Raises Refused."""
    schema, param = _wanted_schema(body)
    choice, named = _tool_choice(body)
    if choice == "none":
        if schema is None:
            return AnswerForm()
        source = json_source(schema, param=param)
        return AnswerForm(grammar=compile_or_refuse(grammars, source, schema=schema, param=param))
    functions = {tool.function.name: _parameters(body, at) for at, tool in enumerate(body.tools or [])}
    tools = tuple(tool.model_dump(exclude_none=True) for tool in body.tools or [])
    several = body.parallel_tool_calls is not False
    if choice == "auto" and schema is None and not any(tool.function.strict for tool in body.tools or []):
        return AnswerForm(tools, frozenset(functions), stops=() if several else (CLOSE,))
    callable_ = {name: one for name, one in functions.items() if choice != "function" or name == named}
    source = calls_source(
        {name: inline_json(one, param=at) for name, (one, at) in callable_.items()},
        several=several and choice != "function",
        markers=(_marker(tokenizer, OPEN), _marker(tokenizer, CLOSE)),
        answer=inline_json(schema, param=param) if choice == "auto" and schema is not None else None,
        among_text=choice == "auto" and schema is None,
    )
    checked = [*callable_.values(), *([(schema, param)] if choice == "auto" and schema is not None else [])]
    return AnswerForm(tools, frozenset(callable_), _compile(grammars, source, checked))


def _compile(grammars: Grammars, source: str, parts: list[tuple[dict[str, Any], str]]) -> Grammar:
    try:
        return grammars.compile(source)
    except InvalidGrammar as error:
        for schema, param in parts:  # Compile each schema alone, to name the one at fault.
            compile_or_refuse(grammars, json_source(schema, param=param), schema=schema, param=param)
        raise Refused(f"tools are not served together ({error.reason}); send fewer", param="tools") from error


def _wanted_schema(body: ChatRequest) -> tuple[dict[str, Any] | None, str]:
    """Return the schema of the answer's content (None for free text) and the parameter that it comes from."""
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None, _FORMAT
    if wanted.type == "json_object":
        return json_object(), _FORMAT
    if wanted.json_schema is None:
        raise Refused(
            f"{_FORMAT}.json_schema is missing; send a name and a schema", param=f"{_FORMAT}.json_schema"
        )
    return wanted.json_schema.schema_, _SCHEMA


def _tool_choice(body: ChatRequest) -> tuple[Literal["none", "auto", "required", "function"], str | None]:
    """Return whether the model may or must call functions, and the name of the function that it must call."""
    names = [tool.function.name for tool in body.tools or []]
    for at, name in enumerate(names):
        if name in names[:at]:
            param = f"tools[{at}].function.name"
            raise Refused(f"{param}={name!r} occurs twice; rename one of the functions", param=param)
    if body.tool_choice is None or body.tool_choice.type == "auto":
        return ("auto" if names else "none"), None
    if body.tool_choice.type == "none":
        return "none", None
    if not names:
        raise Refused("tool_choice needs tools; send them", param="tool_choice")
    if body.tool_choice.type == "required":
        return "required", None
    named = body.tool_choice.function.name if body.tool_choice.function else None
    if named not in names:
        param = "tool_choice.function.name"
        raise Refused(f"{param}={named!r} is not in tools; name one of them", param=param)
    return "function", named


def _parameters(body: ChatRequest, at: int) -> tuple[dict[str, Any], str]:
    """Return the schema of the arguments of function number ``at``, and the parameter that it comes from."""
    param = f"tools[{at}].function.parameters"
    given = (body.tools or [])[at].function.parameters
    if given is None:
        return _NO_PARAMETERS, param
    if given.get("type", "object") != "object":
        raise Refused(f"{param}.type must be 'object'", param=f"{param}.type")
    return {**given, "type": "object"}, param


def _marker(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return ``text`` for a Lark grammar: as a special token if the vocabulary has one, else as a string."""
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    tokens = (id for id, token in added.items() if token.content == text and not token.special)
    return next((f"<[{id}]>" for id in tokens), json.dumps(text))
