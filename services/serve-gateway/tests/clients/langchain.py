"""The features of LangChain; ``report`` prints which work."""

from __future__ import annotations

from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from report import TOOL, report


class Said(BaseModel):
    said: str


def model(**options: object) -> ChatOpenAI:
    return ChatOpenAI(model="desk", max_retries=0, **options)


def chat() -> bool:
    return model().invoke("hello").content == "desk-1: hello"


def stream() -> bool:
    return "".join(chunk.content for chunk in model().stream("hello")) == "desk-1: hello"


def tools() -> bool:
    function = {name: value for name, value in TOOL.items() if name != "type"}
    bound = model().bind_tools([{"type": "function", "function": function}])
    return bound.invoke("hello").tool_calls[0]["args"] == {"order": "hello"}


def schema() -> bool:
    return model().with_structured_output(Said).invoke("hello") == Said(said="hello")


def responses() -> bool:
    return model(use_responses_api=True).invoke("hello").text == "desk-1: hello"


def responses_stream() -> bool:
    chunks = model(use_responses_api=True).stream("hello")
    return "".join(chunk.text for chunk in chunks) == "desk-1: hello"


def prompts() -> bool:
    return OpenAI(model="desk", max_retries=0, n=1, best_of=1).invoke("hello") == "desk-1: hello"


def embeddings() -> bool:
    embedder = OpenAIEmbeddings(model="desk", check_embedding_ctx_length=False, max_retries=0)
    return len(embedder.embed_documents(["a b", "c d"])) == 2


report(chat, stream, tools, schema, responses, responses_stream, prompts, embeddings)
