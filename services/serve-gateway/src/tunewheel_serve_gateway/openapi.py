"""The gateway's OpenAPI 3.1 document. Its schemas are generated from the types that validate
requests, and from those of answers.

python -m tunewheel_serve_gateway.openapi > services/serve-gateway/openapi.json
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import TypeAdapter
from tunewheel_contracts.api.documents import PassageSearch
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import ChatBody
from tunewheel_serve_gateway.embeddings import EmbeddingList, EmbeddingsBody
from tunewheel_serve_gateway.feedback import FeedbackBody, FeedbackReceipt
from tunewheel_serve_gateway.forms import ChatCompletion, ChatCompletionChunk, PromptCompletion
from tunewheel_serve_gateway.prompt_request import PromptBody
from tunewheel_serve_gateway.responses_body import ResponsesBody
from tunewheel_serve_gateway.responses_form import Response
from tunewheel_serve_gateway.search import SearchBody

Schema = dict[str, Any]


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    """An error in OpenAI's shape: what is wrong, what to do about it, and the field that is wrong."""

    error: ErrorDetail


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


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
ALWAYS, OF_BODIES = (401, 403, 500, 503), (400, 413, 415)
HEADERS = {
    "x-tunewheel-model": "Id of the model that answered",
    "x-tunewheel-role": "Role of that model, such as production or canary",
    "x-tunewheel-confidence": "How sure the model is of its label, 0 to 1, where it was measured",
    "x-tunewheel-abstained": "true: the model was not sure enough, so a refusal stands for the answer",
    "x-tunewheel-index": "Version of the index that was searched for passages, or `none`",
    "x-tunewheel-dropped": "Fields of the request that were left out, because the operator says so",
    "x-tunewheel-sources": "JSON: `document`, `heading` and `version` of each passage in the prompt",
}
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
_STICKY: Schema = {
    "name": "X-Tunewheel-Session",
    "in": "header",
    "description": "During a canary, requests with the same value are answered by the same model.",
    "schema": _TEXT,
}
COMPLETES = (404, 429, 502, 504)


class Operation(NamedTuple):
    """One endpoint. With a ``body`` the method is POST. ``events``: describes the events of a stream."""

    path: str
    name: str
    does: str
    answer: type[Any]
    refusals: tuple[int, ...] = ()
    body: type[Any] | None = None
    events: str | None = None
    status: int = 200


OPERATIONS = (
    Operation(
        "/v1/chat/completions", "createChatCompletion", "Answer a conversation, whole or as a stream",
        ChatCompletion, COMPLETES, ChatBody, "Events of ChatCompletionChunk",
    ),
    Operation(
        "/v1/responses", "createResponse", "Answer the same way, in the form of OpenAI's responses",
        Response, COMPLETES, ResponsesBody, "OpenAI's events of a response",
    ),
    Operation(
        "/v1/completions", "createCompletion", "Answer a prompt, as one message of a user",
        PromptCompletion, COMPLETES, PromptBody, "Events of PromptCompletion",
    ),
    Operation(
        "/v1/embeddings", "createEmbedding", "Embed texts with a project's embedding model",
        EmbeddingList, (404, 429), EmbeddingsBody,
    ),
    Operation(
        "/v1/search", "searchDocuments", "Tell what a question finds in a project's documents, and why",
        PassageSearch, (404, 429), SearchBody,
    ),
    Operation("/v1/models", "listModels", "List the values that `model` accepts", ModelList),
    Operation("/v1/models/{name}", "readModel", "One of them", Model, (404,)),
    Operation("/v1/status", "readStatus", "Which models are served, and why others not", Status),
    Operation(
        "/v1/feedback", "sendFeedback", "Rate or correct an answer",
        FeedbackReceipt, (404, 422), FeedbackBody, status=202,
    ),
)  # fmt: skip


@cache
def document() -> bytes:
    """Return the document as JSON."""
    types = {one for each in OPERATIONS for one in (each.answer, each.body) if one is not None}
    named = sorted({*types, ChatCompletionChunk, Error}, key=lambda one: one.__name__)
    _, shared = TypeAdapter.json_schemas(
        [(one.__name__, "validation", TypeAdapter[Any](one)) for one in named],
        ref_template="#/components/schemas/{model}",
    )
    described: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tunewheel's gateway",
            "version": "1",
            "description": "OpenAI's API over the models of a wheel, and feedback on their answers.",
        },
        "security": [{"key": []}],
        "paths": {one.path: {"post" if one.body else "get": _described(one)} for one in OPERATIONS},
        "components": {
            "schemas": dict(sorted(shared["$defs"].items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return orjson.dumps(described, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _described(one: Operation) -> Schema:
    refused = (*ALWAYS, *one.refusals, *(OF_BODIES if one.body else ()))
    responses = {str(status): _response(REFUSALS[status], Error) for status in sorted(refused)}
    answer = _response("As asked for", one.answer)
    operation: Schema = {
        "operationId": one.name,
        "summary": one.does,
        "responses": {str(one.status): answer, **responses},
    }
    if one.events:
        answer["content"]["text/event-stream"] = {"schema": {**_TEXT, "description": one.events}}
        answer["headers"] |= {name: {"description": d, "schema": _TEXT} for name, d in HEADERS.items()}
    if parameters := [_STICKY] * bool(one.events) + [_NAME] * ("{name}" in one.path):
        operation["parameters"] = parameters
    if one.body:
        operation["requestBody"] = {"required": True, "content": _json(one.body)}
    return operation


def _response(description: str, answer: type[Any]) -> Schema:
    return {
        "description": description,
        "headers": {"x-request-id": {"schema": _TEXT}},
        "content": _json(answer),
    }


def _json(schema: type[Any]) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}


if __name__ == "__main__":
    sys.stdout.buffer.write(document())
