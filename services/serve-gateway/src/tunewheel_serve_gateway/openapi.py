"""The gateway's OpenAPI 3.1 document. Request schemas are generated from the types that validate requests.

python -m tunewheel_serve_gateway.openapi > services/serve-gateway/openapi.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NotRequired

import orjson
from pydantic import ConfigDict, TypeAdapter, with_config
from pydantic.json_schema import JsonSchemaMode
from tunewheel_contracts.api.documents import PassageSearch
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import ChatBody
from tunewheel_serve_gateway.embeddings import EmbeddingsBody
from tunewheel_serve_gateway.feedback import FeedbackBody
from tunewheel_serve_gateway.prompt_request import PromptBody
from tunewheel_serve_gateway.responses_body import ResponsesBody
from tunewheel_serve_gateway.search import SearchBody

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
    """An error in OpenAI's shape."""

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
    """In a stream these are pieces of tool calls. Pieces with the same index belong to one call."""


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
    """The completion's id; send it as ``completion_id`` with feedback."""
    object: Literal["chat.completion"]
    created: int
    model: str
    """The id of the model that answered. The request may have named a project or an alias."""
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


class PromptChoice(TypedDict):
    index: int
    text: str
    finish_reason: str | None
    logprobs: None


class PromptCompletion(TypedDict):
    """The answer to a prompt, whole or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: NotRequired[int]
    model: str
    choices: list[PromptChoice]
    usage: NotRequired[Usage | None]


@with_config(_SAYS)
class Response(TypedDict):
    """A response. The request's other fields are repeated."""

    id: str
    """The completion's id; send it as ``completion_id`` with feedback."""
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[dict[str, Any]]
    """Items of type ``message`` or ``function_call``."""
    store: Literal[False]
    usage: dict[str, Any] | None


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
    """A vector of unit length, or of zeros for a text without a known token. A string is little-endian
    float32 in base64."""


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


@with_config(_SAYS)
class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    """The name of the embedder. Only vectors of the same embedder can be compared."""
    usage: EmbeddingUsage


class Status(TypedDict):
    engine: dict[str, Any]
    projects: dict[str, Any]
    failed_adapters: dict[str, Any]


REFUSALS = {
    400: "The request is wrong; `param` names the field",
    401: "No key or token, or an unknown one",
    403: "The caller lacks the role, or another website's page sent the request",
    404: "No such model or completion, or the caller may not use it",
    413: "The body is too large",
    415: "The body is not JSON by its Content-Type",
    422: "Something needed is missing",
    429: "A limit is reached, or the engine's queue is full; Retry-After says when to come back",
    500: "The gateway failed",
    502: "The engine failed",
    503: "The gateway is starting or stopping, or engine, model or broker is unavailable; with Retry-After",
    504: "The engine did not answer in time",
}
_ALWAYS = (401, 403, 500, 503)
_OF_BODIES = (400, 413, 415)
_REQUESTS = (ChatBody, EmbeddingsBody, FeedbackBody, PromptBody, ResponsesBody, SearchBody)
_ANSWERS = (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    Error,
    FeedbackReceipt,
    Model,
    ModelList,
    PassageSearch,
    PromptCompletion,
    Response,
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
        "description": "OpenAI's API over the models of a wheel, and feedback on their answers.",
    }
    security = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": about,
        "security": [{"key": []}],
        "paths": {path: {method: operation} for path, method, operation in _operations()},
        "components": {"schemas": _schemas(), "securitySchemes": security},
    }


def _operations() -> Iterator[tuple[str, str, Schema]]:
    """Yield path, method and description of each operation."""
    does, events = "Answer a conversation, whole or as a stream", "Events of ChatCompletionChunk"
    chats = _completes("createChatCompletion", does, body="ChatBody", gives="ChatCompletion", events=events)
    yield "/v1/chat/completions", "post", chats
    does, events = "Answer the same way, in the form of OpenAI's responses", "OpenAI's events of a response"
    responds = _completes("createResponse", does, body="ResponsesBody", gives="Response", events=events)
    yield "/v1/responses", "post", responds
    does, events = "Answer a prompt, as one message of a user", "Events of PromptCompletion"
    prompts = _completes("createCompletion", does, body="PromptBody", gives="PromptCompletion", events=events)
    yield "/v1/completions", "post", prompts
    does, gives = "Embed texts with a project's embedding model", {200: "EmbeddingList"}
    embeds = _operation("createEmbedding", does, gives, 404, 429, body="EmbeddingsBody")
    yield "/v1/embeddings", "post", embeds
    does, gives = "Tell what a question finds in a project's documents, and why", {200: "PassageSearch"}
    yield "/v1/search", "post", _operation("searchDocuments", does, gives, 404, 429, body="SearchBody")
    does, gives = "List the values that `model` accepts", {200: "ModelList"}
    yield "/v1/models", "get", _operation("listModels", does, gives)
    reads = _operation("readModel", "One of them", {200: "Model"}, 404, parameters=[_NAME])
    yield "/v1/models/{name}", "get", reads
    does = "Which models are served, and why others not"
    yield "/v1/status", "get", _operation("readStatus", does, {200: "Status"})
    does, gives = "Rate or correct an answer", {202: "FeedbackReceipt"}
    sends = _operation("sendFeedback", does, gives, 404, 422, body="FeedbackBody")
    yield "/v1/feedback", "post", sends


TOLD = {
    "x-tunewheel-model": "Id of the model that answered",
    "x-tunewheel-role": "Role of that model, such as production or canary",
    "x-tunewheel-confidence": "How sure the model is of its label, 0 to 1, where it was measured",
    "x-tunewheel-abstained": "true: the model was not sure enough, so a refusal stands for the answer",
    "x-tunewheel-index": "Version of the index that was searched for passages, or `none`",
    "x-tunewheel-dropped": "Fields of the request that were left out, because the operator says so",
    "x-tunewheel-sources": "JSON: `document`, `heading` and `version` of each passage in the prompt",
}
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_STICKY: Schema = {
    "name": "X-Tunewheel-Session",
    "in": "header",
    "description": "During a canary, requests with the same value are answered by the same model.",
    "schema": {"type": "string"},
}


def _completes(name: str, does: str, *, body: str, gives: str, events: str) -> Schema:
    """Return the operation of an endpoint that answers whole or as a stream."""
    operation = _operation(name, does, {200: gives}, 404, 429, 502, 504, body=body, parameters=[_STICKY])
    answer = operation["responses"]["200"]
    answer["content"]["text/event-stream"] = {"schema": {"type": "string", "description": events}}
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
