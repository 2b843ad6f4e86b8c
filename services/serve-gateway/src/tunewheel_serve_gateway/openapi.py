"""What the API says of itself, in OpenAPI 3.1: requests by the types that validate them.

python -m tunewheel_serve_gateway.openapi > services/serve-gateway/openapi.json
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Literal, NotRequired

import orjson
from pydantic import ConfigDict, TypeAdapter, with_config
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import ChatBody
from tunewheel_serve_gateway.embeddings import EmbeddingsBody
from tunewheel_serve_gateway.feedback import FeedbackBody

Schema = dict[str, Any]
_SAYS = ConfigDict(use_attribute_docstrings=True)
ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "requests",
    "tokens",
    "insufficient_quota",
    "server_error",
]


@with_config(_SAYS)
class ErrorDetail(TypedDict):
    message: str
    """What is wrong, and what to do about it."""
    type: ErrorType
    param: str | None
    """The field that is wrong."""
    code: str | None


class Error(TypedDict):
    """OpenAI's shape of an error."""

    error: ErrorDetail


class AnsweredFunction(TypedDict):
    name: NotRequired[str | None]
    arguments: NotRequired[str | None]


class AnsweredCall(TypedDict):
    id: NotRequired[str | None]
    type: NotRequired[str | None]
    index: NotRequired[int]
    function: AnsweredFunction


@with_config(_SAYS)
class AnsweredMessage(TypedDict):
    role: NotRequired[str | None]
    content: NotRequired[str | None]
    tool_calls: NotRequired[list[AnsweredCall] | None]
    """In a stream: pieces, those of one call under one index."""


class Choice(TypedDict):
    index: int
    message: AnsweredMessage
    finish_reason: str | None
    logprobs: NotRequired[Any]


class Delta(TypedDict):
    index: int
    delta: AnsweredMessage
    finish_reason: NotRequired[str | None]
    logprobs: NotRequired[Any]


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@with_config(_SAYS)
class ChatCompletion(TypedDict):
    """A whole answer."""

    id: str
    """What feedback names it by."""
    object: Literal["chat.completion"]
    created: int
    model: str
    """The model that answered, whatever was asked for."""
    choices: list[Choice]
    usage: NotRequired[Usage | None]


class ChatCompletionChunk(TypedDict):
    """One event of a stream, which ends with ``data: [DONE]``, or with an ``Error``."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[Delta]
    usage: NotRequired[Usage | None]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


class FeedbackReceipt(TypedDict):
    feedback_id: str
    completion_id: str
    project: str


@with_config(_SAYS)
class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Of unit length; zeros for a text without a known token. As text: little-endian float32 in base64."""


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


@with_config(_SAYS)
class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    """The embedder: vectors of one name can be compared with each other, and with no others."""
    usage: EmbeddingUsage


class Status(TypedDict):
    engine: dict[str, Any]
    projects: dict[str, Any]
    failed_adapters: dict[str, Any]


REFUSALS = {
    400: "The request is wrong; `param` names the field",
    401: "No key or token, or an unknown one",
    403: "The caller lacks the role, or another website's page sent the request",
    404: "Nobody of that name is served, or not for the caller; no gateway gave that answer",
    413: "The body is too large",
    415: "The body is not JSON by its Content-Type",
    422: "Something needed is missing",
    429: "A limit is reached, or the engine's queue is full; Retry-After says when to come back",
    500: "The gateway failed",
    502: "The engine failed",
    503: "The gateway starts or stops, or engine, model or broker are away; with Retry-After",
    504: "The engine fell silent",
}
_ALWAYS = (401, 403, 500, 503)
_OF_BODIES = (400, 413, 415)
_REQUESTS = (ChatBody, EmbeddingsBody, FeedbackBody)
_ANSWERS = (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    Error,
    FeedbackReceipt,
    Model,
    ModelList,
    Status,
)


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return orjson.dumps(_describe(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _describe() -> Schema:
    about = {
        "title": "Tunewheel's gateway",
        "version": "1",
        "description": "OpenAI's chat API over the models of a wheel, and feedback on their answers.",
    }
    return {
        "openapi": "3.1.0",
        "info": about,
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/embeddings": {
                "post": _operation(
                    "createEmbedding",
                    "Texts as the vectors that a project's documents are searched by",
                    {200: "EmbeddingList"},
                    404,
                    429,
                    body="EmbeddingsBody",
                )
            },
            "/v1/models": {
                "get": _operation("listModels", "Every name that `model` may have", {200: "ModelList"})
            },
            "/v1/models/{name}": {
                "get": _operation("readModel", "One of them", {200: "Model"}, 404, parameters=[_NAME])
            },
            "/v1/status": {
                "get": _operation("readStatus", "Who answers, and why somebody does not", {200: "Status"})
            },
            "/v1/feedback": {
                "post": _operation(
                    "sendFeedback",
                    "What a user or an expert says of an answer",
                    {202: "FeedbackReceipt"},
                    404,
                    422,
                    body="FeedbackBody",
                )
            },
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


TOLD = {
    "x-tunewheel-model": "Who answered",
    "x-tunewheel-role": "In which role",
    "x-tunewheel-index": "Where passages were looked for: the version of the index, or `none`",
    "x-tunewheel-sources": "JSON: `document`, `heading` and `version` of what is in the prompt",
}
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_STICKY: Schema = {
    "name": "X-Tunewheel-Session",
    "in": "header",
    "description": "Requests with equal values stay with one model while a canary is out.",
    "schema": {"type": "string"},
}


def _chat() -> Schema:
    operation = _operation(
        "createChatCompletion",
        "Answer a conversation, whole or as a stream",
        {200: "ChatCompletion"},
        404,
        429,
        502,
        504,
        body="ChatBody",
        parameters=[_STICKY],
    )
    chunks = {"schema": {"type": "string", "description": "Events of ChatCompletionChunk"}}
    answer = operation["responses"]["200"]
    answer["content"]["text/event-stream"] = chunks
    answer["headers"] |= {name: {"description": d, "schema": _TEXT} for name, d in TOLD.items()}
    return operation


def _operation(
    name: str,
    summary: str,
    answers: dict[int, str],
    *refusals: int,
    body: str | None = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    told = {status: ("As asked for", schema) for status, schema in answers.items()}
    told |= {s: (REFUSALS[s], "Error") for s in (*_ALWAYS, *refusals, *(_OF_BODIES if body else ()))}
    responses = {
        str(status): {
            "description": description,
            "headers": {"x-request-id": {"schema": {"type": "string"}}},
            "content": _json(schema),
        }
        for status, (description, schema) in sorted(told.items())
    }
    operation: Schema = {"operationId": name, "summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _schemas() -> dict[str, Schema]:
    sent: JsonSchemaMode = "validation"
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (each.__name__, sent, TypeAdapter(each)) for each in (*_REQUESTS, *_ANSWERS)
    ]
    _, shared = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Schema] = shared["$defs"]
    return dict(sorted(schemas.items()))


if __name__ == "__main__":
    sys.stdout.buffer.write(document())
