"""The features of LlamaIndex; ``report`` prints which work."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from report import report

HELLO = [ChatMessage(role="user", content="hello")]


class Said(BaseModel):
    said: str


def model(**options: object) -> OpenAILike:
    settings = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0}
    return OpenAILike(model="desk", **{**settings, **options})


def find_order(order: str) -> str:
    """Say where an order is."""
    return order


def chat() -> bool:
    return model().chat(HELLO).message.content == "desk-1: hello"


def stream() -> bool:
    return [*model().stream_chat(HELLO)][-1].message.content == "desk-1: hello"


def tools() -> bool:
    tool = FunctionTool.from_defaults(find_order)
    answer = model().chat_with_tools([tool], user_msg="hello")
    return model().get_tool_calls_from_response(answer)[0].tool_kwargs == {"order": "hello"}


def schema() -> bool:
    shaped = model(should_use_structured_outputs=True).as_structured_llm(Said)
    return shaped.chat(HELLO).raw == Said(said="hello")


def prompts() -> bool:
    return model(is_chat_model=False).complete("hello").text == "desk-1: hello"


def embeddings() -> bool:
    embedder = OpenAIEmbedding(model_name="desk", max_retries=0)
    return len(embedder.get_text_embedding_batch(["a b", "c d"])) == 2


report(chat, stream, tools, schema, prompts, embeddings)
