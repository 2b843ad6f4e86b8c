"""``POST /v1/embeddings``: embeds texts with the embedding model of a project."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Required

import orjson
from pydantic import BeforeValidator, Field, Tag, TypeAdapter, with_config
from tunewheel_contracts.formats.retrieval_spec import StaticEmbedding
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.identity.roles import Caller, Role
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import CLOSED, text_or
from tunewheel_serve_gateway.chat_request import Words, dropped_header
from tunewheel_serve_gateway.errors import BadRequest, Headers, UnknownModel
from tunewheel_serve_gateway.limits.admitting import Admission
from tunewheel_serve_gateway.retrieval.embedders import Embedded, Embedders

MOST_INPUTS = 2048
"""Most texts in one request; OpenAI has the same limit."""


def _without_tokens(texts: Any) -> Any:
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        raise BadRequest(
            "input has token ids, which belong to another model's tokenizer; send texts. LangChain's "
            "OpenAIEmbeddings sends texts with check_embedding_ctx_length=False",
            param="input[0]",
            code="invalid_type",
        )
    return texts


_Text = Annotated[str, Field(min_length=1)]
Input = Annotated[
    Annotated[_Text, Tag("(text)")]
    | Annotated[list[_Text], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True), Tag("(other)")],
    text_or(list),
    BeforeValidator(_without_tokens),
]


@with_config(CLOSED)
class EmbeddingsBody(TypedDict, total=False):
    """A request for vectors."""

    model: Required[Annotated[str, Field(min_length=1)]]
    """The name of a project. Texts are embedded as the project's questions are for retrieval."""
    input: Required[Input]
    """A text, or a list of texts. Lists of token ids are not accepted."""
    encoding_format: Literal["float", "base64"] | None
    """``base64``: little-endian float32 in base64, which OpenAI's clients ask for by default."""
    user: str | None
    dimensions: None
    """Not supported: vectors always have the dimensions of the project's embedding."""


class Embedding(TypedDict):
    """A vector of unit length, or of zeros for a text without a known token. A string is little-endian
    float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(TypedDict):
    """``model`` names the embedder. Only vectors of the same embedder can be compared."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]


WORDS = Words(TypeAdapter(EmbeddingsBody), frozenset({"dimensions"}), {})


@dataclass
class Embeddings:
    """Answers requests for embeddings. ``spec_of`` returns a project's present spec. ``tolerated``: fields of
    a request that are left out."""

    embedders: Embedders
    spec_of: Callable[[str], ProjectSpec | None]
    admission: Admission
    tolerated: Collection[str] = ()

    async def answer(self, raw: bytes, caller: Caller) -> tuple[bytes, Headers]:
        """Return the vectors in OpenAI's shape, and the headers that go with them.

        Raises:
            BadRequest, LimitReached
            UnknownModel: there is no project of that name, or this caller may not use it.
            Unavailable: the project's embedding endpoint is unavailable or not allowed.
        """
        body, dropped = WORDS.read(raw, self.tolerated)
        project, spec = body["model"], self.spec_of(body["model"])
        if spec is None or not caller.may(Role.APPLICATION, project):
            raise UnknownModel(f"model {project!r} is not served; name a project", param="model")
        embedding = spec.retrieval.embedding if spec.retrieval is not None else StaticEmbedding()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        admitted = await self.admission.admit(caller, size=len(raw), output_tokens=0, param="input")
        try:
            embedded = await self.embedders.embed(embedding, texts)
            admitted.used = embedded.tokens
        finally:
            await self.admission.settle(admitted)
        as_base64 = body.get("encoding_format") == "base64"
        answer = await asyncio.to_thread(_answer, embedded, as_base64=as_base64)
        return answer, [*admitted.headers, *dropped_header(dropped)]


def _answer(embedded: Embedded, *, as_base64: bool) -> bytes:
    """Encode the answer, one vector at a time, so that other threads can run in between."""
    rows = embedded.vectors.astype("<f4", order="C")
    if as_base64:
        said = [base64.b64encode(row.tobytes()).decode() for row in rows]
    else:
        said = [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(said)]
    return orjson.dumps({"object": "list", "data": data, "model": embedded.name, "usage": usage})
