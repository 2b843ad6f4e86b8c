"""What of a project's own a client replaces with its request. Such an answer says little of the model, and
whoever measures the model leaves it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_contracts.formats.bundle import Bundle

from tunewheel_serve_gateway.chat_request import LIMITS, ChatRequest
from tunewheel_serve_gateway.routing import Target

MAX_TOKENS = "max_tokens"
"""The client's own limit is below the task's. What an answer is like says nothing of the model only where it
ended at that limit."""
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "min_p": (0,),
    "presence_penalty": (0,),
    "stop": ("", []),
    "top_k": (-1, 0),
}
"""Sampling parameters that no verdict names, and the values by which they change nothing."""


def overrides_of(request: ChatRequest, target: Target) -> tuple[str, ...]:
    """Return what ``request`` replaces of what ``target`` serves, by name: ``system_prompt``,
    ``retrieval``, ``response_format``, ``tools``, sampling parameters, ``max_tokens``.

    Sampling is compared with what was judged; of a model that nobody judged the engine's own counts, which
    nobody knows. A ``seed`` chooses among the answers of the same model, and is no override.
    """
    found: list[str] = []
    own = target.system_prompt
    if any(one["role"] == "system" and one["content"] != own for one in request.conversation):
        found.append("system_prompt")
    if not request.retrieves_as_declared:
        found.append("retrieval")
    asked = request.parameters
    if not asked:
        return tuple(found)
    if asked.get("response_format", {}).get("type", "text") != "text":
        found.append("response_format")
    if "tools" in asked:
        found.append("tools")
    if target.bundle is not None:
        found += _sampling(asked, target.bundle)
    limits = [asked[name] for name in LIMITS if name in asked]
    if limits and target.max_output_tokens is not None and min(limits) < target.max_output_tokens:
        found.append(MAX_TOKENS)
    return tuple(found)


def _sampling(asked: Mapping[str, Any], bundle: Bundle) -> list[str]:
    decoding = bundle.decoding
    judged = {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "repetition_penalty": decoding.repetition_penalty,
    }
    differ = [name for name, value in judged.items() if asked.get(name, value) != value]
    added = [name for name, idle in _WITHOUT_EFFECT.items() if name in asked and asked[name] not in idle]
    return differ + added
