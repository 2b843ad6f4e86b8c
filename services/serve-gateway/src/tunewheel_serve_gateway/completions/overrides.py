"""Finds the project's settings that a client replaces with its request.

An answer under replaced settings says little about the model, so the monitor leaves it out of its
measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_contracts.events.production import FALLBACK
from tunewheel_contracts.formats.bundle import Bundle

from tunewheel_serve_gateway.chat_request import LIMITS, ChatRequest
from tunewheel_serve_gateway.routing import Target

MAX_TOKENS = "max_tokens"
"""The override of a client whose limit of tokens is below the task's. It matters only where the answer ended
at that limit."""
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "min_p": (0,),
    "presence_penalty": (0,),
    "stop": ("", []),
    "top_k": (-1, 0),
}
"""Sampling parameters that a verdict's bundle does not hold, and the values at which they have no effect."""


def overrides_of(request: ChatRequest, target: Target) -> tuple[str, ...]:
    """Return the names of the settings of ``target`` that ``request`` replaces: ``system_prompt``,
    ``retrieval``, ``response_format``, ``tools``, sampling parameters, ``max_tokens``. A fallback replaces
    the model itself.

    Sampling parameters are compared with the bundle that was judged. They are not compared for a model
    without a verdict: it is sampled by the engine's defaults, which are unknown. A ``seed`` is no override,
    because it only chooses among the same model's answers.
    """
    found: list[str] = [FALLBACK] if target.is_fallback else []
    own = target.system_prompt
    if (request.is_bare and own) or any(
        one["role"] == "system" and one["content"] != own for one in request.conversation
    ):
        found.append("system_prompt")
    if not request.retrieves_as_declared:
        found.append("retrieval")
    asked = request.parameters
    if not asked:
        return tuple(found)
    named = asked.get("response_format", {}).get("type", "text")
    if named != "text" or ("response_format" in asked and target.response_format is not None):
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
